"""Whether the store's pictures fit what the study asks of them, before anything is trained; what is doubtful is noted."""


