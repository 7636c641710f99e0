"""Compare the resolutions of each model on the patients of test."""

from pathlib import Path

from cxrscale import tables
from cxrscale.evaluation.comparison import (
    DIFFERENCES,
    LEVELS,
    SUFFICIENT,
    ComparisonSettings,
    compare,
)
from cxrscale.joblog import job

with job(snakemake.log[0], __file__) as log:
    settings = ComparisonSettings(**snakemake.params.settings)
    levels, differences, sufficient = compare(
        dict(zip(map(tuple, snakemake.params.learners), map(Path, snakemake.input), strict=True)), settings
    )
    tables.write(LEVELS, levels, snakemake.output.auroc)
    tables.write(DIFFERENCES, differences, snakemake.output.differences)
    tables.write(SUFFICIENT, sufficient, snakemake.output.sufficient)
    for row in sufficient.itertuples():
        log.info("%s, %s: %s px suffice", row.model, row.finding, row.sufficient_px)
