"""List the images of a data set and assign each to a shard of the store."""

from pathlib import Path

from cxrscale.common import notes, tables
from cxrscale.common.joblog import job
from cxrscale.data.csv_files import IMAGES, assign_shards
from cxrscale.data.formats import parser
from cxrscale.data.spelling import Reading

with job(snakemake.log[0], __file__) as log:
    dataset, labels = snakemake.config["dataset"], snakemake.config["labels"]
    reader = parser(dataset["format"])
    sources = reader.sources(
        Path(dataset["root"]),
        labels_source=labels["source"],
        test_source=labels["test_source"],
        manifest=dataset["manifest"],
    )
    reading = Reading(snakemake.params.exact_ids)
    images = reader.read_images(sources, reading)
    images["shard"], images["order"] = assign_shards(images["image_id"].tolist(), snakemake.params.shards)
    tables.write(IMAGES, images, snakemake.output.images)
    notes.write(reading.notes, snakemake.output.notes)
    log.info("%d images of %d patients", len(images), images["subject_id"].nunique())
    for view, count in images["view"].fillna("(not recorded)").value_counts().items():
        log.info("view %s: %d", view, count)
