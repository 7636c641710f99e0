"""Compare the resolutions of each model on the patients of test."""

from pathlib import Path

from cxrscale.common import tables
from cxrscale.common.joblog import job
from cxrscale.evaluate.comparison import compare
from cxrscale.evaluate.contracts import AUROC, AVERAGES, DIFFERENCES, SUFFICIENT
from cxrscale.evaluate.settings import ComparisonSettings

with job(snakemake.log[0], __file__) as log:
    settings = tables.settings_from(ComparisonSettings, snakemake.params.settings)
    found = compare(dict(zip(map(tuple, snakemake.params.learners), map(Path, snakemake.input), strict=True)), settings)
    tables.write(AUROC, found.levels, snakemake.output.auroc)
    tables.write(AVERAGES, found.averages, snakemake.output.averages)
    tables.write(DIFFERENCES, found.differences, snakemake.output.differences)
    tables.write(SUFFICIENT, found.sufficient, snakemake.output.sufficient)
    for row in found.sufficient.itertuples():
        log.info("%s, %s: %s px suffice", row.model, row.finding, row.sufficient_px)
