"""The settings that the report's protocol table shows, beside those of the default protocol."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from cxrscale.workflow.config import StudyConfig

#: Settings of training that the paper states; of the others those are shown that are not at their default, so that one
#: that is added later does not change the page.
PAPER = (
    "epochs",
    "batch_images",
    "normalisation",
    "norm_group_images",
    "optimiser",
    "learning_rate",
    "schedule",
    "flip_probability",
    "rotation_degrees",
    "mean",
    "standard_deviation",
)
SHOWN = {
    "dataset": ("name", "format", "ids"),
    "labels": ("test_source", "unread", "uncertain", "missing"),
    "split": (
        "method",
        "folds",
        "use_folds",
        "order",
        "seed",
        "validate_fraction",
        "combine_fraction",
        "most_sharing_patients",
    ),
    "store": ("base_resolution_px", "geometry", "filter", "jpeg_quality", "upscale"),
    "evaluation": ("replicates", "confidence", "seed", "calibration_bins", "specificity", "groups"),
    "comparison": ("margin_auroc", "joint_confidence", "least_patients", "native_at_least_px"),
    "stacking": ("tolerance", "scale_weight_replicates"),
    "erf": ("images",),
    "cam": ("images_per_finding", "method", "localisation_images", "box_sizes"),
}


def protocol_rows(study: StudyConfig) -> list[list[Any]]:
    """[name, value here, value of the default protocol], plain and without paths."""
    training = tuple(dict.fromkeys((*PAPER, *study.training.of_learner("", 0))))
    here, default = (_described(s, training) for s in (study, StudyConfig()))
    return [[name, value, default[name]] for name, value in here.items()]


def _described(study: StudyConfig, training: tuple[str, ...]) -> dict[str, Any]:
    sections = SHOWN | {"training": training}
    return {
        "synthetic data": study.dataset.synthetic is not None,
        "findings": study.findings or "all of the data set",
        "models": {model.name: _weights(model.weights) for model in study.models},
        "resolutions_px": sorted(study.resolutions_px),
        "reference_px": study.reference_px,
        "seeds": study.seeds,
        **{f"{name}.{key}": getattr(getattr(study, name), key) for name, keys in sections.items() for key in keys},
        "dataset.views": study.dataset.views or "all",
        "labels.source": study.chosen.label_source,
        "training.overrides": [_given(override) for override in study.training.overrides],
        "labels.per_finding": {finding: _given(policy) for finding, policy in study.labels.per_finding.items()},
    }


def _weights(weights: Any) -> str:
    if weights is None:
        return "random weights"
    return getattr(weights, "timm_tag", None) or f"file {Path(weights.file).name}"


def _given(section: Any) -> dict[str, Any]:
    return {key: value for key, value in asdict(section).items() if value is not None}
