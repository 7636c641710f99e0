"""How fast training is: images/s of this project's loop against the authors' configuration, in one run.

ours: the training's own code and loader; on a GPU bfloat16, the memory format that is faster there, the micro-batch
found by trying and activations recomputed where they do not fit else; statistics over groups of 8 images.

theirs, Haque et al. 2023: float32, contiguous, plain batch norm, nothing recomputed, Adam, a torch DataLoader over JPEG
files (PIL, torchvision); 50, 20, 6, 1 images at once at 256, 512, 1024, 2048 px, half if that does not fit.

Each configuration runs in a process of its own. Ours is also timed, in turns within its process, with the other memory
format and with batch norm over the micro-batch instead of groups. On a CPU a process has one thread and one worker.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measure import Result, arguments, report
from pictures import make_stores, plain_files
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from cxrscale.distributed import Processes
from cxrscale.models import build_model
from cxrscale.store.reader import StoreReader
from cxrscale.training import RunSettings, TrainingSettings, _Training

N_FINDINGS = 14
THEIR_BATCH = {256: 50, 512: 20, 1024: 6, 2048: 1}
OURS = TrainingSettings()


@dataclass(frozen=True)
class Job:
    """One process: what it trains, and for how long it is timed."""

    way: str
    model: str
    size_px: int
    folder: str
    batch_images: int
    workers: int
    seconds: float
    turns: int
    compile: bool
    device: str


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_mb(device: torch.device) -> float:
    """Of the GPU, as torch reserved it; of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def time_steps(steps: Iterator[int], seconds: float, device: torch.device, warm: int = 2) -> tuple[float, float]:
    """Images and seconds of the steps after `warm` ones; each step gives its images."""
    for _ in range(warm):
        next(steps)
    synchronise(device)
    start, images = time.perf_counter(), 0
    while True:
        images += next(steps)
        synchronise(device)
        if time.perf_counter() - start > seconds:
            return images, time.perf_counter() - start


class Ours:
    """The training's own loop on a store, with whatever settings; timed from one update to another."""

    def __init__(self, job: Job, settings: TrainingSettings, run: RunSettings) -> None:
        self.device = torch.device(job.device)
        self.store = StoreReader(Path(job.folder) / "stores" / str(job.size_px))
        n = len(self.store)
        targets = pd.DataFrame({"image_id": self.store.image_ids, "split": ["train"] * (n - 1) + ["validate"]})
        rng = np.random.default_rng(0)
        for finding in range(N_FINDINGS):
            targets[f"target:{finding}"], targets[f"mask:{finding}"] = rng.integers(0, 2, n), 1
        self.training = _Training(
            Path(job.folder), job.model, job.size_px, 0, settings, run, targets, self.store, None,
            Processes(0, 1, self.device),
        )  # fmt: skip
        self.training.micro.choose()

    def measure(self, seconds: float) -> dict[str, float]:
        training, batch = self.training, self.training.settings.batch_images
        rows = np.random.default_rng(1).choice(training.train.rows, batch * 2000)  # more updates than will be made
        training.model.train()

        def steps() -> Iterator[int]:
            for at, parts in training._batches(rows):
                training._update(at, parts, OURS.learning_rate)
                training.state.epoch_wait_s *= self.timing
                yield len(at)

        self.timing = False  # the wait while workers start is not counted
        running = steps()
        for _ in range(2):
            next(running)
        self.timing = True
        images, taken = time_steps(running, seconds, self.device, warm=0)
        wait, training.state.epoch_wait_s = training.state.epoch_wait_s, 0.0
        running.close()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return {"images_per_second": images / taken, "loader_wait": wait / taken}


