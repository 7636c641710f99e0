"""Take the checksums of some pictures, by which the store knows its data set again."""

from pathlib import Path

from cxrscale import tables
from cxrscale.datasets.contracts import IMAGES
from cxrscale.joblog import job
from cxrscale.store.fingerprint import FINGERPRINT, fingerprint

with job(snakemake.log[0], __file__) as log:
    images = tables.read(IMAGES, snakemake.input.images, columns=["image_id", "path", "order"])
    found = fingerprint(images, Path(snakemake.config["dataset"]["root"]))
    tables.write(FINGERPRINT, found, snakemake.output[0])
    log.info("%d pictures, %d of them cannot be read", len(found), found["sha256"].isna().sum())
