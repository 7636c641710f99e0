"""Read the raw labels of a data set into one table, an image a row."""

from pathlib import Path

from cxrscale.common import notes, tables
from cxrscale.common.joblog import job
from cxrscale.data.contracts import LABELS
from cxrscale.data.formats import Chosen, named
from cxrscale.data.spelling import Reading

with job(snakemake.log[0], __file__) as log:
    dataset = snakemake.config["dataset"]
    format_ = named(dataset["format"])
    chosen = Chosen(format_.options(**dataset["options"]), snakemake.params.label_source, snakemake.params.test_source)
    sources = format_.sources(Path(dataset["root"]), chosen)
    reading = Reading(snakemake.params.exact_ids)
    labels = format_.read_labels(sources, snakemake.params.findings, reading)
    tables.write(LABELS, labels, snakemake.output.labels)
    notes.write(reading.notes, snakemake.output.notes)
    log.info("%d labelled images of %d patients", len(labels), labels["subject_id"].nunique())
    for finding in LABELS.findings(labels.columns):
        counts = labels[f"label:{finding}"].value_counts(dropna=False)
        log.info(
            "%s: %d present, %d absent, %d uncertain, %d not mentioned",
            finding,
            counts.get(1, 0),
            counts.get(0, 0),
            counts.get(-1, 0),
            labels[f"label:{finding}"].isna().sum(),
        )
