"""What trainings will cost, by the records of those before."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrscale.train.settings import TrainingSettings


def training_costs(trainings: Sequence[tuple[Path, Any]]) -> list[str]:
    """What trainings will cost by the records of those before: lines for learners made again and for new ones.

    trainings: folder and settings of each learner, those that are not at their default.
    """
    again: list[tuple[float, bool, str]] = []
    new: list[tuple[float, bool, str]] = []
    unknown = 0
    for folder, settings in trainings:
        own = last_cost(folder)
        # The same model and resolution with another fold or seed.
        others = () if own else (last_cost(other) for other in sorted(folder.parent.glob("fold*-seed*")))
        record = own or next(filter(None, others), None)
        if record is None:
            unknown += 1
            continue
        (again if own else new).append(_scaled(record, settings))
    lines = []
    if again:
        lines.append(
            f"To be trained again: {len(again)}, {_amount(again)} by their last records; "
            "what was made before with the same settings, code and data is brought back instead."
        )
    if new or unknown:
        costs = [f"{len(new)}, {_amount(new)} by records of the same model and resolution"] if new else []
        costs += [f"{unknown}, unknown how long, no such learner was trained yet"] if unknown else []
        lines.append(f"To be trained for the first time: {'; '.join(costs)}.")
    return lines


def last_cost(folder: Path) -> dict[str, Any] | None:
    """The record cost.json of a learner's folder, else the newest of those kept or superseded; None without any."""
    old = [path for name in ("kept", "superseded") for path in folder.glob(f"{name}/*/cost.json")]
    for path in [folder / "cost.json", *sorted(old, key=lambda p: -p.stat().st_mtime)]:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and isinstance(record.get("seconds"), int | float):
            return record
    return None


def recorded_gpu_s(folder: Path, settings: Any) -> float | None:
    """GPU-seconds of a training by the last record of its learner, of another fold or seed, or of the same model at the
    nearest resolution, scaled by the area; None without any."""
    size = _side(folder.parent)
    places = sorted(folder.parent.parent.glob("*px"), key=lambda place: abs(_side(place) - size))
    for learner in (folder, *(other for place in places for other in sorted(place.glob("fold*-seed*")))):
        record = last_cost(learner)
        if record is not None and record.get("gpu_seconds") is not None:
            return _scaled(record, settings)[0] * (size / _side(learner.parent)) ** 2
    return None


def _side(folder: Path) -> int:
    """The resolution that a folder of learners is named by, in pixels."""
    return int(folder.name.removesuffix("px"))


def _scaled(record: Mapping[str, Any], settings: Any) -> tuple[float, bool, str]:
    """(seconds of training, of GPUs or of a CPU; whether of GPUs; device) with as many epochs as are asked for."""
    on_gpu = record.get("gpu_seconds") is not None
    seconds = float(record["gpu_seconds"] if on_gpu else record["seconds"])
    before = record.get("identity", {}).get("settings", {}).get("epochs")
    if before and isinstance(settings, dict):
        seconds *= settings.get("epochs", TrainingSettings().epochs) / before
    return seconds, on_gpu, str(record.get("device", "?"))


def _amount(costs: Iterable[tuple[float, bool, str]]) -> str:
    """A sum in words: GPU-hours by device, hours of training on a CPU apart."""
    sums: dict[tuple[bool, str], float] = {}
    for seconds, on_gpu, device in costs:
        sums[on_gpu, device] = sums.get((on_gpu, device), 0.0) + seconds / 3600
    return " and ".join(
        f"{in_words(h)} {f'GPU-hours ({device})' if on_gpu else 'hours of training on a CPU'}"
        for (on_gpu, device), h in sorted(sums.items())
    )


def in_words(hours: float) -> str:
    """A number of hours, to two digits."""
    if hours < 0.01:
        return "less than 0.01"
    return f"about {hours:.2g}" if hours < 10 else f"about {hours:,.0f}"
