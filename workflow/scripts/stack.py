"""Combine learners within a fold: fitted on combine, scored on test."""

from pathlib import Path

from cxrscale import tables
from cxrscale.findings import TARGETS
from cxrscale.joblog import job
from cxrscale.splits import combine_split
from cxrscale.stacking import STACKED, WEIGHTS, StackingSettings, stack

with job(snakemake.log[0], __file__) as log:
    folds = snakemake.config["split"]["use_folds"]
    splits = {
        fold: combine_split(tables.read(TARGETS, path, columns=["split"]))
        for fold, path in zip(folds, snakemake.input.targets, strict=True)
    }
    for fold, split in splits.items():
        log.info("fold %d: weights are fitted on %s", fold, split)
    weights, stacked = stack(
        dict(zip(map(tuple, snakemake.params.learners), map(Path, snakemake.input.predictions), strict=True)),
        splits,
        StackingSettings(**snakemake.params.settings),
    )
    tables.write(WEIGHTS, weights, snakemake.output.weights)
    tables.write(STACKED, stacked, snakemake.output.stacked)
