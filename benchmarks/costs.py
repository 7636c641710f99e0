"""What a study costs: steps, CPU-hours, GPU-hours, disk and network, by stage, for the default protocol or another.

python benchmarks/costs.py --json benchmarks/results/costs.json --images 377110 --gpus 8

Measured here: bytes of a stored image at each size; on a device without memory ("meta") the operations of a forward and
a backward pass, one by one, with the bytes that each reads and writes, and what autograd keeps, in bfloat16.
From results/: seconds of the store, images a second of a loader's worker, seconds of the bootstrap. Assumed, since no
GPU was measured: one NVIDIA H100 SXM (data sheet: 989 TFLOP/s in bfloat16, 3.35 TB/s), of which a training reaches
EFFICIENCY, and a host that takes LAUNCH_S for an operation. docs/costs.md has the formulae.
"""

import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from measure import Result, arguments, report
from pictures import make_stores, native_files
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from cxrscale.train import normalisation
from cxrscale.train.models import build_model
from cxrscale.train.normalisation import set_normalisation
from cxrscale.workflow.config import StudyConfig

RESULTS = Path(__file__).parent / "results"
FLOPS, BANDWIDTH = 989e12, 3.35e12  # of an H100 SXM, a second
MEMORY = 0.9 * 80e9  # bytes of it that are used
LAUNCH_S = 7e-6  # of the host, to start one operation: Python, autograd and the driver
EFFICIENCY = 0.7
TEST = 0.1  # of the images: one fold of ten; the rest is split again
COUNTED_PX = 128
GROUP = 8  # images that are normalised together


@dataclass(frozen=True)
class Work:
    """Of an image at COUNTED_PX, but for launches. operations: forward. kept: bytes that autograd keeps. moved: bytes
    read and written, forward and backward. launches: operations of a forward and a backward pass of one group of
    images; launches_a_group: of each further group that is computed with it.
    """

    operations: float
    kept: float
    moved: float
    launches: float = 0.0
    launches_a_group: float = 0.0


class Traffic(TorchDispatchMode):
    """Counts what a device would do: operations that are no views, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.launches, self.bytes = 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), named: Any = None) -> Any:
        found = function(*args, **(named or {}))
        name = str(function)
        if not function.is_view and "_unsafe_view" not in name and ".empty" not in name:
            taken, given = ([t for t in tree_leaves(x) if isinstance(t, torch.Tensor)] for x in (args, found))
            self.launches += 1
            # Normalisation reads its input once for the statistics and once more to normalise; its gradient likewise.
            times = 2 if "batch_norm" in name else 1
            self.bytes += 2 * (times * sum(t.numel() for t in taken) + sum(t.numel() for t in given))
        return found


@dataclass(frozen=True)
class Stage:
    """Of all jobs of a stage. read_gb: over the network, if nothing is cached or staged."""

    stage: str
    steps: int
    cpu_hours: float
    gpu_hours: float
    disk_gb: float
    read_gb: float


def measured(file: str, what: str) -> float:
    """A figure of the last full run of another benchmark."""
    return float(next(r["value"] for r in json.loads((RESULTS / file).read_text()) if r["what"] == what))


def stored_bytes(sizes: list[int], count: int, pictures: Path | None) -> dict[int, float]:
    """Mean size of a stored image at each resolution, over pictures as large as the data set's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_stores(native_files(folder / "native", count, pictures), folder / "stores", sizes)
        shards = {size: list((folder / "stores" / str(size)).rglob("shard-*.parquet")) for size in sizes}
        return {size: sum(p.stat().st_size for p in found) / count for size, found in shards.items()}


def passed(model_name: str, images: int, at_once: bool = False) -> Traffic:
    """A forward and a backward pass of so many images. at_once: all groups in one step of autograd."""
    with torch.device("meta"):
        model = set_normalisation(build_model(model_name, 14, seed=0), "groups", GROUP).train()
        batch = torch.empty(images, 1, COUNTED_PX, COUNTED_PX)
    with patch.dict(normalisation.AT_ONCE, {"meta": at_once}), Traffic() as traffic:
        model(batch).sum().backward()
    return traffic


