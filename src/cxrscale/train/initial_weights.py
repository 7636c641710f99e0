"""Initial weights: fetched once on a machine with a network, checked, and kept beside the results.

Compute nodes are often offline, so training never downloads anything: it reads the copy made here.
"""

import logging
import shutil
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from cxrscale.common.atomic import is_there, replacing, write_text
from cxrscale.common.errors import StudyError
from cxrscale.common.provenance import file_digest

logger = logging.getLogger(__name__)


def fetch(model: str, timm_tag: str | None, file: Path | None, sha256: str | None, output: Path) -> None:
    """Bring a model's initial weights to `output` as safetensors, and check their SHA-256.

    timm_tag: a pretrained tag of timm ("tv_in1k" of densenet121), downloaded with timm; or file: a local state dict
    (.safetensors as it is; .pth and .bin are turned into it). sha256: of the safetensors file written here, 64 hex
    digits; None: compared with the one recorded at the first fetch, if there was one, and recorded now.
    Raises StudyError if the tag is unknown, the download or file fails or the checksum differs.
    """
    recorded = output.with_name(f"{output.name}.sha256")
    expected = sha256 or (recorded.read_text().split()[0] if is_there(recorded) else None)
    with replacing(output) as temporary:
        if file is not None:
            _copy(file, temporary)
        else:
            _download(model, str(timm_tag), temporary)
        found = file_digest(temporary)
        if expected is not None and found != expected:
            raise StudyError(
                f"models.{model}.weights: SHA-256 is {found}, expected {expected}. "
                f"If the weights were meant to change, correct sha256 in the config and delete {recorded}."
            )
    write_text(recorded, f"{found}  {output.name}\n")
    logger.info("%s: sha256 %s", output, found)


def _copy(file: Path, target: Path) -> None:
    if not file.is_file():
        raise StudyError(f"models.weights.file: there is no file {file}.")
    if file.suffix == ".safetensors":
        shutil.copyfile(file, target)
        return
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what the pickle module happens to stumble over
        raise StudyError(f"models.weights.file: {file} cannot be read as a state dict: {error}") from error
    save_file({k: v.contiguous() for k, v in state.get("state_dict", state).items()}, target)


def _download(model: str, tag: str, target: Path) -> None:
    name = f"{model}.{tag}"
    if not timm.is_model_pretrained(name):
        tags = [t.split(".", 1)[1] for t in timm.list_models(f"{model}.*", pretrained=True) if "." in t]
        raise StudyError(f"models.weights.timm_tag: timm has no pretrained {name}; expected one of {', '.join(tags)}")
    try:
        state = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # network libraries differ in what they raise
        raise StudyError(
            f"{name} cannot be downloaded: {error}. Run this stage on a machine with a network, or download the "
            f"weights elsewhere and name them in models.weights.file."
        ) from error
    save_file({k: v.contiguous() for k, v in state.items()}, target)
