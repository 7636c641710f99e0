"""What the Snakefile does before it names rules: the environment of jobs, the configuration, and checks of both."""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxrscale.common import provenance
from cxrscale.common.devices import SUBMITTED
from cxrscale.common.errors import StudyError
from cxrscale.store import fingerprint, quarantine
from cxrscale.workflow import config, settings_files
from cxrscale.workflow.facts import DatasetFacts, facts_of
from cxrscale.workflow.layout import Layout

#: Images of MIMIC-CXR-JPG.
MIMIC_IMAGES = 377_110


def prepare_environment(checkout: str | Path, snakefile: str | Path) -> None:
    """Have jobs import the package of this checkout, and shell commands run the Python that runs Snakemake.

    Raises StudyError if the checkout's path cannot be on Python's path, or another checkout's package is imported.
    """
    source = Path(checkout) / "src"
    if os.pathsep in str(source):
        raise StudyError(f"{checkout} cannot be on Python's path, for its {os.pathsep!r}; rename the folder.")
    provenance.require_checkout(snakefile)
    os.environ.update(
        CXRSCALE=str(checkout),
        PYTHONPATH=os.pathsep.join([str(source), *filter(None, [os.environ.get("PYTHONPATH")])]),
        PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    )
    # Snakemake writes the path of its Python into commands without quotes; its name is found by PATH.
    if shlex.quote(sys.executable) != sys.executable:
        sys.executable = "python"


def say_whose_gpus(workflow: Any) -> None:
    """Tell the steps that this process runs whether SLURM gave its GPUs to one of them alone; else they lease theirs.

    workflow: Snakemake's. Alone is a step that Snakemake submitted, not in a group: its nested Snakemake has the mode
    "remote", and `--local-groupid` for a group. A Snakemake that the user starts within an allocation has neither.
    """
    if workflow.subprocess_exec:  # a step's own, below one that has said it
        return
    os.environ.pop(SUBMITTED, None)
    grouped = any(argument.startswith("--local-groupid") for argument in sys.argv)
    if workflow.remote_exec and not grouped and "SLURM_JOB_ID" in os.environ:
        os.environ[SUBMITTED] = os.environ["SLURM_JOB_ID"]


def read(raw: Mapping[str, Any]) -> tuple[config.StudyConfig, Layout, DatasetFacts]:
    """The study, where its results lie, and what its data set has. Raises StudyError."""
    study = config.load(raw)
    layout = Layout(study)
    facts = facts_of(study, layout)
    # The size of the data set in units of MIMIC-CXR-JPG, by which limits of time grow in a cluster's profile.
    os.environ.update(MIMICS=f"{facts.images / MIMIC_IMAGES:.6f}")
    return study, layout, facts


def check_given(workflow: Any) -> None:
    """Raise StudyError if the user gave a setting twice. workflow: Snakemake's; its jobs' own processes pass."""
    if workflow.is_main_process:
        arguments = workflow.config_settings.config_args or []
        settings_files.check(workflow.configfiles, arguments, sys.argv)


def check_files(workflow: Any, study: config.StudyConfig, layout: Layout) -> None:
    """Raise StudyError if files of weights are gone, or the store is of other pictures or lacks too many.

    workflow: Snakemake's; its jobs' own processes pass. The store is not looked at where that is what is asked for.
    """
    if not workflow.is_main_process:
        return
    layout.check_weights_files()
    if "check_sources" not in sys.argv:
        store = Path(layout.store)
        fingerprint.check_fingerprint(store, Path(study.dataset.root))
        quarantine.check_unreadable(store, study.store.max_unreadable_fraction)
