"""Metrics of one learner, by image and by study, with intervals that take patients as the unit."""

from pathlib import Path

from cxrscale.common import tables
from cxrscale.common.joblog import job
from cxrscale.common.rows import ALL_IMAGES, MEAN
from cxrscale.data.formats import Chosen, named
from cxrscale.data.spelling import Reading
from cxrscale.data.subgroups import read_format_groups, read_subgroups
from cxrscale.evaluate.contracts import METRICS
from cxrscale.evaluate.metrics import evaluate
from cxrscale.evaluate.settings import EvaluationSettings

with job(snakemake.log[0], __file__) as log:
    settings = tables.settings_from(EvaluationSettings, snakemake.params.settings)
    reading, groups, dataset = Reading(snakemake.params.exact_ids), snakemake.params.groups, snakemake.config["dataset"]
    subgroups = []
    if path := snakemake.config["evaluation"]["subgroups"]:
        subgroups.append(read_subgroups(Path(path), groups["file"], reading))
    if groups["format"]:
        format_, labels = named(dataset["format"]), snakemake.config["labels"]
        chosen = Chosen(format_.options(**dataset["options"]), labels["source"], labels["test_source"])
        sources = format_.sources(Path(dataset["root"]), chosen)
        subgroups.append(read_format_groups(format_, sources, groups["format"], reading))
    metrics = evaluate(Path(snakemake.input[0]), ("validate", "combine", "test"), settings, subgroups)
    tables.write(METRICS, metrics, snakemake.output[0])
    whole = metrics[(metrics["level"] == "image") & (metrics["group"] == ALL_IMAGES)]
    auroc = whole[(whole["metric"] == "auroc") & (whole["interval"] == "clustered")]
    for row in auroc[auroc["finding"] == MEAN].itertuples():
        log.info("%s: mean AUROC %.4f (%.4f to %.4f)", row.split, row.value, row.lower, row.upper)
    for row in whole[whole["reason"].notna()].drop_duplicates(["finding", "split", "reason"]).itertuples():
        log.warning("%s, %s on %s: %s", row.finding, row.metric, row.split, row.reason)
