"""How fast the loader is: ratios within one run, on the CPU, with one worker process.

(a) batches of grey pictures against decoding them alone
(b) flipped, rotated, normalised batches against the usual way: a torch DataLoader over JPEG files of that size with
    PIL and torchvision (whose RandomRotation takes the nearest pixel unless told otherwise; the loader's is bilinear)
(c) grey batches from the store against webdataset tars with the same decoder (pip install '.[bench]')

Pictures: synthetic ones of MIMIC's native size (pictures.py), or with --pictures those of a folder. What is compared
takes turns, a new process each time, timed after start-up, and the median of the ratios counts; files are in the page
cache.
"""

import argparse
import io
import multiprocessing
import multiprocessing.forkserver
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from measure import Result, arguments, report
from pictures import make_stores, native_files
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from cxrscale.store.pixels import decode
from cxrscale.train.loader import LOAD_BYTES, PREFETCH, Augmentation, StoreReader, decoded_batches

BATCH_IMAGES = 8  # micro_batch_images of config.yaml
HOW = Augmentation(seed=0, epoch=0)


class Usual(Dataset):
    """The usual way: JPEG files, PIL, torchvision."""

    def __init__(self, paths: list[Path], order: list[int], bilinear: bool) -> None:
        self.paths, self.order = paths, order
        how = transforms.InterpolationMode.BILINEAR if bilinear else transforms.InterpolationMode.NEAREST
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(HOW.flip_probability),
                transforms.RandomRotation(HOW.rotation_degrees, how),
                transforms.ToTensor(),
                transforms.Normalize([HOW.mean], [HOW.standard_deviation]),
            ]
        )

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[self.order[index]]) as image:
            return self.transform(image)


def usual_batches(paths: list[Path], order: list[int], bilinear: bool) -> Iterator[torch.Tensor]:
    yield from DataLoader(
        Usual(paths, order, bilinear), batch_size=BATCH_IMAGES, num_workers=1, multiprocessing_context="forkserver"
    )


def stack(pictures: list[tuple[np.ndarray]]) -> torch.Tensor:
    return torch.from_numpy(np.stack([picture for (picture,) in pictures])[:, None])


def tar_batches(tar: Path) -> Iterator[torch.Tensor]:
    import webdataset

    pictures = webdataset.WebDataset(str(tar), shardshuffle=False).to_tuple("jpg").map_tuple(decode)
    yield from DataLoader(
        pictures.batched(BATCH_IMAGES, collation_fn=stack),
        batch_size=None,
        num_workers=1,
        multiprocessing_context="forkserver",
    )


def store_batches(store: StoreReader, order: list[int], how: Augmentation | None) -> Iterator[torch.Tensor]:
    batches = [np.array(order[i : i + BATCH_IMAGES]) for i in range(0, len(order), BATCH_IMAGES)]
    yield from decoded_batches(store, batches, workers=1, augmentation=how)


def write_tar(path: Path, jpegs: list[bytes], order: list[int]) -> None:
    with tarfile.open(path, "w") as tar:
        for number, i in enumerate(order):
            member = tarfile.TarInfo(f"{number:06d}.jpg")
            member.size = len(jpegs[i])
            tar.addfile(member, io.BytesIO(jpegs[i]))


def seconds_to_consume(batches: Callable[[], Iterator[torch.Tensor]], warm: int, timed: int) -> float:
    """Seconds for `timed` batches after `warm` ones, each copied to a buffer as it would be to a device."""
    source = batches()
    buffer = torch.empty(0)
    for pixels in islice(source, warm):
        buffer = torch.empty_like(pixels)
        buffer.copy_(pixels)
    start = time.perf_counter()
    for pixels in islice(source, timed):
        buffer.copy_(pixels)
    taken = time.perf_counter() - start
    for _ in source:  # to the end, so that the worker is gone before the next turn
        pass
    return taken


def _decode_alone(jpegs: list[bytes], size_px: int, order: list[int], answer: Any) -> None:
    out = np.empty((size_px, size_px, 1), np.uint8)
    for i in order[: len(jpegs)]:
        simplejpeg.decode_jpeg(jpegs[i], colorspace="GRAY", buffer=out)
    start = time.perf_counter()
    for i in order:
        simplejpeg.decode_jpeg(jpegs[i], colorspace="GRAY", buffer=out)
    answer.send(time.perf_counter() - start)


