"""List the images of a data set and assign each to a shard of the store."""

from pathlib import Path

from cxrscale.common import notes, tables
from cxrscale.common.joblog import job
from cxrscale.common.rows import NOT_RECORDED
from cxrscale.data.contracts import IMAGES
from cxrscale.data.csv_files import assign_shards
from cxrscale.data.formats import Chosen, named
from cxrscale.data.spelling import Reading

with job(snakemake.log[0], __file__) as log:
    dataset, labels = snakemake.config["dataset"], snakemake.config["labels"]
    format_ = named(dataset["format"])
    chosen = Chosen(format_.options(**dataset["options"]), labels["source"], labels["test_source"])
    sources = format_.sources(Path(dataset["root"]), chosen)
    reading = Reading(snakemake.params.exact_ids)
    images = format_.read_images(sources, reading)
    images["shard"], images["order"] = assign_shards(images["image_id"].tolist(), snakemake.params.shards)
    tables.write(IMAGES, images, snakemake.output.images)
    notes.write(reading.notes, snakemake.output.notes)
    log.info("%d images of %d patients", len(images), images["subject_id"].nunique())
    for view, count in images["view"].fillna(NOT_RECORDED).value_counts().items():
        log.info("view %s: %d", view, count)
