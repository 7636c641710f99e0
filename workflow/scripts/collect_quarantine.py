"""Gather the images that no shard could use; stop if they are too many, or the store is of another list of images."""

from pathlib import Path

import pandas as pd

from cxrscale import tables
from cxrscale.datasets.contracts import IMAGES
from cxrscale.joblog import job
from cxrscale.store.changes import check_list
from cxrscale.store.shards import QUARANTINE, check_unreadable

with job(snakemake.log[0], __file__) as log:
    parts = [tables.read(QUARANTINE, path) for path in snakemake.input.quarantine]
    quarantine = pd.concat(parts, ignore_index=True).sort_values("image_id")
    images = tables.read(IMAGES, snakemake.input.images, columns=["image_id", "path"])
    check_list(images, [Path(path) for path in snakemake.input.shards], quarantine)
    check_unreadable(quarantine, len(images), snakemake.params.max_unreadable_fraction)
    tables.write(QUARANTINE, quarantine, snakemake.output[0])
    log.info("%d of %d images are quarantined", len(quarantine), len(images))
