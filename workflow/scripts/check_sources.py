"""Compare the data set with what the store was made of, and set aside the shards whose images changed."""

from pathlib import Path

from cxrscale.common import tables
from cxrscale.common.joblog import job
from cxrscale.data.contracts import IMAGES
from cxrscale.store.changes import find_changes, set_aside
from cxrscale.store.contracts import FINGERPRINT
from cxrscale.store.fingerprint import FINGERPRINT_FILE, changed
from cxrscale.store.settings import Accepted

with job(snakemake.log[0], __file__) as log:
    images = tables.read(IMAGES, snakemake.input.images, columns=["image_id", "path", "shard"])
    store = Path(snakemake.input.images).parent
    root = Path(snakemake.config["dataset"]["root"])
    accepted = Accepted(**snakemake.params.accepted)
    changes = find_changes(images, store, root, accepted, snakemake.threads)
    for change in changes.itertuples():
        log.warning("%s (%s, shard %d) %s", change.image_id, change.path, change.shard, change.change)
    stale = sorted(set(changes.loc[changes["stale"], "shard"]))
    fingerprint = store / FINGERPRINT_FILE
    if fingerprint.is_file() and len(changed(tables.read(FINGERPRINT, fingerprint), root)):
        set_aside(store, [fingerprint])  # what differed is found, and set aside below: the next run takes a new one
    if stale:
        target = set_aside(store, [f for s in stale for f in store.glob(f"*/shard-{s:05d}.parquet")])
        log.warning("%d shards were moved to %s; run the workflow again to make them anew.", len(stale), target)
    else:
        log.warning("%d images: the store is of the data set as it is now.", len(images))
