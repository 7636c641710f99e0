"""How fast training is: images/s of this project's loop against the authors' configuration, in one run.

ours: the training's own code and loader; on a GPU bfloat16, the memory format that is faster there, the micro-batch
found by trying and activations recomputed where they do not fit else; statistics over groups of 8 images.

theirs, Haque et al. 2023: float32, contiguous, plain batch norm, nothing recomputed, Adam, a torch DataLoader over JPEG
files (PIL, torchvision); 50, 20, 6, 1 images at once at 256, 512, 1024, 2048 px, half if that does not fit.

Each is a process of its own; they take turns, and the medians count. In each turn ours is also timed with the other
memory format, with torch's batch norm over the micro-batch, with frozen statistics and, at the smallest size, with the
other choice of torch.compile. On a CPU a process has one thread and one worker. Before anything is timed, losses on a
GPU must be those on a CPU, and a training that is stopped must end as one that is not (training_checks.py).
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from measure import Process, Result, arguments, report
from pictures import make_stores, plain_files
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from training_checks import NEEDED, NO_ORIGIN, checked

from cxrscale.store.reader import StoreReader
from cxrscale.train.distributed import Processes
from cxrscale.train.loader import LOAD_BYTES, PREFETCH
from cxrscale.train.memory import lacks_memory
from cxrscale.train.models import build_model
from cxrscale.train.settings import Normalisation, RunSettings, TrainingSettings
from cxrscale.train.task import Task
from cxrscale.train.training import Training

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
    compile: bool
    both_compiled: bool
    device: str


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_mb(device: torch.device) -> float:
    """Of the GPU, as torch reserved it; of this process on a CPU (getrusage would count the parent's too)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**20
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024  # kB


def time_steps(steps: Iterator[int], seconds: float, device: torch.device) -> tuple[int, float]:
    """Images, and the seconds they took, of steps that each give their images."""
    synchronise(device)
    start, images = time.perf_counter(), 0
    while True:
        images += next(steps)
        synchronise(device)
        if time.perf_counter() - start > seconds:
            return images, time.perf_counter() - start


class Loop:
    """The training's own loop on a store; plain_norm: torch's batch norm instead of the project's."""

    def __init__(
        self, job: Job, run: RunSettings, normalisation: Normalisation = "groups", plain_norm: bool = False
    ) -> None:
        self.job, self.device = job, torch.device(job.device)
        store = StoreReader(Path(job.folder) / "stores" / str(job.size_px))
        n = len(store)
        targets = pd.DataFrame({"image_id": store.image_ids, "split": ["train"] * (n - 1) + ["validate"]})
        rng = np.random.default_rng(0)
        for finding in range(N_FINDINGS):
            targets[f"target:{finding}"], targets[f"mask:{finding}"] = rng.integers(0, 2, n), 1
        settings = replace(OURS, batch_images=job.batch_images, normalisation=normalisation)
        with patch("cxrscale.train.update.set_normalisation", lambda model, *_: model) if plain_norm else nullcontext():
            task = Task(
                Path(job.folder), job.model, job.size_px, 0, settings, run, targets, store, None, NO_ORIGIN
            )  # fmt: skip
            self.training = Training(task, Processes(0, 1, self.device))
        self.micro = self.training.updater.micro
        self.micro.choose()

    def turn(self) -> tuple[float, float]:
        """Images/s, and the share of the time that the loader kept it waiting."""
        training, job, state = self.training, self.job, self.training.state
        chosen = np.random.default_rng(1).choice(
            len(training.train), job.batch_images * 2000
        )  # more than will be taken
        batches = training.batches.divided(chosen, 0, self.micro.images)

        def steps() -> Iterator[int]:
            pictures = state.waited_for(training.batches.pictures(batches))
            for batch in batches:
                training.updater.update(batch, pictures, OURS.learning_rate)
                yield len(batch.examples)

        running, warm = steps(), 0
        load = max(LOAD_BYTES // job.size_px**2, self.micro.images)
        # What workers have ready is used up first; a CPU would take minutes for that.
        ready = load * (PREFETCH * job.workers + 2) if self.device.type == "cuda" else 0
        while warm < max(ready, 2 * job.batch_images):
            warm += next(running)
        state.epoch_wait_s = 0.0
        images, taken = time_steps(running, job.seconds, self.device)
        running.close()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return images / taken, state.epoch_wait_s / taken


class Ours:
    """Ours, and what it would be otherwise: each other way with its loop."""

    def __init__(self, job: Job) -> None:
        auto = RunSettings(
            micro_batch_images="auto",
            workers=job.workers,
            activation_checkpointing="auto",
            compile=job.compile,
            channels_last="auto",
        )
        self.loop = Loop(job, auto)
        micro = self.loop.micro
        self.channels_last = micro.memory_format == torch.channels_last
        fixed = replace(
            auto, micro_batch_images=micro.images, activation_checkpointing=micro.way.activation_checkpointing,
            channels_last=self.channels_last,
        )  # fmt: skip
        self.others = {
            "other_format": Loop(job, replace(fixed, channels_last=not self.channels_last)),
            "plain_norm": Loop(job, fixed, plain_norm=True),
            "frozen": Loop(job, fixed, "frozen"),
        }
        if job.both_compiled:
            self.others["other_compile"] = Loop(job, replace(fixed, compile=not job.compile))
        self.compiled = job.compile
        self.peak: float | None = None

    def turn(self) -> dict[str, Any]:
        rate, wait = self.loop.turn()
        if self.peak is None:  # before the others take memory
            self.peak = peak_memory_mb(self.loop.device)
        way = self.loop.micro.way
        # Only between equals: another may not fit in the same parts.
        over = {
            name: rate / other
            for name, loop in self.others.items()
            if (other := loop.turn()[0]) and loop.micro.way == way
        }
        return {
            "images_per_second": rate,
            "loader_wait": wait,
            "peak_memory_mb": self.peak,
            "micro_batch_images": way.micro_batch_images,
            "activation_checkpointing": way.activation_checkpointing,
            "channels_last": self.channels_last,
            "channels_last_over_contiguous": directed(over.get("other_format"), self.channels_last),
            "compiled_over_not": directed(over.get("other_compile"), self.compiled),
            "groups_over_plain_norm": over.get("plain_norm"),
            "groups_over_frozen": over.get("frozen"),
        }


def directed(ours_over_other: float | None, ours_is_first: bool) -> float | None:
    """The ratio of two ways, whichever of them is ours."""
    return ours_over_other if ours_over_other is None or ours_is_first else 1 / ours_over_other


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


class Theirs:
    """The authors' configuration, with the largest of their batches that fits."""

    def __init__(self, job: Job) -> None:
        self.job, self.device = job, torch.device(job.device)
        nearest = min(THEIR_BATCH, key=lambda size: abs(size - job.size_px))
        self.batch = min(THEIR_BATCH[nearest], job.batch_images)
        self.model = build_model(job.model, N_FINDINGS, 0).to(self.device).train()
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=OURS.learning_rate)

    def turn(self) -> dict[str, Any]:
        while self.batch:
            try:
                rate = self._rate()
                break
            except RuntimeError as error:
                if not lacks_memory(error):
                    raise
                self.batch //= 2
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        else:
            return {"images_per_second": None}
        peak = peak_memory_mb(self.device)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return {"images_per_second": rate, "batch_images": self.batch, "peak_memory_mb": peak}

    def _rate(self) -> float:
        files = Files(Path(self.job.folder) / "files" / str(self.job.size_px), self.batch * 2000)
        loader = DataLoader(
            files, self.batch, shuffle=True, num_workers=self.job.workers, pin_memory=self.device.type == "cuda",
            multiprocessing_context="forkserver" if self.job.workers else None,
        )  # fmt: skip
        loss_of = nn.BCEWithLogitsLoss()

        def steps() -> Iterator[int]:
            for pictures, targets in loader:
                x, y = pictures.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)
                self.optimiser.zero_grad()
                loss_of(self.model(x), y).backward()
                self.optimiser.step()
                yield len(x)

        running = steps()
        for _ in range(2 * self.job.workers + 2 if self.device.type == "cuda" else 2):  # what workers have ready
            next(running)
        images, taken = time_steps(running, self.job.seconds, self.device)
        running.close()
        return images / taken


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


