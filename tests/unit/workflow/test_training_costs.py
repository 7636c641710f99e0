"""What trainings will cost, from the records of those before."""

import json
import os
from pathlib import Path

from cxrscale.workflow.training_costs import last_cost, training_costs


def record(folder: Path, seconds: float, gpu_seconds: float | None, device: str, epochs: int = 30) -> None:
    folder.mkdir(parents=True)
    content = {"seconds": seconds, "gpu_seconds": gpu_seconds, "device": device}
    text = json.dumps(content | {"identity": {"settings": {"epochs": epochs}}})
    (folder / "cost.json").write_text(text)


def train(folder: Path, **settings: object) -> tuple[Path, dict[str, object]]:
    return folder, settings


def test_cost_is_of_the_own_record_or_of_another_fold_or_seed_or_unknown(tmp_path: Path) -> None:
    at = {px: tmp_path / f"m/{px}px" for px in (64, 128, 256)}
    record(at[64] / "fold0-seed0", 3600, 4 * 3600, "Big GPU")
    record(at[128] / "fold0-seed0", 1800, None, "cpu")
    steps = [train(at[64] / "fold0-seed0"), train(at[64] / "fold1-seed0"), train(at[128] / "fold0-seed0")]
    again, first = training_costs([*steps, train(at[256] / "fold0-seed0")])
    assert again.startswith(
        "To be trained again: 2, about 0.5 hours of training on a CPU and about 4 GPU-hours (Big GPU) by their last"
    )
    assert first == (
        "To be trained for the first time: 1, about 4 GPU-hours (Big GPU) by records of the same model and resolution; "
        "1, unknown how long, no such learner was trained yet."
    )
    assert training_costs([]) == []


def test_cost_grows_with_the_epochs_that_are_asked_for(tmp_path: Path) -> None:
    record(tmp_path / "l", 3600, 3600, "GPU", epochs=3)
    assert "about 2 GPU-hours" in training_costs([train(tmp_path / "l", epochs=6)])[0]
    assert "about 10 GPU-hours" in training_costs([train(tmp_path / "l")])[0]  # 30, the default


def test_last_cost_is_the_own_one_then_the_newest_of_those_kept(tmp_path: Path) -> None:
    assert last_cost(tmp_path) is None
    for seconds, name in ((1, "superseded/a"), (2, "superseded/b"), (3, "kept/c")):
        record(tmp_path / name, seconds, None, "cpu")
        os.utime(tmp_path / name / "cost.json", (10 - seconds, 10 - seconds))
    found = last_cost(tmp_path)
    assert found is not None
    assert found["seconds"] == 1
    (tmp_path / "cost.json").write_text('{"sec')  # damaged
    assert last_cost(tmp_path) == found
    (tmp_path / "cost.json").write_text('{"seconds": 9}')
    assert last_cost(tmp_path) == {"seconds": 9}
