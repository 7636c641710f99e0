"""Bring patients who share a picture into one split."""

from cxrscale.common import notes, tables
from cxrscale.common.joblog import job
from cxrscale.data.contracts import TARGETS
from cxrscale.data.splits import keep_together
from cxrscale.store.contracts import SHARED

with job(snakemake.log[0], __file__) as log:
    targets, found = keep_together(
        tables.read(TARGETS, snakemake.input.targets),
        tables.read(SHARED, snakemake.input.shared),
        snakemake.params.most_sharing_patients,
    )
    tables.write(TARGETS, targets, snakemake.output.targets)
    notes.write(found, snakemake.output.notes)
