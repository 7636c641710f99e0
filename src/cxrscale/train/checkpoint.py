"""Checkpoints of a training in progress, and what becomes of results that a new setting replaces.

A learner's folder keeps `checkpoint.pt` while it trains: weights, optimiser, position in the epoch, and the digest of
what it is a training of; plain values and tensors alone, so that reading it runs no code. It is no output of the
workflow, so Snakemake never deletes it. The trained learner is kept under `kept/<digest>/` as well (hard links, no
copy), where a rerun cannot delete it either: if the settings come back, so does the learner.
"""

import errno
import io
import logging
import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cxrscale.common.atomic import is_there, replacing
from cxrscale.common.places import CHECKPOINT

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1

logger = logging.getLogger(__name__)

KEPT = "kept"
SUPERSEDED = "superseded"
PARTS = ("digest", "identity", "state", "updater")

#: What a file system without hard links, or with too many to one file, answers.
NO_LINK = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint, of PARTS, whole or not at all. Raises TypeError for what `load` would refuse."""
    _require_plain(state, "checkpoint")
    with replacing(path) as temporary:
        torch.save(state, temporary)


def _require_plain(value: Any, where: str) -> None:
    """Raise TypeError where a value is none of those that can be read without running code."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _require_plain(key, f"a key of {where}")
            _require_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for number, item in enumerate(value):
            _require_plain(item, f"{where}[{number}]")
    elif type(value) not in (torch.Tensor, torch.nn.Parameter, str, int, float, bool, type(None)):
        raise TypeError(f"{where} is of type {type(value).__name__}; expected a plain value or a tensor")


def load(path: Path, digest: str) -> dict[str, Any] | None:
    """The checkpoint of the training named by `digest`, or None if there is none.

    One that belongs to another training (other settings, code or data) is moved to `superseded/`, and comes back from
    there once that training goes on. One that does not hold what was written, or lacks parts, is set aside as
    `<name>.damaged`. Raises OSError or MemoryError, with all left in place, if it could not be read this time.
    """
    state = _read(path)
    if state is not None and (found := str(state["digest"])) != digest:
        target = _free(path.parent / SUPERSEDED / found / path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
        logger.warning(
            "%s belongs to other settings, code or data (%s, now %s); it was moved to %s.",
            path.name, found, digest, target.parent,
        )  # fmt: skip
        state = None
    superseded = (path.parent / SUPERSEDED / digest).glob(f"{CHECKPOINT}*")
    for earlier in sorted(superseded, key=lambda file: file.stat().st_mtime, reverse=True):
        if state is None:
            earlier.replace(path)
            logger.info("%s was brought back: settings, code and data are those of before again.", earlier)
            state = _read(path)
    return state


def _read(path: Path) -> dict[str, Any] | None:
    """A checkpoint, or None where there is none or it was set aside."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if (broken := _damage(data)) is None:
        try:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            missing = [part for part in PARTS if part not in state]
            broken = f"it lacks {', '.join(missing)}" if missing else None
        except (pickle.UnpicklingError, TypeError) as error:  # whole, but by something else than `save`
            broken = str(error).splitlines()[0]
    if broken is not None:
        target = _free(path.with_name(f"{path.name}.damaged"))
        path.replace(target)
        logger.warning("%s is damaged (%s); it was moved to %s.", path, broken, target.name)
        return None
    return dict(state)


def _damage(data: bytes) -> str | None:
    """What is wrong with a file of `torch.save`, by the checksums in it; None if it is whole."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            broken = archive.testzip()
            if not any(name.endswith("data.pkl") for name in archive.namelist()):
                return "it is no file of torch.save"
    except MemoryError:
        raise
    except Exception as error:  # of bytes in memory: whatever zipfile stumbles over, they are not those written
        return str(error) or type(error).__name__
    return None if broken is None else f"the checksum of {broken} is wrong"


def _free(path: Path) -> Path:
    """The path, or with a number if there is something already: nothing that was set aside is overwritten."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


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
        if all(is_there(source / name) for name in names):
            _link(source, folder, names)
            keep(folder, digest, names)
            return True
    return False


def _link(source: Path, target: Path, names: Sequence[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        with replacing(target / name) as temporary:
            try:
                os.link(source / name, temporary)
            except OSError as error:
                if error.errno not in NO_LINK:
                    raise
                shutil.copy2(source / name, temporary)
