"""How a network's head reads its last feature map: what receptive fields and activation maps have in common."""

from torch import nn


def has_exact_cam(model: nn.Module) -> bool:
    """Whether the logits are a linear map of globally averaged features, so that the exact map exists."""
    pool = getattr(model, "global_pool", None)
    kind = getattr(pool, "pool_type", None)
    classifier = model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]
    # A head with layers between pooling and classifier (MobileNetV3) takes more inputs than there are feature maps.
    return kind == "avg" and isinstance(classifier, nn.Linear) and classifier.in_features == model.num_features
