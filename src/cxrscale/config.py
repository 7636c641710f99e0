"""The study's configuration: every key with its type, default and meaning. Imports no torch.

The defaults are the paper's protocol on MIMIC-CXR-JPG (Haque et al. 2023, doi:10.1117/1.JMI.10.4.044503), controlled
as docs/protocol.md says. Unknown keys are errors, so that a misspelt one cannot pass.
"""

import difflib
import importlib.util
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cxrscale.errors import StudyError
from cxrscale.findings import CHEXPERT_FINDINGS
from cxrscale.provenance import digest

Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Pixels = Annotated[int, Field(ge=8, le=16_384)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Bits = Annotated[int, Field(ge=8, le=16, multiple_of=2)]
Confidence = Annotated[float, Field(gt=0.5, lt=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Planted(Section):
    pattern: Literal["grating", "line", "heart", "effusion", "relation", "any", "none"]
    wavelength: Annotated[float, Field(ge=0, le=1)] = 0.0
    contrast: Fraction = 0.0
    prevalence: OpenFraction = 0.35
    includes: list[str] = []

    @model_validator(mode="after")
    def _any_is_of_others(self) -> Self:
        if (self.pattern == "any") != bool(self.includes):
            raise ValueError("includes names the findings that the pattern 'any' is made of, and belongs to it alone")
        return self


class Synthetic(Section):
    patients: Annotated[int, Field(ge=2)]
    rows_px: Pixels
    columns_px: Pixels
    seed: Seed = 0
    uncertain: Fraction = 0.04
    unmentioned: Fraction = 0.6
    correlation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    label_noise: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    planted: dict[str, Planted]

    def given(self) -> dict[str, Any]:
        """What the data set depends on; options at their default are left out, so that a later one changes nothing."""
        plain = self.model_dump(mode="json")
        for how in plain["planted"].values():
            if not how["includes"]:
                del how["includes"]
        return {k: v for k, v in plain.items() if k not in ("correlation", "label_noise") or v}


class Dataset(Section):
    name: Name = "mimic-cxr-jpg"
    format: Literal["mimic-cxr-jpg", "manifest"] = "mimic-cxr-jpg"
    root: str = "data/mimic-cxr-jpg"
    manifest: str = "manifest.csv"
    views: list[str] | None = None
    synthetic: Synthetic | None = None

    @model_validator(mode="after")
    def _synthetic_is_mimic(self) -> Self:
        if self.synthetic is not None and self.format != "mimic-cxr-jpg":
            raise ValueError("dataset.synthetic is written in MIMIC-CXR-JPG's layout: format must be mimic-cxr-jpg")
        return self


class PolicyOverride(Section):
    uncertain: Literal["zeros", "ones", "ignore"] | None = None
    missing: Literal["negative", "ignore"] | None = None


class Labels(Section):
    source: Literal["chexpert", "negbio"] = "chexpert"
    test_source: Literal["same", "radiologist"] = "same"
    uncertain: Literal["zeros", "ones", "ignore"] = "zeros"
    missing: Literal["negative", "ignore"] = "negative"
    per_finding: dict[str, PolicyOverride] = {}


class Split(Section):
    method: Literal["kfold", "official"] = "kfold"
    folds: Annotated[int, Field(ge=2)] = 10
    use_folds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    order: Literal["file", "shuffled"] = "file"
    seed: Seed = 0
    validate_fraction: OpenFraction = 0.1
    combine_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _folds_exist(self) -> Self:
        most = self.folds if self.method == "kfold" else 1
        if wrong := [fold for fold in self.use_folds if fold >= most]:
            raise ValueError(f"use_folds holds {wrong[0]}, but {self.method} has the folds 0 to {most - 1}")
        if self.validate_fraction + self.combine_fraction >= 1:
            raise ValueError("validate_fraction and combine_fraction leave nothing to train on")
        return self


class Store(Section):
    base_resolution_px: Pixels = 2048
    geometry: Literal["stretch", "pad"] = "stretch"
    filter: Literal["area", "bilinear", "bicubic", "lanczos", "dct"] = "bilinear"
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] | Literal["lossless"] = 95
    bits: Bits | Literal["auto"] = "auto"
    least_levels: Annotated[int, Field(ge=2, le=256)] = 32
    least_side_px: Count = 32
    most_aspect: Annotated[float, Field(ge=1)] = 4.0
    shards: Annotated[int, Field(ge=1, le=99_999)] = 256
    together_px: list[Pixels] = [1024, 512, 256]
    upscale: Literal["allow", "exclude"] = "allow"
    max_unreadable_fraction: Fraction = 0.001

    @model_validator(mode="after")
    def _dct_needs_jpeg(self) -> Self:
        if self.filter == "dct" and self.jpeg_quality == "lossless":
            raise ValueError("filter dct decodes JPEG in part: choose another filter for a lossless store")
        return self

    def accepted(self) -> dict[str, Any]:
        """Which native pictures are used and how they become 8 bits: the fields of store.pixels.Accepted."""
        return {key: getattr(self, key) for key in ("bits", "least_levels", "least_side_px", "most_aspect")}


class TimmTag(Section):
    timm_tag: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class LocalWeights(Section):
    file: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class Model(Section):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_]+$")]
    weights: TimmTag | LocalWeights | None = None


class LearnerSettings(Section):
    """What a learner's weights depend on; `training.overrides` may change these for some learners."""

    epochs: Count = 30
    batch_images: Count = 64
    normalisation: Literal["groups", "frozen", "synchronised", "per_micro_batch"] = "groups"
    norm_group_images: Count = 8
    optimiser: Literal["adam", "adamw"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    plateau_epochs: Count = 3
    plateau_factor: OpenFraction = 0.1
    early_stopping_epochs: Count | None = None
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    average_decay: OpenFraction | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    positive_weights: Literal["none", "balanced"] = "none"
    flip_probability: Fraction = 0.5
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    mean: Fraction = 0.449
    standard_deviation: Annotated[float, Field(gt=0)] = 0.226
    precision: Literal["bfloat16", "float32"] = "bfloat16"

    @model_validator(mode="after")
    def _groups_fill_the_batch(self) -> Self:
        if self.normalisation == "groups" and self.batch_images % self.norm_group_images:
            raise ValueError(
                f"batch_images ({self.batch_images}) must be a multiple of norm_group_images ({self.norm_group_images})"
            )
        return self


class TrainingOverride(Section):
    model: str | None = None
    resolution_px: Pixels | None = None
    settings: dict[str, Any]


class Training(LearnerSettings):
    overrides: list[TrainingOverride] = []
    gpus: Count = 1
    nodes: Count = 1
    micro_batch_images: Count | Literal["auto"] = "auto"
    recompute: bool | Literal["auto"] = "auto"
    compile: bool = False
    channels_last: bool | Literal["auto"] = "auto"
    workers: Annotated[int, Field(ge=0)] = 4
    checkpoint_s: Count = 600
    stage_dir: str | None = None

    @model_validator(mode="after")
    def _overrides_are_settings(self) -> Self:
        for override in self.overrides:
            self._with(override)
        return self

    @model_validator(mode="after")
    def _micro_batch_is_known(self) -> Self:
        kinds = {self.normalisation, *(o.settings.get("normalisation") for o in self.overrides)}
        if "per_micro_batch" in kinds and self.micro_batch_images == "auto":
            raise ValueError("normalisation per_micro_batch makes micro_batch_images a setting: give a number")
        return self

    def _with(self, *overrides: TrainingOverride) -> LearnerSettings:
        values = self.model_dump(include=set(LearnerSettings.model_fields))
        for override in overrides:
            if unknown := [key for key in override.settings if key not in values]:
                choices = ", ".join(values)
                raise ValueError(
                    f"overrides: {unknown[0]!r} is no setting of a learner{_nearest(unknown[0], values)}; "
                    f"expected one of {choices}"
                )
            values |= override.settings
        return LearnerSettings.model_validate(values)

    def of_learner(self, model: str, resolution_px: int) -> dict[str, Any]:
        """What the weights of a learner depend on: the settings, the overrides that name it laid over them in order,
        and micro_batch_images where it counts as one.

        Those at their default are left out, so that a setting that is added later changes no learner that exists;
        `training.TrainingSettings` has the same defaults.
        """
        named = [
            o for o in self.overrides if o.model in (None, model) and o.resolution_px in (None, int(resolution_px))
        ]
        settings = self._with(*named)
        given = settings.model_dump(mode="json", exclude_defaults=True)
        if settings.normalisation == "per_micro_batch":
            given["micro_batch_images"] = self.micro_batch_images
        return given


class Evaluation(Section):
    replicates: Annotated[int, Field(ge=100)] = 2000
    confidence: Confidence = 0.95
    seed: Seed = 0
    calibration_bins: Annotated[int, Field(ge=2)] = 15
    specificity: OpenFraction = 0.9
    groups: list[str] = ["view"]
    subgroups: str | None = None

    @model_validator(mode="after")
    def _groups_have_a_source(self) -> Self:
        if len(set(self.groups)) < len(self.groups):
            raise ValueError("groups holds a column twice")
        if self.subgroups is None and (other := [c for c in self.groups if c != "view"]):
            raise ValueError(f"groups holds {other[0]!r}; without a file in subgroups, expected view alone")
        return self


class Comparison(Section):
    reference_px: Pixels | None = None
    margin_auroc: OpenFraction = 0.01
    native_at_least_px: Pixels | None = None
    joint_confidence: Confidence = 0.99
    least_patients: Count = 30


class Stacking(Section):
    tolerance: Annotated[float, Field(gt=0)] = 1e-8
    weight_replicates: Annotated[int, Field(ge=100)] = 200


class Erf(Section):
    images: Count = 64


class Cam(Section):
    images_per_finding: Count = 2
    method: Literal["auto", "gradcam", "gradcam++", "layercam"] = "auto"
    boxes: str | None = None
    localisation_images: Count = 500
    box_sizes: Annotated[list[OpenFraction], Field(min_length=2, max_length=2)] = [0.02, 0.1]

    @field_validator("box_sizes")
    @classmethod
    def _ascending(cls, values: list[float]) -> list[float]:
        if values[0] >= values[1]:
            raise ValueError(f"must ascend: {values[0]:g} is not below {values[1]:g}")
        return values


class Report(Section):
    title: str = "Effect of image resolution on automated classification of chest X-rays"
    findings: list[str] | None = None
    patient_pictures: bool = False


class StudyConfig(Section):
    """The whole study; `load` is the way to make one."""

    study: Name = "mimic-resolution"
    accelerator: Literal["cuda", "cpu"] = "cuda"
    dataset: Dataset = Dataset()
    findings: Annotated[list[str], Field(min_length=1)] | None = list(CHEXPERT_FINDINGS)
    labels: Labels = Labels()
    split: Split = Split()
    store: Store = Store()
    resolutions_px: Annotated[list[Pixels], Field(min_length=1)] = [2048, 1024, 512, 256]
    models: Annotated[list[Model], Field(min_length=1)] = [
        Model(name="densenet121", weights=TimmTag(timm_tag="tv_in1k")),
        Model(name="efficientnet_b4", weights=TimmTag(timm_tag="ra2_in1k")),
    ]
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    comparison: Comparison = Comparison()
    stacking: Stacking = Stacking()
    erf: Erf = Erf()
    cam: Cam = Cam()
    report: Report = Report()

    @field_validator("resolutions_px", "seeds", "findings")
    @classmethod
    def _no_repeats(cls, values: list[Any] | None) -> list[Any] | None:
        if values is not None and len(set(values)) < len(values):
            raise ValueError("holds a value twice")
        return values

    @model_validator(mode="after")
    def _boxes_are_one_table(self) -> Self:
        if self.dataset.synthetic is not None and self.cam.boxes is not None:
            raise ValueError("cam.boxes: a synthetic data set brings its own boxes; leave it null")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        base = self.store.base_resolution_px
        if above := [r for r in self.resolutions_px if r > base]:
            growth = (above[0] / base) ** 2
            raise ValueError(
                f"resolutions_px holds {above[0]}, above store.base_resolution_px {base}: it would show nothing that "
                f"the base lacks. Raising the base to {above[0]} reads every native file again and takes about "
                f"{growth:.1f} times the disk; else remove {above[0]}"
            )
        reference = self.comparison.reference_px
        if reference is not None and reference not in self.resolutions_px:
            raise ValueError(
                f"comparison.reference_px is {reference}; expected one of resolutions_px {self.resolutions_px}"
            )
        names = [m.name for m in self.models]
        if len(set(names)) < len(names):
            raise ValueError("models holds a name twice")
        if self.findings is not None:
            known = CHEXPERT_FINDINGS if self.dataset.format == "mimic-cxr-jpg" else self.findings
            lists = {
                "findings": self.findings,
                "labels.per_finding": list(self.labels.per_finding),
                "report.findings": self.report.findings or [],
            }
            for key, values in lists.items():
                choices = known if key == "findings" else self.findings
                for value in values:
                    if value not in choices:
                        raise ValueError(
                            f"{key} holds {value!r}{_nearest(value, choices)}; expected one of {list(choices)}"
                        )
        return self

    @property
    def reference_px(self) -> int:
        """The resolution that others are held against: the one named, else the largest."""
        return self.comparison.reference_px or max(self.resolutions_px)

    def together_px(self) -> list[int]:
        """Smaller resolutions that are made from one reading of the base; the others are made alone."""
        return [r for r in self.store.together_px if r < self.store.base_resolution_px]

    def store_settings(self) -> dict[str, Any]:
        """What the pixels of the store depend on, and which images it holds.

        Settings that came later are left out at their default, so that stores keep their names.
        """
        keys = ("base_resolution_px", "geometry", "filter", "jpeg_quality", "shards")
        settings: dict[str, Any] = {key: getattr(self.store, key) for key in keys}
        default = Store().accepted()
        settings |= {key: value for key, value in self.store.accepted().items() if value != default[key]}
        if self.dataset.synthetic is not None:
            settings["synthetic"] = self.dataset.synthetic.given()
        return settings | {"format": self.dataset.format}

    def store_name(self) -> str:
        """Folder of the store below results/stores: two studies with the same settings share it."""
        return f"{self.dataset.name}-{digest(self.store_settings())[:8]}"


@cache
def timm_model_names() -> frozenset[str]:
    """Names of all models that the installed timm registers, read from its source, since importing timm imports torch.

    Empty if timm is not installed where this runs (the jobs' environment may have it).
    """
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return frozenset()
    entry = re.compile(r"@register_model\s+def\s+(\w+)")
    files = (Path(spec.origin).parent / "models").glob("*.py")
    return frozenset(name for file in files for name in entry.findall(file.read_text(encoding="utf-8")))


def _nearest(word: str, choices: Any) -> str:
    near = difflib.get_close_matches(word, [str(c) for c in choices], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def load(raw: Mapping[str, Any]) -> StudyConfig:
    """Check a configuration and fill in defaults.

    raw: what YAML gave; values within lists and mappings of `--config` come as text and are converted.
    Raises StudyError whose lines name each wrong key, the value and what was expected.
    """
    try:
        study = StudyConfig.model_validate(_with_nulls(dict(raw)))
    except ValidationError as error:
        raise StudyError("the configuration is not usable:\n" + "\n".join(_explain(error))) from None
    known = timm_model_names()
    for model in study.models:
        if known and model.name not in known:
            raise StudyError(
                f"the configuration is not usable:\n  models: timm knows no model {model.name!r}"
                f"{_nearest(model.name, sorted(known))}. Any name of timm.list_models() works."
            )
    return study


def _with_nulls(value: Any) -> Any:
    """The same value with the text "null", as `--config` gives it, turned into None."""
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nulls(item) for item in value]
    return None if value == "null" else value


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        where = [str(part) for part in problem["loc"]]
        key = ".".join(where) or "(whole)"
        if problem["type"] == "extra_forbidden":
            choices = _keys_at(where[:-1])
            expected = f"; expected one of {', '.join(choices)}" if choices else ""
            lines.append(f"  {key}: unknown key{_nearest(where[-1], choices)}{expected}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            got = "" if problem["type"] in ("value_error", "missing") else f" (got {problem['input']!r})"
            lines.append(f"  {key}: {message}{got}")
    return lines


def _keys_at(where: list[str]) -> list[str]:
    section: Any = StudyConfig
    place_follows = False
    for part in where:
        if place_follows:  # the place in a list, or the name in a mapping
            place_follows = False
            continue
        fields = getattr(section, "model_fields", {})
        if part not in fields:
            return []
        annotation = fields[part].annotation
        place_follows = get_origin(annotation) in (list, dict)
        kinds = [annotation, *get_args(annotation)]
        section = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
    return list(getattr(section, "model_fields", {}))