def work_of_an_image(model_name: str) -> Work:
    """What is counted of a model."""
    with torch.device("meta"):
        model = build_model(model_name, 14, seed=0).train()
        batch = torch.empty(2, 1, COUNTED_PX, COUNTED_PX)
    kept: dict[int, int] = {}
    held = []  # so that no storage is freed and its address used again

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.numel() and tensor.shape[0] == len(batch):  # activations, not weights
            storage = tensor.untyped_storage()
            held.append(storage)
            kept[storage._cdata] = prod(tensor.shape) * 2
        return tensor

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        logits = model(batch)  # its graph holds what is kept until all is counted
    one, two = (passed(model_name, groups * GROUP) for groups in (1, 2))
    return Work(
        counter.get_total_flops() / len(logits), sum(kept.values()) / len(logits), two.bytes / (2 * GROUP),
        one.launches, two.launches - one.launches,
    )  # fmt: skip


def images_at_once(work: Work, size_px: int) -> int:
    """The largest micro-batch of whole groups that divides a batch of 64 and fits."""
    fitting = [n for n in (8, 16, 32, 64) if n * work.kept * (size_px / COUNTED_PX) ** 2 <= MEMORY]
    return max(fitting, default=GROUP)


def seconds_of_an_update(work: Work, size_px: int) -> float:
    """GPU-seconds an image, forward and backward: by operations (three times those of a forward pass), by bytes moved,
    or by launches, whichever is slowest."""
    area, images = (size_px / COUNTED_PX) ** 2, images_at_once(work, size_px)
    device_s = max(3 * work.operations * area / FLOPS, work.moved * area / BANDWIDTH) / EFFICIENCY
    launches = work.launches + (images / GROUP - 1) * work.launches_a_group
    return max(device_s, launches * LAUNCH_S / images)


def training_images(study: StudyConfig, images: int) -> float:
    """How many of the images train a learner."""
    return (1 - TEST) * images * (1 - study.split.validate_fraction - study.split.combine_fraction)


def stages(study: StudyConfig, images: int, size_bytes: dict[int, float], work: dict[str, Work]) -> list[Stage]:
    """The table. size_bytes: of a stored image by resolution; work: `work_of_an_image` by model."""
    repeats = len(study.split.use_folds) * len(study.seeds)
    learners = len(study.models) * len(study.resolutions_px) * repeats
    shards, sizes = study.store.shards, study.resolutions_px
    train = training_images(study, images)
    validate, read_again = (1 - TEST) * images * study.split.validate_fraction, images - train
    epochs, gigabyte, hour = study.training.epochs, 1e9, 3600

    parsed_s = measured("parsing.json", "labels, images and targets together")
    store_s = measured("store.json", "store, bilinear, an image") / 1000
    native_gb = measured("store.json", "native file") * 1e6 * images / gigabyte
    disk = {r: size_bytes[r] * images / gigabyte for r in sizes}
    together = sum(disk.values())
    found = [
        Stage("labels, images, targets", 2 + len(study.split.use_folds), parsed_s / hour, 0, 0.05, 0.1),
        Stage("store", 2 * shards + 1 + 2 * len(sizes), store_s * images / hour, 0, together, native_gb + together),
    ]
    gpu = dict.fromkeys(("train", "predict"), 0.0)
    cpu, read = dict(gpu), dict(gpu)
    for model in study.models:
        for r in sizes:
            decoded_s = 1 / measured("loading.json", f"    grey batches, {r} px")
            update_s = seconds_of_an_update(work[model.name], r)
            for kind, seen, passed_s in (
                ("train", epochs * (train + validate), update_s * epochs * (train + validate / 3)),
                ("predict", read_again, update_s / 3 * read_again),
            ):
                gpu[kind] += repeats * passed_s / hour
                cpu[kind] += repeats * seen * decoded_s / hour
                read[kind] += repeats * seen * size_bytes[r] / gigabyte
    found += [Stage(kind, learners, cpu[kind], gpu[kind], 0.1 * learners, read[kind]) for kind in gpu]
    bootstrap_s = measured("evaluation.json", "AUROC: time of a CPU core") / (14 * 8 * 50_000 * 2_000)
    scored = 14 * TEST * images * study.evaluation.replicates * learners
    found += [
        Stage("fields and maps", 2 * learners, 0.2 * learners, 0.1 * learners, 0.05 * learners, 0),
        Stage("evaluate, compare, stack, report", learners + 4, 5 * scored * bootstrap_s / hour, 0, 0.1, 0),
    ]
    total = [sum(getattr(s, name) for s in found) for name in list(asdict(found[0]))[1:]]
    return [*found, Stage("all", *total)]