def measure_ours(job: Job) -> dict[str, Any]:
    settings = replace(OURS, batch_images=job.batch_images)
    run = RunSettings(
        micro_batch_images=None, workers=job.workers, recompute=None, compile=job.compile, channels_last=None
    )
    ours = Ours(job, settings, run)
    turns = [ours.measure(job.seconds)]
    peak = peak_memory_mb(ours.device)
    micro = ours.training.micro
    last = micro.memory_format == torch.channels_last
    found = {"micro_batch_images": micro.images, "recompute": micro.way.recompute, "channels_last": last}
    fixed = replace(run, micro_batch_images=micro.images, recompute=micro.way.recompute)
    others = {
        "format": Ours(job, settings, replace(fixed, channels_last=not last)),
        "plain_norm": Ours(
            job,
            replace(settings, normalisation="per_micro_batch", micro_batch_images=micro.images),
            replace(fixed, channels_last=last),
        ),
    }
    ratios: dict[str, list[float]] = {name: [] for name in others}
    for _ in range(job.turns):
        turns.append(ours.measure(job.seconds))
        for name, other in others.items():
            rate = other.measure(job.seconds)["images_per_second"]
            ratios[name].append(turns[-1]["images_per_second"] / rate)
    format_ratio = float(np.median(ratios["format"]))
    return found | {
        "images_per_second": float(np.median([t["images_per_second"] for t in turns])),
        "loader_wait": float(np.median([t["loader_wait"] for t in turns])),
        "peak_memory_mb": peak,
        "channels_last_over_contiguous": format_ratio if last else 1 / format_ratio,
        "groups_over_plain_norm": float(np.median(ratios["plain_norm"])),
    }


