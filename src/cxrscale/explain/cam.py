"""Class activation maps of the same images at every resolution."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from cxrscale.data.splits import combine_split
from cxrscale.explain.settings import CamMethod
from cxrscale.store.reader import StoreReader
from cxrscale.train.augmentation import image_keys
from cxrscale.train.learner import Learner
from cxrscale.train.loader import decoded_batches
from cxrscale.train.models import feature_map, has_exact_cam

#: Pixels computed at once, a matter of memory alone.
PIXELS = 8 * 512**2


def select_images(
    targets: pd.DataFrame, store_ids: set[str], findings: Sequence[str], per_finding: int, split: str = "test"
) -> pd.DataFrame:
    """Images of a split that show each finding, chosen by a hash of their id: the same for every learner of a fold.

    Returns the columns finding and image_id, at most `per_finding` rows a finding, none for a finding without any.
    """
    here = targets[(targets["split"] == split) & targets["image_id"].isin(store_ids)]
    rows = []
    for finding in findings:
        shown = here[(here[f"target:{finding}"] == 1) & (here[f"mask:{finding}"] == 1)]
        ids = shown["image_id"].to_numpy(dtype=object)
        chosen = ids[np.argsort(image_keys(list(ids)), kind="stable")][:per_finding] if len(ids) else ids
        rows += [(finding, image_id) for image_id in chosen]
    return pd.DataFrame(rows, columns=["finding", "image_id"], dtype="str")


def select_boxed(
    targets: pd.DataFrame, store_ids: set[str], boxed: Iterable[tuple[str, str]], per_finding: int
) -> pd.DataFrame:
    """Images of test and of combine (see `combine_split`) that show a finding which has a box in them.

    boxed: (finding, image_id). At most per_finding images a finding and split, chosen as `select_images` does.
    Returns finding, image_id, subject_id, split ("combine" whichever split stands for it, or "test").
    """
    by_finding: dict[str, set[str]] = {}
    for finding, image_id in boxed:
        by_finding.setdefault(finding, set()).add(image_id)
    columns = [c.removeprefix("target:") for c in targets.columns if c.startswith("target:")]
    parts = [
        select_images(targets, store_ids & by_finding[finding], [finding], per_finding, split).assign(split=called)
        for called, split in (("combine", combine_split(targets)), ("test", "test"))
        for finding in columns
        if finding in by_finding
    ]
    chosen = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["finding", "image_id", "split"])
    return chosen.merge(targets[["image_id", "subject_id"]], on="image_id", how="left")


def class_activation_maps(
    model: nn.Module, x: torch.Tensor, findings: Sequence[int], method: CamMethod = "auto"
) -> np.ndarray:
    """The map of one finding for each image.

    method "auto": exact for networks with global average pooling and a linear head (Zhou et al. 2016,
    arXiv:1512.04150): the maps' mean plus the head's bias is the logit. Others: Grad-CAM (Selvaraju et al. 2017,
    arXiv:1610.02391). The other methods are pytorch-grad-cam's of that name, for every network.

    x: float32 (image, 1, height_px, width_px), normalised as in training; findings: index of the finding for each
    image. Returns float32 (image, rows, columns) on the feature map's own grid and scale, signed: positive speaks for
    the finding. A map may be negative throughout. GradCAM++ and LayerCAM keep
    only what speaks for it.
    """
    if method == "auto" and has_exact_cam(model):
        with torch.inference_mode():
            features = feature_map(model, x)  # (image, channel, rows, columns)
            weight = model.get_classifier().weight[list(findings)]  # type: ignore[operator]  # (image, channel)
            return torch.einsum("icyx,ic->iyx", features, weight).float().cpu().numpy()
    return _by_gradient(model, x, findings, "gradcam" if method == "auto" else method)


class _Split(nn.Module):
    """The network as features then head, so that pytorch-grad-cam finds the last feature map by name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.last = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Copies, since features may come from, and heads begin with, an activation in place, which the package's
        # hooks on such a layer do not survive.
        return self.model.forward_head(self.last(feature_map(self.model, x).clone()).clone())  # type: ignore[operator]


def _by_gradient(model: nn.Module, x: torch.Tensor, findings: Sequence[int], method: str) -> np.ndarray:
    """Maps before the package cuts them off at zero, scales each to 0 to 1 and enlarges it: these steps would turn a
    map that speaks against the finding everywhere into one that looks like any other."""
    import pytorch_grad_cam

    kind = {
        "gradcam": pytorch_grad_cam.GradCAM,
        "gradcam++": pytorch_grad_cam.GradCAMPlusPlus,
        "layercam": pytorch_grad_cam.LayerCAM,
    }[method]
    split = _Split(model)
    with kind(model=split, target_layers=[split.last]) as package:
        logits = package.activations_and_grads(x)  # (image, finding)
        model.zero_grad()
        logits[range(len(x)), list(findings)].sum().backward()
        recorded = package.activations_and_grads
        activations, gradients = (kept[0].numpy() for kept in (recorded.activations, recorded.gradients))
        maps = package.get_cam_image(x, split.last, None, activations, gradients, eigen_smooth=False)
    model.zero_grad()
    return np.asarray(maps, dtype=np.float32)


def maps_of_pairs(
    learner: Learner, store: StoreReader, pairs: pd.DataFrame, method: CamMethod = "auto"
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The picture, uint8 (height_px, width_px), and the map, float32 (rows, columns), of each pair of an image and a
    finding, in order. pairs: the columns finding and image_id."""
    at_once = max(1, PIXELS // max(1, store.shape[0] * store.shape[1]))
    rows = store.rows(list(pairs["image_id"]))
    places = [learner.findings.index(finding) for finding in pairs["finding"]]
    starts = range(0, len(rows), at_once)
    batches = decoded_batches(store, [rows[i : i + at_once] for i in starts], workers=0)
    for start, pixels in zip(starts, batches, strict=True):
        x, findings = learner.prepared(pixels), places[start : start + at_once]
        maps = class_activation_maps(learner.network, x, findings, method)
        yield from zip(pixels[:, 0].numpy(), maps, strict=True)