def longest_training_hours(study: StudyConfig, images: int, work: dict[str, Work]) -> float:
    """GPU-hours of the dearest learner: without several GPUs for it, no study ends sooner."""
    r, seen = max(study.resolutions_px), training_images(study, images) * study.training.epochs
    return max(seconds_of_an_update(work[m.name], r) for m in study.models) * seen / 3600


def normalisation_results(model_name: str) -> list[Result]:
    """Operations and CPU-seconds of a pass of 64 images in groups of 8: groups one by one, and all at once."""
    results, batch = [], torch.rand(64, 1, 64, 64)
    model = set_normalisation(build_model(model_name, 14, seed=0), "groups", GROUP).train()
    for name, at_once in (("one by one", False), ("at once", True)):
        with patch.dict(normalisation.AT_ONCE, {"cpu": at_once}):
            seconds = []
            for _ in range(3):
                start = time.process_time()
                model(batch).sum().backward()
                seconds.append(time.process_time() - start)
        what = f"{model_name}, 64 images in groups of 8, {name}"
        results += [
            Result(f"{what}: operations", passed(model_name, 64, at_once).launches, ""),
            Result(f"{what}: time of a CPU core, 64 px", min(seconds), "s"),
        ]
    return results


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=377_110)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--pictures", type=Path, help="native .jpg files below this folder, instead of drawn ones")
    given = parser.parse_args()
    study = StudyConfig()
    study = replace(study, seeds=list(range(given.seeds)))
    sizes = study.resolutions_px
    size_bytes = stored_bytes(sizes, 4 if given.quick else 16, given.pictures)
    work = {m.name: work_of_an_image(m.name) for m in study.models}
    table = stages(study, given.images, size_bytes, work)
    print(f"{'stage':<34}{'steps':>7}{'CPU-h':>9}{'GPU-h':>9}{'disk GB':>10}{'read GB':>10}")
    for s in table:
        print(f"{s.stage:<34}{s.steps:>7}{s.cpu_hours:>9.1f}{s.gpu_hours:>9.1f}{s.disk_gb:>10.0f}{s.read_gb:>10.0f}")
    print()
    results = [Result(f"a stored image, {r} px", size_bytes[r] / 1e3, "kB") for r in sizes]
    for name, counted in work.items():
        for r in sizes:
            area = (r / COUNTED_PX) ** 2
            results += [
                Result(f"{name}, {r} px: a forward pass", counted.operations * area / 1e9, "GFLOP"),
                Result(f"{name}, {r} px: kept in bfloat16", counted.kept * area / 2**30, "GiB"),
                Result(f"{name}, {r} px: a GPU, estimated", 1 / seconds_of_an_update(counted, r), "images/s"),
            ]  # fmt: skip
        results += normalisation_results(name)
    longest = longest_training_hours(study, given.images, work)
    results += [Result(f"{s.stage}: {k}", v, "") for s in table for k, v in list(asdict(s).items())[1:]]
    results += [
        Result("longest training on one GPU", longest, "h"),
        Result(f"GPU work on {given.gpus} GPUs, at least", max(table[-1].gpu_hours / given.gpus, longest), "h"),
    ]
    report(results, given.json)


if __name__ == "__main__":
    main()
