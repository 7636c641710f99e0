"""Take the checksums of some pictures, by which the store knows its data set again."""

from pathlib import Path

from cxrscale.common import tables
from cxrscale.common.joblog import job
from cxrscale.data.contracts import IMAGES
from cxrscale.store.contracts import FINGERPRINT
from cxrscale.store.fingerprint import fingerprint

with job(snakemake.log[0], __file__) as log:
    images = tables.read(IMAGES, snakemake.input.images, columns=["image_id", "path", "order"])
    found = fingerprint(images, Path(snakemake.config["dataset"]["root"]))
    tables.write(FINGERPRINT, found, snakemake.output[0])
    log.info("%d pictures, %d of them cannot be read", len(found), found["sha256"].isna().sum())
