"""Gather the images that no shard could use, and those that share a file; stop if too many cannot be used, or the store
is of another list of images."""

from pathlib import Path

import pandas as pd

from cxrscale.common import tables
from cxrscale.common.joblog import job
from cxrscale.data.contracts import IMAGES
from cxrscale.store.changes import check_list, record_of
from cxrscale.store.contracts import QUARANTINE, SHARED
from cxrscale.store.quarantine import check_fraction
from cxrscale.store.shared import shared_pictures

with job(snakemake.log[0], __file__) as log:
    parts = [tables.read(QUARANTINE, path) for path in snakemake.input.quarantine]
    quarantine = pd.concat(parts, ignore_index=True).sort_values("image_id")
    images = tables.read(IMAGES, snakemake.input.images, columns=["image_id", "path"])
    records = [record_of(Path(path)) for path in snakemake.input.shards]
    check_list(images, records, quarantine)
    check_fraction(quarantine, len(images), snakemake.config["store"]["max_unreadable_fraction"])
    shared = shared_pictures(records)
    tables.write(QUARANTINE, quarantine, snakemake.output.quarantine)
    tables.write(SHARED, shared, snakemake.output.shared)
    log.info("%d of %d images are quarantined", len(quarantine), len(images))
    log.info("%d images share %d files", len(shared), shared["sha256"].nunique())
