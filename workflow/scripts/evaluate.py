"""Metrics of one learner with intervals from a bootstrap over patients."""

from pathlib import Path

from cxrscale import tables
from cxrscale.evaluation.metrics import MEAN, METRICS, evaluate
from cxrscale.joblog import job

with job(snakemake.log[0], __file__) as log:
    metrics = evaluate(Path(snakemake.input[0]), ("validate", "combine", "test"), **snakemake.params.evaluation)
    tables.write(METRICS, metrics, snakemake.output[0])
    for row in metrics[(metrics["finding"] == MEAN) & (metrics["metric"] == "auroc")].itertuples():
        log.info("%s: mean AUROC %.4f (%.4f to %.4f)", row.split, row.value, row.lower, row.upper)
    for row in metrics[metrics["reason"].notna()].itertuples():
        log.warning("%s has no %s on %s: %s", row.finding, row.metric, row.split, row.reason)
