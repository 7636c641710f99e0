"""Whether what the study names is there: views, findings, boxes, subgroups; what is left out is noted."""

from pathlib import Path

from cxrscale.common import notes, tables
from cxrscale.common.joblog import job
from cxrscale.data.boxes import check_known, read_boxes
from cxrscale.data.contracts import IMAGES, LABELS
from cxrscale.data.findings import check_named
from cxrscale.data.spelling import Reading
from cxrscale.data.subgroups import check_subgroups, read_subgroups

with job(snakemake.log[0], __file__) as log:
    params = snakemake.params
    reading = Reading(params.exact_ids)
    labels = tables.read(LABELS, snakemake.input.labels)
    images = tables.read(IMAGES, snakemake.input.images)
    findings = params.findings or LABELS.findings(labels.columns)
    check_named(params.report["findings"] or [], findings, "report.findings")
    if params.ignores_split and images["official_split"].notna().any():
        reading.note("split", "The data set has a column split, which split.method: kfold does not use.")
    if boxes_file := snakemake.config["boxes_file"]:
        path = Path(boxes_file)
        check_known(read_boxes(path, reading), images["image_id"], findings, path, reading)
    if params.subgroups:
        path = Path(snakemake.config["evaluation"]["subgroups"])
        check_subgroups(read_subgroups(path, params.groups, reading), labels, path, reading)
    notes.write(reading.notes, snakemake.output[0])