def seconds_to_decode(jpegs: list[bytes], size_px: int, order: list[int]) -> float:
    """Seconds that a process of the same kind takes to decode, into the same buffer again and again."""
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_decode_alone, args=(jpegs, size_px, order, there))
    process.start()
    taken = here.recv()
    process.join()
    return taken


def measure(store: StoreReader, folder: Path, seconds: float, repetitions: int) -> list[Result]:
    """The ratios at one size. seconds: of decoding in one turn; folder: for files of the other ways."""
    size = store.shape[0]
    jpegs = [bytes(store.jpeg(row)) for row in range(len(store))]
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i}.jpg" for i in range(len(jpegs))]
    for path, data in zip(paths, jpegs, strict=True):
        path.write_bytes(data)

    rng = np.random.default_rng(size)
    warm = max(1, LOAD_BYTES // (size * size * BATCH_IMAGES)) * (PREFETCH + 2)  # whole loads
    one = seconds_to_decode(jpegs, size, list(range(len(jpegs)))) / len(jpegs)
    unit = max(1, LOAD_BYTES // (size * size * BATCH_IMAGES))
    timed = max(4, round(seconds / one / BATCH_IMAGES / unit)) * unit
    timed_order = rng.integers(0, len(jpegs), timed * BATCH_IMAGES).tolist()
    order = rng.integers(0, len(jpegs), warm * BATCH_IMAGES).tolist() + timed_order
    tar = folder / "pictures.tar"
    write_tar(tar, jpegs, order)

    ways: dict[str, Callable[[], float]] = {
        "decode": partial(seconds_to_decode, jpegs, size, timed_order),
        "grey": partial(seconds_to_consume, partial(store_batches, store, order, None), warm, timed),
        "tar": partial(seconds_to_consume, partial(tar_batches, tar), warm, timed),
        "augmented": partial(seconds_to_consume, partial(store_batches, store, order, HOW), warm, timed),
        "usual": partial(seconds_to_consume, partial(usual_batches, paths, order, False), warm, timed),
        "bilinear": partial(seconds_to_consume, partial(usual_batches, paths, order, True), warm, timed),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repetitions):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            taken[name].append(ways[name]())

    def ratio(slow: str, fast: str) -> float:
        return float(np.median(np.array(taken[slow]) / np.array(taken[fast])))

    rate = timed * BATCH_IMAGES / float(np.median(taken["grey"]))
    return [
        Result(f"(a) grey batches / decoding alone, {size} px", ratio("decode", "grey"), "ratio", ">= 0.8"),
        Result(f"(b) augmented batches / usual way, {size} px", ratio("usual", "augmented"), "ratio", ">= 2"),
        Result(f"    the same, usual way bilinear too, {size} px", ratio("bilinear", "augmented"), "ratio"),
        Result(f"(c) store / webdataset, {size} px", ratio("tar", "grey"), "ratio", ">= 1"),
        Result(f"    grey batches, {size} px", rate, "images/s"),
    ]


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    # Workers start with everything imported, whichever way they serve.
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["cxrscale.train.loader", "cxrscale.data.synthetic", "cv2", "torchvision", "PIL.Image", "webdataset"]
    )
    multiprocessing.forkserver.ensure_running()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        native = native_files(folder / "native", 4 if given.quick else 32, given.pictures)
        size_mb = np.mean([path.stat().st_size for path in native]) / 1e6
        stores = make_stores(native, folder / "stores", given.sizes)
        results = [Result("native JPEG, mean", size_mb, "MB")]
        for size, store in sorted(stores.items()):
            results += measure(
                store, folder / f"files-{size}", 0.1 if given.quick else 1.0, 1 if given.quick else given.repetitions
            )
    report(results, given.json)


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="JPEG files to use instead of synthetic ones")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048], metavar="PX")
    parser.add_argument("--repetitions", type=int, default=7)
    main(parser.parse_args())
