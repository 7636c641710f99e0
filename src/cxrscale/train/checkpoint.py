"""Checkpoints of a training in progress, and what becomes of results that a new setting replaces.

A learner's folder keeps `checkpoint.pt` while it trains: weights, optimiser, random state, position in the epoch, and
the digest of what it is a training of. It is no output of the workflow, so Snakemake never deletes it. The trained
learner is kept under `kept/<digest>/` as well (hard links, no copy), where a rerun cannot delete it either: if the
settings come back, so does the learner.
"""

import logging
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxrscale.common.atomic import replacing

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
KEPT = "kept"
SUPERSEDED = "superseded"


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; random states of torch, NumPy and Python are added."""
    with replacing(path) as temporary:
        torch.save(state | {"random": random_state()}, temporary)


def load(path: Path, digest: str) -> dict[str, Any] | None:
    """The checkpoint of the training named by `digest`, or None.

    One that belongs to another training (other settings, code or data) is moved to `superseded/`; one that cannot be
    read is set aside as `<name>.damaged`.
    """
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
        found = str(state["digest"])
    except Exception as error:  # torch raises what the pickle module happens to stumble over
        path.replace(path.with_name(f"{path.name}.damaged"))
        logger.warning("%s cannot be read (%s); it was set aside and training starts anew.", path, error)
        return None
    if found != digest:
        target = path.parent / SUPERSEDED / found
        target.mkdir(parents=True, exist_ok=True)
        path.replace(target / path.name)
        logger.warning(
            "%s belongs to other settings, code or data (%s, now %s); it was moved to %s and training starts anew.",
            path.name,
            found,
            digest,
            target,
        )
        return None
    return state


def keep(folder: Path, digest: str, names: Sequence[str]) -> None:
    """Link the finished learner's files into `kept/<digest>/`, and move what was kept for other digests away."""
    for other in sorted((folder / KEPT).glob("*")):
        if other.name != digest:
            target = folder / SUPERSEDED / other.name
            target.mkdir(parents=True, exist_ok=True)
            for file in other.iterdir():
                file.replace(target / file.name)
            other.rmdir()
            logger.info("the learner made with %s was moved to %s", other.name, target)
    _link(folder, folder / KEPT / digest, names)


def restore(folder: Path, digest: str, names: Sequence[str]) -> bool:
    """Bring back the finished learner of `digest` if it was kept or superseded. Returns whether it was."""
    for source in (folder / KEPT / digest, folder / SUPERSEDED / digest):
        if all((source / name).is_file() for name in names):
            _link(source, folder, names)
            keep(folder, digest, names)
            return True
    return False


def _link(source: Path, target: Path, names: Sequence[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        temporary = target / f".{name}.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            os.link(source / name, temporary)
        except OSError:  # a file system without hard links
            shutil.copy2(source / name, temporary)
        temporary.replace(target / name)
        temporary.unlink(missing_ok=True)  # where both were links to one file, replacing did nothing


def random_state() -> dict[str, Any]:
    state = {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()}  # noqa: NPY002
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
