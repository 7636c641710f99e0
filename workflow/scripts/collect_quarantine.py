"""Gather the images that no shard could use, and stop if they are too many."""

import pandas as pd

from cxrscale import tables
from cxrscale.datasets.contracts import IMAGES
from cxrscale.joblog import job
from cxrscale.store.shards import QUARANTINE, check_unreadable

with job(snakemake.log[0], __file__) as log:
    parts = [tables.read(QUARANTINE, path) for path in snakemake.input.quarantine]
    quarantine = pd.concat(parts, ignore_index=True).sort_values("image_id")
    n_images = len(tables.read(IMAGES, snakemake.input.images, columns=["image_id"]))
    check_unreadable(quarantine, n_images, snakemake.params.max_unreadable_fraction)
    tables.write(QUARANTINE, quarantine, snakemake.output[0])
    log.info("%d of %d images are quarantined", len(quarantine), n_images)
