"""In which order trainings start, and when all are done on the GPUs that are given: the longest first."""

import heapq
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrscale.train.settings import TrainingSettings
from cxrscale.workflow.training_costs import in_words, recorded_gpu_s

if TYPE_CHECKING:
    from cxrscale.workflow.config import StudyConfig

#: GPU-seconds that a million images of a million pixels cost in training, by `benchmarks/costs.py`: of an H100 by its
#: data sheet, not of one that was measured. A model that is not here counts as the mean.
ASSUMED_S = {"densenet121": 6_500.0, "efficientnet_b4": 8_700.0}

#: Of a training, above which it starts before anything else but checks of the csv files (100).
HIGHEST = 90.0


#: Of the images: one fold of ten, which no training sees.
TEST_FRACTION = 0.1


def assumed_gpu_s(study: "StudyConfig", images: int, model: str, resolution_px: int, epochs: int) -> float:
    """GPU-seconds of a training by ASSUMED_S; they grow with the area. images: of the data set.

    A validation image costs a third of one that is trained on.
    """
    rate = ASSUMED_S.get(model, sum(ASSUMED_S.values()) / len(ASSUMED_S))
    validate, combine = study.split.validate_fraction, study.split.combine_fraction
    seen = (1 - TEST_FRACTION) * images * (1 - validate - combine + validate / 3)
    return rate * epochs * seen / 1e6 * resolution_px**2 / 1e6


def priority_of(study: "StudyConfig", model: str, resolution_px: int) -> float:
    """Priority of a training, 0 to HIGHEST.

    Snakemake starts the jobs whose priorities add up to most. So a training counts by each of its GPUs, and by the
    square of how long it takes: several short ones must not outdo a long one.
    """

    def weight(model: str, resolution_px: int) -> float:
        gpus = study.training.gpus_of(model, resolution_px)
        epochs = study.training.settings_of(model, resolution_px).epochs
        return gpus * (assumed_gpu_s(study, 1, model, resolution_px, epochs) / gpus) ** 2

    most = max(weight(m.name, r) for m in study.models for r in study.resolutions_px)
    return HIGHEST * weight(model, int(resolution_px)) / most


def finish_s(trainings: Iterable[tuple[float, int]], gpus: int) -> float:
    """When all are done. trainings: seconds and GPUs of each. The longest start first, each once its GPUs are free.

    A training that wants more GPUs than there are gets all, and takes longer in proportion.
    """
    free, now, end = gpus, 0.0, 0.0
    running: list[tuple[float, int]] = []
    fitted = [(seconds * max(wanted / gpus, 1), min(wanted, gpus)) for seconds, wanted in trainings]
    waiting = sorted(fitted, reverse=True)
    while waiting:
        place = next((n for n, (_, wanted) in enumerate(waiting) if wanted <= free), None)
        if place is None:
            now, ended = heapq.heappop(running)
            free += ended
            continue
        seconds, wanted = waiting.pop(place)
        free -= wanted
        end = max(end, now + seconds)
        heapq.heappush(running, (now + seconds, wanted))
    return end


def expected_time(
    trainings: Sequence[tuple[Path, Any, int]],
    given: int | None,
    assumed: Callable[[str, int, int], float],
) -> list[str]:
    """When all trainings will be done, in words; nothing where they use no GPU.

    trainings: folder, settings and GPUs of each, the settings those that are not at their default. given: GPUs that may
    be used at once; None: no limit is known. assumed: GPU-seconds of a model, resolution and number of epochs, where no
    record tells. Several GPUs are taken to be as many times as fast.
    """
    if not trainings or not all(gpus for *_, gpus in trainings):
        return []
    known, times = 0, []
    for folder, settings, gpus in trainings:
        model, resolution = folder.parent.parent.name, int(folder.parent.name.removesuffix("px"))
        epochs = (settings if isinstance(settings, dict) else {}).get("epochs", TrainingSettings().epochs)
        recorded = recorded_gpu_s(folder, settings)
        known += recorded is not None
        times.append(((recorded if recorded is not None else assumed(model, resolution, epochs)) / gpus, gpus))
    how = "by records" if known == len(times) else "by an assumed H100 (docs/costs.md)"
    if 0 < known < len(times):
        how = f"{known} by records, {len(times) - known} {how}"
    longest = max(range(len(times)), key=lambda n: times[n])
    (seconds, gpus), folder = times[longest], trainings[longest][0]
    what = f"{folder.parent.parent.name} at {folder.parent.name.removesuffix('px')} px on {gpus} GPU{'s' * (gpus > 1)}"
    if given is None:
        return [
            f"The longest training, {what}, takes {in_words(seconds / 3600)} h, {how}. "
            "A dry run with `--resources gpu=8` says when all are done on eight GPUs."
        ]
    end = finish_s(times, given)
    line = f"All trainings on {given} GPU{'s' * (given > 1)}: {in_words(end / 3600)} h, {how}"
    even = sum(s * g for s, g in times) / given
    if end > max(1.2 * even, even + 3600) and gpus < given:
        line += f"; {in_words(even / 3600)} h if no GPU waited: give more GPUs to {what} (training.gpus_for)"
    return [f"{line}."]
