"""Stage train: pictures into a network, one learner at a time, under control."""
