"""In which order trainings start, and when all are done."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from cxrscale.train.settings import GpusFor
from cxrscale.workflow.config import StudyConfig
from cxrscale.workflow.schedule import HIGHEST, assumed_gpu_s, expected_time, finish_s, priority_of


@pytest.mark.parametrize(
    ("trainings", "gpus", "end"),
    [
        ([(5, 1)], 8, 5),
        ([(3, 1), (2, 1), (2, 1)], 2, 4),  # the longest first; in the order of their names it were 5
        ([(2, 1), (2, 1), (3, 1)], 2, 4),
        ([(4, 4), (4, 4), (1, 1)], 8, 5),
        ([(4, 4), (3, 8)], 8, 7),  # one that wants all waits for all
        ([(4, 4), (3, 8), (2, 4)], 8, 7),  # meanwhile a shorter one fills the gap
        ([(4, 8)], 2, 16),  # given two of eight, it takes four times as long
        ([], 8, 0),
    ],
)
def test_the_end_of_all_trainings(trainings: list[tuple[float, int]], gpus: int, end: float) -> None:
    assert finish_s(trainings, gpus) == end


STUDY = StudyConfig()
LEARNERS = [(m.name, r) for m in STUDY.models for r in STUDY.resolutions_px]


def with_gpus(*some: GpusFor) -> StudyConfig:
    return replace(STUDY, training=replace(STUDY.training, gpus_for=list(some)))


def test_the_longest_training_starts_first() -> None:
    priorities = {learner: priority_of(STUDY, *learner) for learner in LEARNERS}
    times = {learner: assumed_gpu_s(STUDY, 1000, *learner, 30) for learner in LEARNERS}
    assert sorted(LEARNERS, key=priorities.__getitem__) == sorted(LEARNERS, key=times.__getitem__)
    assert max(priorities.values()) == HIGHEST < 100
    # Snakemake adds priorities up: four short ones on a GPU each must not outdo a longer one on four.
    study = with_gpus(GpusFor(4, "densenet121", 2048))
    assert priority_of(study, "densenet121", 2048) > 4 * priority_of(study, "densenet121", 1024) * 0.99


def learner(root: Path, model: str, px: int, gpu_s: float | None = None) -> tuple[Path, dict[str, int], int]:
    folder = root / model / f"{px}px/fold0-seed0"
    if gpu_s is not None:
        folder.mkdir(parents=True)
        record = {"seconds": gpu_s, "gpu_seconds": gpu_s, "identity": {"settings": {"epochs": 30}}}
        (folder / "cost.json").write_text(json.dumps(record))
    return folder, {}, 1


def test_a_dry_run_says_when_all_are_done_and_what_keeps_gpus_waiting(tmp_path: Path) -> None:
    assumed = partial(assumed_gpu_s, STUDY, 1000)
    trainings = [learner(tmp_path, "a", 64, 3600 * 20), learner(tmp_path, "b", 64, 3600 * 4)]
    (line,) = expected_time(trainings, 4, assumed)
    assert line == (
        "All trainings on 4 GPUs: about 20 h, by records; about 6 h if no GPU waited: give more GPUs to a at 64 px on "
        "1 GPU (training.gpus_for)."
    )
    folder, settings, _ = trainings[0]
    (line,) = expected_time([(folder, settings, 4), trainings[1]], 4, assumed)
    assert line == "All trainings on 4 GPUs: about 9 h, by records."
    (line,) = expected_time(trainings, None, assumed)
    assert line.startswith("The longest training, a at 64 px on 1 GPU, takes about 20 h, by records. A dry run with")


def test_time_is_of_the_nearest_resolution_by_area_or_assumed(tmp_path: Path) -> None:
    learner(tmp_path, "a", 64, 3600)
    learner(tmp_path, "a", 512, 3600 * 100)
    (line,) = expected_time([learner(tmp_path, "a", 128)], 1, lambda *_: 0.0)
    assert line == "All trainings on 1 GPU: about 4 h, by records."
    folder, _, _ = learner(tmp_path, "a", 128)
    (line,) = expected_time([(folder, {"epochs": 60}, 1)], 1, lambda *_: 0.0)
    assert "about 8 h" in line
    (line,) = expected_time([(folder, {}, 1), learner(tmp_path, "b", 128)], 1, lambda *_: 3600 * 3)
    assert line == "All trainings on 1 GPU: about 7 h, 1 by records, 1 by an assumed H100 (docs/costs.md)."


def test_where_no_gpu_is_used_nothing_is_said(tmp_path: Path) -> None:
    folder, settings, _ = learner(tmp_path, "a", 128)
    assert expected_time([(folder, settings, 0)], 8, lambda *_: 1.0) == []
    assert expected_time([], 8, lambda *_: 1.0) == []
