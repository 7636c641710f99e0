"""Making the store of 2048, 1024, 512 and 256 px, against decoding, resizing and saving each native file for each size.

python benchmarks/store.py --json benchmarks/results/store.json
"""

import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import measure
import pandas as pd
from measure import Result
from pictures import native_files
from PIL import Image

from cxrscale.common import tables
from cxrscale.store.contracts import INDEX
from cxrscale.store.pixels import use_one_thread
from cxrscale.store.settings import BaseSettings, Filter
from cxrscale.store.shards import downscale_shard, index_shards, ingest_shard, shard_name

BASE, SMALLER, QUALITY = 2048, (1024, 512, 256), 95


def make_store(files: list[Path], folder: Path, filter_: Filter, shard: int = 0) -> None:
    """All stages of the store for one shard: native files to base, base to smaller, indexes."""
    ids = [f"{number:04d}" for number in range(len(files))]
    paths = [str(path.absolute()) for path in files]
    images = pd.DataFrame({"image_id": ids, "path": paths, "shard": shard, "order": range(len(files))})
    name = f"{shard_name(shard)}.parquet"
    base, settings = folder / "base" / name, BaseSettings(BASE, "stretch", filter_, QUALITY)
    ingest_shard(images, shard, Path("/"), settings, 0.0, base, folder / f"sample/{name}", folder / f"{shard}.csv")
    smaller = {size: folder / str(size) / name for size in SMALLER}
    downscale_shard(base, smaller, filter_, QUALITY)
    for size, path in {BASE: base, **smaller}.items():
        tables.write(INDEX, index_shards([path], size, "stretch"), path.with_name(f"index-{shard}.parquet"))


def usual_way(files: list[Path], folder: Path) -> None:
    """The authors' way: a full decode, a bilinear resize and a file for each native file and each size."""
    for size in (BASE, *SMALLER):
        (folder / str(size)).mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(files):
            with Image.open(path) as image:
                small = image.resize((size, size), Image.Resampling.BILINEAR)
            small.save(folder / str(size) / f"{number:04d}.jpg", quality=QUALITY)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratios(one: Callable[[], object], other: Callable[[], object], repetitions: int) -> tuple[float, float, float]:
    """Median of other / one over alternating pairs, and the median seconds of each: the machine's moods cancel."""
    pairs = [(seconds(one), seconds(other)) for _ in range(repetitions)]
    return median(b / a for a, b in pairs), median(a for a, _ in pairs), median(b for _, b in pairs)


def reads_per_file(files: list[Path], folder: Path) -> float:
    """How often a native file is opened while the whole store is made."""
    count, original = 0, Path.read_bytes

    def counting(self: Path) -> bytes:
        nonlocal count
        count += self in files
        return original(self)

    Path.read_bytes = counting  # type: ignore[method-assign]
    try:
        make_store(files, folder, "bilinear")
    finally:
        Path.read_bytes = original  # type: ignore[method-assign]
    return count / len(files)


def peak_mb(files: list[Path], folder: Path) -> float:
    """Peak memory of a process that makes a store."""
    make_store(files, folder, "bilinear")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--pictures", type=Path, help="measure on the .jpg files below this folder, not on drawn ones")
    given = parser.parse_args()
    use_one_thread()
    count, repetitions = (4, 1) if given.quick else (32, 5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = native_files(folder / "native", count, given.pictures)
        megabytes = sum(path.stat().st_size for path in files) / count / 1e6
        results = [
            Result("native file", round(megabytes, 2), "MB"),
            Result(
                "times that a native file is read", reads_per_file([f.absolute() for f in files], folder), "", "<= 1"
            ),
        ]
        usual = partial(usual_way, files, folder / "usual")
        for filter_ in ("bilinear",) if given.quick else ("bilinear", "area", "lanczos", "dct"):
            ratio, ours, theirs = ratios(partial(make_store, files, folder / filter_, filter_), usual, repetitions)
            results.append(
                Result(f"usual way / store, {filter_}", round(ratio, 2), "x", ">= 1.8" if filter_ == "bilinear" else "")
            )
            results.append(Result(f"store, {filter_}, an image", round(1000 * ours / count, 1), "ms"))
        results.append(Result("usual way, an image", round(1000 * theirs / count, 1), "ms"))

        context = get_context("spawn")
        with ProcessPoolExecutor(2, mp_context=context, initializer=use_one_thread) as pool:
            list(pool.map(make_store, [files[:1]] * 2, [folder / "warm"] * 2, ["bilinear"] * 2, [0, 1]))

            def workers(number: int) -> None:
                """Two shards by one worker, one after the other, or by two at once."""
                jobs = [pool.submit(make_store, files, folder / "two", "bilinear", shard) for shard in range(number)]
                for job in jobs:
                    job.result()

            def one_worker() -> None:
                workers(1)
                workers(1)

            ratio, _, _ = ratios(partial(workers, 2), one_worker, repetitions)
        results.append(Result("two workers / one", round(ratio, 2), "x", ">= 1.85"))
        with ProcessPoolExecutor(1, mp_context=context, initializer=use_one_thread) as pool:
            peak = pool.submit(peak_mb, files, folder / "memory").result()
        results.append(Result("peak memory of a worker", round(peak), "MB", "<= 1500"))
    measure.report(results, given.json)


if __name__ == "__main__":
    main()
