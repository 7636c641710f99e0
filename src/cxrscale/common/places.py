"""Where results lie, as patterns: each table declares its file by one of these (`tables.Table`), and whoever writes or
reads it fills in the names. Paths are relative to the working directory, so that a moved project stays up to date.
"""

RESULTS = "results"
STORES, WEIGHTS, DATA = "stores", "weights", "data"
#: Directly below RESULTS beside the studies' own folders: image stores, initial weights of networks, and data sets that
#: are made here (by convention: config/demo.yaml). No study may have such a name.
SHARED_FOLDERS = (STORES, WEIGHTS, DATA)
WEIGHTS_FOLDER = f"{RESULTS}/{WEIGHTS}"

#: Folder of a learner. {study}: the study's folder.
LEARNER_FOLDER = "{study}/learners/{model}/{resolution}px/fold{fold}-seed{seed}"
#: In it: the trained network.
LEARNER_WEIGHTS = "weights.safetensors"
#: In it while it is trained, and no longer: a training that is not finished.
CHECKPOINT = "checkpoint.pt"
#: What a learner is: the wildcards of LEARNER_FOLDER, and the columns by which its rows are known among all learners'.
LEARNER_KEY = ("model", "resolution_px", "fold", "seed")
#: Folder of one resolution of a store. {store}: the store's folder; {folder}: "base" or the resolution.
RESOLUTION_FOLDER = "{store}/{folder}"
BASE = "base"
