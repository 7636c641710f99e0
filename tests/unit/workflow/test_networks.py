"""How the processes of a training are asked for: as the installed executor for SLURM says it to sbatch."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from cxrscale.train.settings import GpusFor
from cxrscale.workflow.networks import TrainingPlan

ROOT = Path(__file__).parents[3]


class Resources(dict[str, Any]):
    __getattr__ = dict.__getitem__


class Job:
    """What the executor looks at of a job that trains."""

    def __init__(self, plan: TrainingPlan) -> None:
        self.threads = plan.threads_of("cuda", "m", 2048)
        self.resources = Resources(plan.resources_of("cuda", "m", 2048))


def asked_of_sbatch(plan: TrainingPlan) -> list[str]:
    submit = pytest.importorskip("snakemake_executor_plugin_slurm.submit_string")
    utils = pytest.importorskip("snakemake_executor_plugin_slurm.utils")
    names = ("run_uuid", "slurm_logfile", "comment_str", "account", "partition", "workdir")
    job = Job(plan)
    command = submit.get_submit_command(job, dict.fromkeys(names, "")) + utils.set_gres_string(job)
    return str(command).split()


def test_four_gpus_on_one_node_are_one_task_there() -> None:
    said = asked_of_sbatch(TrainingPlan(gpus=4, workers=3))
    assert {"--gpus=4", "--nodes=1", "--cpus-per-task=16"} <= set(said)
    assert not [flag for flag in said if "ntasks" in flag]  # SLURM's default: one, which torchrun makes four


def test_gpus_on_two_nodes_are_a_task_each() -> None:
    said = asked_of_sbatch(TrainingPlan(gpus=4, nodes=2, workers=3))
    assert {"--gpus=8", "--gres=gpu:4", "--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=4"} <= set(said)


def test_a_gpu_on_each_of_two_nodes_is_a_task_each() -> None:
    said = asked_of_sbatch(TrainingPlan(gpus=4, gpus_for=[GpusFor(1, resolution_px=2048)], nodes=2, workers=3))
    assert {"--gpus=2", "--gres=gpu:1", "--nodes=2", "--ntasks=2", "--cpus-per-task=4"} <= set(said)


def test_gpus_are_those_of_the_last_entry_that_names_the_learner() -> None:
    some = [GpusFor(4, resolution_px=2048), GpusFor(2, resolution_px=1024), GpusFor(8, "b4", 2048), GpusFor(3, "b4")]
    plan = TrainingPlan(gpus_for=some)
    learners = [(model, px) for model in ("dense", "b4") for px in (2048, 1024, 512)]
    assert [plan.gpus_of(*learner) for learner in learners] == [4, 2, 1, 3, 3, 3]
    assert plan.threads_of("cuda", "dense", 2048) == 4 * 5
    # They are no part of what a learner is.
    assert plan.of_learner("dense", 2048) == TrainingPlan().of_learner("dense", 2048)
    with pytest.raises(ValueError, match="names neither model nor resolution_px"):
        GpusFor(4)


def test_a_process_that_fails_ends_those_on_other_nodes() -> None:
    launcher = TrainingPlan(gpus=4, nodes=2).resources_of("cuda", "m", 2048)["launcher"]
    assert launcher.startswith("srun --kill-on-bad-exit=1 -n 8 ")


@pytest.mark.parametrize(
    ("package", "works", "does_not"),
    [
        # 2.6.1 starts a job of four GPUs on one node four times.
        ("snakemake-executor-plugin-slurm", ["2.7.1", "2.8.0"], ["2.6.1", "2.7.0", "3.0.0"]),
        ("snakemake", ["9.27.1"], ["9.13.0", "10.0.0"]),  # workflow/plan.py looks into its objects
    ],
)
def test_versions_that_cannot_work_are_not_installed(package: str, works: list[str], does_not: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["slurm"]]
    (bounds,) = [r.specifier for r in map(Requirement, listed) if r.name == package]
    assert [v for v in (*works, *does_not) if v in bounds] == works


def test_memory_of_a_job_grows_with_its_gpus_and_the_pictures_in_flight() -> None:
    plan = TrainingPlan(gpus_for=[GpusFor(4, resolution_px=2048)])
    one, four = TrainingPlan().memory_mb("cuda", "m", 2048), plan.memory_mb("cuda", "m", 2048)
    assert one > TrainingPlan().memory_mb("cuda", "m", 256) + 4000  # 2.5 GiB shared, and as much to copy to the GPU
    assert four > 2.5 * one
    assert TrainingPlan(micro_batch_images=8).memory_mb("cuda", "m", 2048) < one - 4000
    assert TrainingPlan(nodes=2, gpus=2).memory_mb("cuda", "m", 2048) < four
    # What is computed at once whatever is asked for: a whole share, whole groups.
    together = {"normalisation": "synchronised"}
    assert TrainingPlan(**together, micro_batch_images=4).memory_mb("cuda", "m", 2048) == one
    eight = TrainingPlan(micro_batch_images=8).memory_mb("cuda", "m", 2048)
    assert TrainingPlan(micro_batch_images=1).memory_mb("cuda", "m", 2048) == eight
