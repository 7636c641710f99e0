"""What several unit tests share: a store of 48 small pictures in which one finding can be seen, and its targets."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxrscale.common import tables
from cxrscale.data.csv_files import assign_shards
from cxrscale.store.contracts import INDEX
from cxrscale.store.reader import StoreReader
from cxrscale.store.settings import BaseSettings
from cxrscale.store.shards import index_shards, ingest_shard, shard_name

SIZE_PX, SHARDS, N_IMAGES = 32, 2, 48


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Bit-equal results are promised at a fixed number of threads; one is also fastest for pictures this small."""
    torch.set_num_threads(1)


class SmallStore(NamedTuple):
    root: Path  # native PNG files
    folder: Path  # the store
    images: pd.DataFrame
    targets: pd.DataFrame


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> SmallStore:
    """48 images of 24 patients; "Bright" lightens the middle, "Noise" is a coin. 32 train, 8 validate, 8 test."""
    root, folder = tmp_path_factory.mktemp("native"), tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(5)
    bright, noise = np.arange(N_IMAGES) % 2, rng.integers(0, 2, N_IMAGES)
    ids = [f"image{i:02d}" for i in range(N_IMAGES)]
    for image_id, shows in zip(ids, bright, strict=True):
        pixels = rng.integers(60, 120, (40, 36)).astype(np.uint8)
        pixels[12:28, 12:24] += np.uint8(90 * shows)
        Image.fromarray(pixels).save(root / f"{image_id}.png")
    shard, order = assign_shards(ids, SHARDS)
    images = pd.DataFrame(
        {"image_id": ids, "path": [f"{i}.png" for i in ids], "shard": shard, "order": order},
    )
    settings = BaseSettings(SIZE_PX, "stretch", "bilinear", 95)
    paths = [folder / f"{shard_name(s)}.parquet" for s in range(SHARDS)]
    for s, path in enumerate(paths):
        ingest_shard(
            images, s, root, settings, 0.0, path, folder / f"sample-{s}.parquet", folder / f"quarantine-{s}.csv"
        )
    tables.write(INDEX, index_shards(paths, SIZE_PX, "stretch"), folder / "index.parquet")
    targets = pd.DataFrame(
        {
            "image_id": ids,
            "subject_id": [f"p{i // 2:02d}" for i in range(N_IMAGES)],
            "study_id": [f"s{i // 2:02d}" for i in range(N_IMAGES)],
            "view": "PA",
            "split": ["train"] * 32 + ["validate"] * 8 + ["test"] * 8,
            "target:Bright": bright.astype(np.int8),
            "target:Noise": noise.astype(np.int8),
            "mask:Bright": np.ones(N_IMAGES, np.int8),
            "mask:Noise": np.ones(N_IMAGES, np.int8),
        }
    )
    return SmallStore(root, folder, images, targets)


@pytest.fixture
def reader(small_store: SmallStore) -> StoreReader:
    return StoreReader(small_store.folder)


@pytest.fixture
def record():
    """The record of a learner of the small store. Others: `dataclasses.replace`."""
    from cxrscale.train.learner import LearnerRecord, Origin

    return LearnerRecord(
        model="test_resnet", findings=["Bright", "Noise"], resolution_px=SIZE_PX, seed=1, mean=0.4,
        standard_deviation=0.2, geometry="stretch", native_at_least_px=0, precision="float32", normalisation="groups",
        norm_group_images=4, digest="d",
        origin=Origin(code="c", store="small-1", index="i", targets="t", initial_weights=None),
    )  # fmt: skip


@pytest.fixture
def write_predictions(tmp_path: Path):
    """A function that writes a file of predictions: (name, split, patient, logits, targets) -> path. Each image is a
    study of its own, without view, unless these are given."""
    from cxrscale.evaluate.contracts import PREDICTIONS

    def write(name: str, split, patient, logits: dict, targets: dict, study=None, view=None) -> Path:
        n = len(patient)
        frame = pd.DataFrame(
            {
                "image_id": [f"i{k:04d}" for k in range(n)],
                "study_id": [f"s{k:04d}" for k in (range(n) if study is None else study)],
                "subject_id": [f"p{p}" for p in patient],
                "view": [None] * n if view is None else view,
                "split": [split] * n if isinstance(split, str) else split,
                "native_px": np.arange(1000, 1000 + n, dtype=np.int32),
                **{f"logit:{f}": np.asarray(v, np.float32) for f, v in logits.items()},
                **{f"target:{f}": pd.array(v, dtype="Int8") for f, v in targets.items()},
            }
        )
        path = tmp_path / f"{name}.parquet"
        tables.write(PREDICTIONS, frame, path)
        return path

    return write
