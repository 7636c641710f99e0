# cxrscale: which resolution does each chest X-ray finding need? Reads config.yaml, includes the rules, names the targets.
import json
import os
import shlex
import sys
from functools import partial
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# Jobs import the package of this checkout, and shell commands run the Python that runs Snakemake.
SOURCE = Path(workflow.basedir) / "src"
SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
sys.path.insert(0, str(SOURCE))
os.environ.update(
    CXRSCALE=str(workflow.basedir),
    PYTHONPATH=os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]),
    PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
)
# Snakemake writes the path of its Python into commands without quotes; its name is found by PATH.
if shlex.quote(sys.executable) != sys.executable:
    sys.executable = "python"

from cxrscale.workflow import config as study_config
from cxrscale.workflow import plan, settings_files
from cxrscale.common import provenance
from cxrscale.data import formats as lookup, size, subgroups, synthetic
from cxrscale.common.errors import StudyError
from cxrscale.workflow.layout import WEIGHTS_FOLDER, Layout
from cxrscale.store import fingerprint, quarantine


configfile: "config.yaml"


try:
    if os.pathsep in str(SOURCE):
        raise StudyError(f"{workflow.basedir} cannot be on Python's path, for its {os.pathsep!r}; rename the folder.")
    provenance.require_checkout(workflow.snakefile)
    if workflow.is_main_process:
        given = workflow.config_settings
        settings_files.check(workflow.configfiles, given.config_args or [], sys.argv)
    study = study_config.load(config)
    layout = Layout(study)
    label_options = {
        "labels_source": study.labels.source,
        "test_source": study.labels.test_source,
        "manifest": study.dataset.manifest,
    }
    # The csv files count by their content (see docs/reruns.md); those of a synthetic data set are made here.
    if study.dataset.synthetic:
        source_files = [layout.source_path(name) for name in synthetic.FILES]
        source_digests = {"labels": {}, "images": {}}
        images = 3 * study.dataset.synthetic.patients
    else:
        source_files = []
        where = (study.dataset.format, Path(study.dataset.root), label_options)
        source_digests = lookup.source_digests(*where)
        images = size.count_images(Path(layout.images), *where)
    exact_ids = study.dataset.ids == "exact"
    subgroups_digest = subgroups.digest(study.evaluation.subgroups, study.evaluation.groups, exact_ids)
    if workflow.is_main_process:
        layout.check_weights_files()
        # Whether the store is of these pictures, but where that is what is asked for.
        if "check_sources" not in sys.argv:
            fingerprint.check_fingerprint(Path(layout.store), Path(study.dataset.root))
            quarantine.check_unreadable(Path(layout.store), study.store.max_unreadable_fraction)
except StudyError as error:
    raise WorkflowError(str(error)) from None

config.clear()
config.update(study.model_dump(mode="json"))
# Before anything starts: why each stage runs, and what its trainings will cost.
plan.announce(workflow, logger, config, WorkflowError)

# The size of the data set in units of MIMIC-CXR-JPG, by which limits of time grow in a cluster's profile.
os.environ.update(MIMICS=f"{images / 377_110:.6f}")
gpu = 1 if study.accelerator == "cuda" else 0
code = partial(provenance.code_digest_of, SCRIPTS)
logs = f"{layout.folder}/logs"


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
include: "workflow/rules/combine.smk"
include: "workflow/rules/explain.smk"
include: "workflow/rules/report.smk"


localrules:
    all,
    targets,
    stores,
    learners,
    fetch_all_weights,


# The whole study.
rule all:
    default_target: True
    input:
        f"{layout.folder}/report/report.html",
        # Asked for by name, since a missing file between others goes unseen: where shards were set aside, these are gone.
        [layout.manifest(resolution) for resolution in study.resolutions_px],


# Labels, targets and checks as the csv files alone give them; needs no image.
rule targets:
    input:
        layout.notes("inputs"),
        [layout.drawn_targets(fold) for fold in study.split.use_folds],


# The image store at every resolution, held against the data set's list of images.
rule stores:
    input:
        f"{layout.store}/base/quarantine.csv",
        [layout.manifest(resolution) for resolution in study.resolutions_px],


# All trainings.
rule learners:
    input:
        layout.of_learners("weights.safetensors"),


# Initial weights of all models; needs a network where a model names a timm tag.
rule fetch_all_weights:
    input:
        expand(f"{WEIGHTS_FOLDER}/{{file}}", file=initial_weights),
