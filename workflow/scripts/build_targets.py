"""Split patients and turn raw labels into the targets and masks of one fold."""

from cxrscale.common import notes, tables
from cxrscale.common.joblog import job
from cxrscale.data.contracts import IMAGES, LABELS, TARGETS
from cxrscale.data.findings import check_named
from cxrscale.data.labels import policies
from cxrscale.data.settings import LabelPolicy, SplitSettings
from cxrscale.data.splits import build_targets, notes_on_sources

with job(snakemake.log[0], __file__) as log:
    labels = tables.read(LABELS, snakemake.input.labels)
    images = tables.read(IMAGES, snakemake.input.images)
    findings = snakemake.params.findings or LABELS.findings(labels.columns)
    policy = snakemake.params.policy
    check_named(policy["per_finding"], findings, "labels.per_finding")
    unread = snakemake.params.unread
    targets = build_targets(
        labels,
        images,
        findings,
        policies(
            findings,
            LabelPolicy(**policy["default"]),
            {f: LabelPolicy(**{**policy["default"], **own}) for f, own in policy["per_finding"].items()},
        ),
        snakemake.params.views,
        SplitSettings(**snakemake.params.split),
        int(snakemake.wildcards.fold),
        unread,
    )
    tables.write(TARGETS, targets, snakemake.output.targets)
    notes.write(notes_on_sources(labels, targets, unread), snakemake.output.notes)
    for split, rows in targets.groupby("split"):
        log.info("%s: %d images of %d patients", split, len(rows), rows["subject_id"].nunique())