WAYS = {"ours": Ours, "theirs": Theirs}


def measure(job: Job, turns: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Ours and theirs, in turns."""
    ours, theirs = (Process(__file__, asdict(replace(job, way=way))) for way in ("ours", "theirs"))
    try:
        pairs = [(ours.turn(), theirs.turn()) for _ in range(turns)]
    finally:
        ours.end()
        theirs.end()
    return [p[0] for p in pairs], [p[1] for p in pairs]


def median(turns: list[dict[str, Any]], name: str) -> float | None:
    values = [t[name] for t in turns if t.get(name) is not None]
    return float(np.median(values)) if values else None


def rows_of(job: Job, ours: list[dict[str, Any]], theirs: list[dict[str, Any]], peak: float) -> list[Result]:
    """What the table says of one model at one size: medians over the turns, of ratios within a turn."""
    on_gpu = job.device == "cuda"

    def row(what: str, value: float | None, unit: str, target: str = "") -> list[Result]:
        return [] if value is None else [Result(what, value, unit, target if on_gpu else "")]

    rate = median(ours, "images_per_second")
    assert rate is not None
    ratios = [
        {"ratio": o["images_per_second"] / t["images_per_second"]}
        for o, t in zip(ours, theirs, strict=True)
        if t["images_per_second"]
    ]
    rows = row(f"{job.model}, {job.size_px} px: ours", rate, "images/s")
    if not ratios:
        rows.append(Result("  theirs: one image does not fit", 0, "images/s"))
    return [
        *rows,
        *row("  theirs", median(theirs, "images_per_second"), "images/s"),
        *row("  ours / theirs", median(ratios, "ratio"), "ratio", ">= 6"),
        *row("  peak memory, ours", median(ours, "peak_memory_mb"), "MB"),
        *row("  peak memory, theirs", median(theirs, "peak_memory_mb"), "MB"),
        *row("  at once, ours", median(ours, "micro_batch_images"), "images", ">= 8" if job.size_px == 2048 else ""),
        *row("  at once, theirs", median(theirs, "batch_images"), "images"),
        *row("  activations recomputed", median(ours, "activation_checkpointing"), "0 or 1"),
        *row("  share of the matmul peak", rate * flops_per_image(job.model, job.size_px) / peak, "share"),
        # On a CPU what the worker has ready outlasts the turn.
        *row("  loader wait", median(ours, "loader_wait") if on_gpu else None, "share", "<= 0.05"),
        *row("  channels last / contiguous", median(ours, "channels_last_over_contiguous"), "ratio"),
        *row("  groups of 8 / plain batch norm", median(ours, "groups_over_plain_norm"), "ratio"),
        *row("  groups of 8 / frozen statistics", median(ours, "groups_over_frozen"), "ratio"),
        *row("  compiled / not", median(ours, "compiled_over_not"), "ratio"),
    ]


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
    seconds, turns = given.seconds or (2.0 if on_gpu else 1.0 if given.quick else 3.0), 1 if given.quick else 3
    if not on_gpu:
        torch.set_num_threads(1)
    peak = matmul_peak(torch.device(device))
    name = torch.cuda.get_device_name() if on_gpu else "one CPU core"
    print(f"{name}, torch {torch.__version__}, {workers} workers, effective batch {batch}", flush=True)
    results = [Result(f"matmul peak of {name}", peak / 1e12, "TFLOP/s")]
    with tempfile.TemporaryDirectory() as temporary:
        make_pictures(Path(temporary), sizes, max(batch + 8, NEEDED))
        smallest = StoreReader(Path(temporary) / "stores" / str(min(sizes)))
        results += checked(smallest, Path(temporary) / "checks", given.models, torch.device(device))
        report(results)
        for size in sizes:
            for model in given.models:
                both = size == min(sizes) and not given.quick
                job = Job("ours", model, size, temporary, batch, workers, seconds, given.compile, both, device)
                try:
                    ours, theirs = measure(job, turns)
                except RuntimeError as error:  # the others still count
                    print(f"{model} at {size} px: failed, {error}", flush=True)
                    continue
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
        torch.backends.cudnn.benchmark = job.way == "ours"  # as the training sets it
        measured = WAYS[job.way](job)
        for _ in sys.stdin:
            print(json.dumps(measured.turn()), flush=True)
    else:
        main(given)
