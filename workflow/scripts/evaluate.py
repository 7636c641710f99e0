"""Metrics of one learner, by image and by study, with intervals that take patients as the unit."""

from pathlib import Path

from cxrscale.common import tables
from cxrscale.common.joblog import job
from cxrscale.data.spelling import Reading
from cxrscale.data.subgroups import read_subgroups
from cxrscale.evaluate.metrics import ALL, MEAN, METRICS, EvaluationSettings, evaluate

with job(snakemake.log[0], __file__) as log:
    settings = tables.settings_from(EvaluationSettings, snakemake.params.settings)
    path = snakemake.config["evaluation"]["subgroups"]
    subgroups = read_subgroups(Path(path), settings.groups, Reading(snakemake.params.exact_ids)) if path else None
    metrics = evaluate(Path(snakemake.input[0]), ("validate", "combine", "test"), settings, subgroups)
    tables.write(METRICS, metrics, snakemake.output[0])
    whole = metrics[(metrics["level"] == "image") & (metrics["group"] == ALL)]
    auroc = whole[(whole["metric"] == "auroc") & (whole["interval"] == "clustered")]
    for row in auroc[auroc["finding"] == MEAN].itertuples():
        log.info("%s: mean AUROC %.4f (%.4f to %.4f)", row.split, row.value, row.lower, row.upper)
    for row in whole[whole["reason"].notna()].drop_duplicates(["finding", "split", "reason"]).itertuples():
        log.warning("%s, %s on %s: %s", row.finding, row.metric, row.split, row.reason)
