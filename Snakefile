# cxrscale: which resolution does each chest X-ray finding need? Reads config.yaml, includes the rules, names the targets.
import sys
from functools import partial
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

sys.path.insert(0, str(Path(workflow.basedir) / "src"))  # jobs import the package of this checkout

from cxrscale.common import errors
from cxrscale.workflow import accept, plan, schedule, start


configfile: "config.yaml"


try:
    start.prepare_environment(workflow.basedir, workflow.snakefile)
    start.say_whose_gpus(workflow)
    start.check_given(workflow)
    # What the rule files use: the study, where its results lie, what its data set has, and digests of code.
    study, layout, facts = start.read(config)
    start.check_files(workflow, study, layout)
    code = accept.Codes(Path(workflow.basedir) / "workflow" / "scripts", layout.accepted_changes)
except errors.StudyError as error:
    raise WorkflowError(str(error)) from None

config.clear()
config.update(study.plain(), boxes_file=facts.boxes)
accept.listen(workflow, logger, code)
# Before anything starts: why each stage runs, and what its trainings will cost.
plan.announce(workflow, logger, config, WorkflowError, partial(schedule.assumed_gpu_s, study, facts.images))


wildcard_constraints:
    model=r"[a-zA-Z0-9_]+",
    resolution=r"\d+",
    fold=r"\d+",
    seed=r"\d+",
    shard=r"\d{5}",


include: "workflow/rules/data.smk"
include: "workflow/rules/store.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/explain.smk"
include: "workflow/rules/combine.smk"
include: "workflow/rules/report.smk"


# The whole study.
rule all:
    default_target: True
    input:
        f"{layout.folder}/report/report.html",
        # Asked for by name, since a missing file between others goes unseen: where shards were set aside, these are gone.
        layout.tables("index"),