class Files(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Their data set: a JPEG file an image, as PIL and torchvision read and turn it."""

    def __init__(self, folder: Path, length: int) -> None:
        self.paths, self.length = sorted(folder.glob("*.jpg")), length
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(0.5),
                transforms.RandomRotation(15),
                transforms.ToTensor(),
                transforms.Normalize([OURS.mean], [OURS.standard_deviation]),
            ]
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        with Image.open(self.paths[index % len(self.paths)]) as image:
            return self.transform(image), torch.full((N_FINDINGS,), float(index % 2))


def measure_theirs(job: Job) -> dict[str, Any]:
    device = torch.device(job.device)
    batch = min(THEIR_BATCH[min(THEIR_BATCH, key=lambda size: abs(size - job.size_px))], job.batch_images)
    while batch:
        try:
            return _measure_theirs(job, device, batch)
        except torch.OutOfMemoryError:
            batch //= 2
        torch.cuda.empty_cache()
    return {"images_per_second": None, "batch_images": 0}


def _measure_theirs(job: Job, device: torch.device, batch: int) -> dict[str, Any]:
    model = build_model(job.model, N_FINDINGS, 0).to(device).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=OURS.learning_rate)
    files = Files(Path(job.folder) / "files" / str(job.size_px), batch * 2000)
    loader = DataLoader(
        files, batch, shuffle=True, num_workers=job.workers, pin_memory=device.type == "cuda",
        multiprocessing_context="forkserver" if job.workers else None,
    )  # fmt: skip
    loss_of = nn.BCEWithLogitsLoss()

    def steps() -> Iterator[int]:
        for pictures, targets in loader:
            x, y = pictures.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            optimiser.zero_grad()
            loss_of(model(x), y).backward()
            optimiser.step()
            yield len(x)

    rates = []
    for _ in range(1 + job.turns):
        images, taken = time_steps(steps(), job.seconds, device)
        rates.append(images / taken)
    return {
        "images_per_second": float(np.median(rates)),
        "batch_images": batch,
        "peak_memory_mb": peak_memory_mb(device),
    }


def matmul_peak(device: torch.device) -> float:
    """Floating-point operations a second of a large matrix product, in the precision of our arithmetic."""
    n, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a = torch.randn(n, n, device=device, dtype=dtype)
    best = 0.0
    for _ in range(5):
        synchronise(device)
        start = time.perf_counter()
        for _ in range(10 if device.type == "cuda" else 2):
            a @ a
        synchronise(device)
        taken = time.perf_counter() - start
        best = max(best, 2 * n**3 * (10 if device.type == "cuda" else 2) / taken)
    return best


def flops_per_image(model: str, size_px: int) -> float:
    """Of a forward and a backward pass; what is recomputed does not count as work."""
    network = build_model(model, N_FINDINGS, 0).to("meta")
    x = torch.zeros(2, 1, size_px, size_px, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(x).sum().backward()
    return counter.get_total_flops() / len(x)


WAYS = {"ours": measure_ours, "theirs": measure_theirs}


def in_process(job: Job) -> dict[str, Any]:
    """Measure in a new process, so that neither memory nor caches are shared. Raises SystemExit if it fails."""
    command = [sys.executable, __file__, "--job", json.dumps(job.__dict__)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{job.way}, {job.model} at {job.size_px} px failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows_of(job: Job, ours: dict[str, Any], theirs: dict[str, Any], peak: float) -> list[Result]:
    """What the table says of one model at one size."""
    on_gpu, rate = job.device == "cuda", ours["images_per_second"]
    where = f"{job.model}, {job.size_px} px"

    def target(text: str) -> str:
        return text if on_gpu else ""

    rows = [Result(f"{where}: ours", rate, "images/s")]
    if theirs["images_per_second"] is not None:
        rows += [
            Result(f"  theirs ({theirs['batch_images']} at once)", theirs["images_per_second"], "images/s"),
            Result("  ours / theirs", rate / theirs["images_per_second"], "ratio", target(">= 6")),
            Result("  peak memory, theirs", theirs["peak_memory_mb"], "MB"),
        ]
    else:
        rows.append(Result("  theirs: one image does not fit", 0, "images/s"))
    micro_target = target(">= 8") if job.size_px == 2048 else ""
    rows += [
        Result("  peak memory, ours", ours["peak_memory_mb"], "MB"),
        Result("  micro-batch", ours["micro_batch_images"], "images", micro_target),
        Result("  activations recomputed", float(ours["recompute"]), "0 or 1"),
        Result("  share of the matmul peak", rate * flops_per_image(job.model, job.size_px) / peak, "share"),
        Result("  loader wait", ours["loader_wait"], "share", target("<= 0.05")),
        Result("  channels last / contiguous", ours["channels_last_over_contiguous"], "ratio"),
        Result("  groups of 8 / plain batch norm", ours["groups_over_plain_norm"], "ratio"),
    ]
    return rows


def make_pictures(folder: Path, sizes: list[int], count: int) -> None:
    """The store, and their files, at every size."""
    native = plain_files(folder / "native", count, max(sizes))
    for size, store in make_stores(native, folder / "stores", sizes, "lanczos").items():
        (folder / "files" / str(size)).mkdir(parents=True)
        for row in range(len(store)):
            (folder / "files" / str(size) / f"{row:04d}.jpg").write_bytes(store.jpeg(row))


def main(given: argparse.Namespace) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = device == "cuda"
    sizes = given.sizes or ([256, 512, 1024, 2048] if on_gpu else [32, 64] if given.quick else [64, 128, 256])
    batch = given.batch_images or (64 if on_gpu else 16)
    workers = given.workers if given.workers is not None else (12 if on_gpu else 1)
    seconds = given.seconds or (3.0 if on_gpu else 1.0 if given.quick else 5.0)
    if not on_gpu:
        torch.set_num_threads(1)
    peak = matmul_peak(torch.device(device))
    name = torch.cuda.get_device_name() if on_gpu else "one CPU core"
    print(f"{name}, torch {torch.__version__}, {workers} workers, effective batch {batch}", flush=True)
    results = [Result(f"matmul peak of {name}", peak / 1e12, "TFLOP/s")]
    with tempfile.TemporaryDirectory() as temporary:
        make_pictures(Path(temporary), sizes, batch + 8)
        for size in sizes:
            for model in given.models:
                job = Job(
                    "ours", model, size, temporary, batch, workers, seconds, 1 if on_gpu or given.quick else 3,
                    given.compile, device,
                )  # fmt: skip
                ours, theirs = in_process(job), in_process(replace(job, way="theirs"))
                results += rows_of(job, ours, theirs, peak)
                print(f"{model} at {size} px: {json.dumps({'ours': ours, 'theirs': theirs})}", flush=True)
                if given.json:
                    given.json.parent.mkdir(parents=True, exist_ok=True)
                    given.json.write_text(json.dumps([r.__dict__ for r in results], indent=2) + "\n")
    report(results, given.json)


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=["densenet121", "efficientnet_b4"], metavar="NAME")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="PX", help="256 to 2048 on a GPU, 64 to 256 on a CPU")
    parser.add_argument("--batch-images", type=int, help="effective batch of ours, and the most of theirs")
    parser.add_argument("--workers", type=int, help="that load, for both")
    parser.add_argument("--seconds", type=float, help="that each is timed")
    parser.add_argument("--compile", action="store_true", help="ours by torch.compile")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        job = Job(**json.loads(given.job))
        if job.device == "cpu":
            torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = True  # as the training sets it; the shapes are fixed for theirs too
        print(json.dumps(WAYS[job.way](job)))
    else:
        main(given)
