"""Class activation maps of the same images at every resolution."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from cxrscale.augmentation import image_keys
from cxrscale.models import feature_map


def select_images(
    targets: pd.DataFrame, store_ids: set[str], findings: Sequence[str], per_finding: int
) -> pd.DataFrame:
    """Test images that show each finding, chosen by a hash of their id: the same for every learner of a fold.

    Returns the columns finding and image_id, at most `per_finding` rows a finding, none for a finding without any.
    """
    test = targets[(targets["split"] == "test") & targets["image_id"].isin(store_ids)]
    rows = []
    for finding in findings:
        shown = test[(test[f"target:{finding}"] == 1) & (test[f"mask:{finding}"] == 1)]
        ids = shown["image_id"].to_numpy(dtype=object)
        chosen = ids[np.argsort(image_keys(list(ids)), kind="stable")][:per_finding] if len(ids) else ids
        rows += [(finding, image_id) for image_id in chosen]
    return pd.DataFrame(rows, columns=["finding", "image_id"], dtype="str")


def has_exact_cam(model: nn.Module) -> bool:
    """Whether the logits are a linear map of globally averaged features, so that the exact map exists."""
    pool = getattr(model, "global_pool", None)
    kind = getattr(pool, "pool_type", None)
    classifier = model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]
    # A head with layers between pooling and classifier (MobileNetV3) takes more inputs than there are feature maps.
    return kind == "avg" and isinstance(classifier, nn.Linear) and classifier.in_features == model.num_features


def class_activation_maps(model: nn.Module, x: torch.Tensor, findings: Sequence[int]) -> np.ndarray:
    """The map of one finding for each image.

    Exact for networks with global average pooling and a linear head (Zhou et al. 2016, arXiv:1512.04150): the maps'
    mean plus the head's bias is the logit. Others: Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391), by
    pytorch-grad-cam, scaled to 0 to 1 by that package.

    x: float32 (image, 1, height_px, width_px), normalised as in training; findings: index of the finding for each
    image. Returns float32 (image, rows, columns) on the feature map's own grid, signed where exact.
    """
    if has_exact_cam(model):
        with torch.inference_mode():
            features = feature_map(model, x)  # (image, channel, rows, columns)
            weight = model.get_classifier().weight[list(findings)]  # type: ignore[operator]  # (image, channel)
            return torch.einsum("icyx,ic->iyx", features, weight).float().cpu().numpy()
    return _grad_cam(model, x, findings)


class _Split(nn.Module):
    """The network as features then head, so that pytorch-grad-cam finds the last feature map by name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.last = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # A copy, since heads may begin with an in-place activation.
        return self.model.forward_head(self.last(feature_map(self.model, x)).clone())  # type: ignore[operator]


def _grad_cam(model: nn.Module, x: torch.Tensor, findings: Sequence[int]) -> np.ndarray:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    split = _Split(model)
    with torch.no_grad():
        rows, columns = feature_map(model, x[:1]).shape[2:]
    with GradCAM(model=split, target_layers=[split.last]) as grad_cam:
        maps = grad_cam(input_tensor=x, targets=[ClassifierOutputTarget(f) for f in findings])
    # The package scales maps up to the input; bring them back to the grid they were made on.
    small = torch.nn.functional.interpolate(torch.from_numpy(maps)[:, None], (rows, columns), mode="area")
    return small[:, 0].numpy()
