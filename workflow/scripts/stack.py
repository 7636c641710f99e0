"""Combine learners within a fold: fitted on combine, scored on test, and held against ensembles of one resolution."""

from pathlib import Path

from cxrscale.combine.contracts import COEFFICIENTS, CONTROL, GAINS, SCALE_WEIGHTS, STACKED
from cxrscale.combine.settings import StackingSettings
from cxrscale.combine.stack import stack
from cxrscale.common import tables
from cxrscale.common.joblog import job
from cxrscale.data.contracts import TARGETS
from cxrscale.data.splits import combine_split

with job(snakemake.log[0], __file__) as log:
    settings = tables.settings_from(StackingSettings, snakemake.params.settings)
    splits = {
        fold: combine_split(tables.read(TARGETS, path, columns=["split"]))
        for fold, path in zip(snakemake.params.folds, snakemake.input.targets, strict=True)
    }
    for fold, split in splits.items():
        log.info("fold %d: weights are fitted on %s", fold, split)
    frames = stack(
        dict(zip(map(tuple, snakemake.params.learners), map(Path, snakemake.input.predictions), strict=True)),
        splits,
        settings,
    )
    gap = frames["scale_weights"]["gap"].max()
    if gap > settings.tolerance:
        log.warning("some weights are within %g nats of the best only, not %g: see gap", gap, settings.tolerance)
    for table in (SCALE_WEIGHTS, COEFFICIENTS, STACKED, GAINS, CONTROL):
        tables.write(table, frames[table.name], snakemake.output[table.name])
