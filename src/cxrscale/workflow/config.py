"""The study's configuration: every key with its type, default and meaning. Imports no torch.

The defaults are the paper's protocol on MIMIC-CXR-JPG (Haque et al. 2023, doi:10.1117/1.JMI.10.4.044503), controlled
as docs/protocol.md says. Unknown keys are errors, so that a misspelt one cannot pass; so are numbers that are not
finite, lists that hold a value twice, and settings that contradict each other or can have no effect.
"""

import importlib.util
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from cxrscale.common.errors import StudyError, nearest
from cxrscale.common.provenance import digest
from cxrscale.data.findings import CHEXPERT_FINDINGS, check_finding_name
from cxrscale.workflow.layout import RESULTS, SHARED_FOLDERS

#: Smaller resolutions that are made from one reading of the base, unless the config names others.
TOGETHER_PX = (1024, 512, 256)


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"is {str(value).lower()} (YAML reads yes, no, on and off so); expected a number")
    return value


def _spelling(value: Any) -> Any:
    """What two spellings of one value have in common: texts differ neither by case nor by blanks around them."""
    return unicodedata.normalize("NFC", value).strip().casefold() if isinstance(value, str) else value


def _shown(item: Any) -> Any:
    """What an item of a list is known by: its name where it has one."""
    if not isinstance(item, BaseModel):
        return item
    return getattr(item, "name", None) or str(item.model_dump(exclude_none=True))


def _distinct(values: Any) -> Any:
    """A list, or a mapping by its keys, that holds no value twice, however it is spelled."""
    seen: dict[Any, Any] = {}
    for value in map(_shown, values):
        key = _spelling(value)
        if key in seen and seen[key] == value:
            raise ValueError(f"holds {value!r} twice; remove one")
        if key in seen:
            raise ValueError(f"holds {seen[key]!r} and {value!r}, two spellings of one value; remove one")
        seen[key] = value
    return values


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError(f"is blank ({value!r}); write a text, or leave the key out")
    if not value.isprintable():
        raise ValueError(f"holds a character that cannot be printed: {value!r}; remove it")
    return value


def _no_wildcards(value: str) -> str:
    if "{" in value or "}" in value:
        raise ValueError(f"is {value!r}; Snakemake would take braces for a wildcard: rename what is called so")
    return value


def _trimmed(value: str) -> str:
    if value != value.strip():
        raise ValueError(f"{value!r} begins or ends with a blank; expected {value.strip()!r}")
    return value


def _finding(value: str) -> str:
    if why := check_finding_name(value):
        raise ValueError(why)
    return value


# Every number and every list of the config is made of these. A test holds it to that.
Whole = Annotated[int, BeforeValidator(_no_truth_value)]
Real = Annotated[float, BeforeValidator(_no_truth_value)]
Distinct = AfterValidator(_distinct)

Fraction = Annotated[Real, Field(ge=0, le=1)]
OpenFraction = Annotated[Real, Field(gt=0, lt=1)]
Pixels = Annotated[Whole, Field(ge=8, le=16_384)]
Count = Annotated[Whole, Field(ge=1, le=1_000_000)]
Seed = Annotated[Whole, Field(ge=0, le=2**31 - 1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Text = Annotated[str, AfterValidator(_text)]
Column = Annotated[str, AfterValidator(_text), AfterValidator(_trimmed)]
View = Annotated[str, AfterValidator(_trimmed)]
Finding = Annotated[str, AfterValidator(_finding)]
Bits = Annotated[Whole, Field(ge=8, le=16, multiple_of=2)]
Confidence = Annotated[Real, Field(gt=0.5, lt=1)]


class Section(BaseModel):
    # Infinite is what "1e400" and ".inf" would be, not a number is what compares with nothing.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Planted(Section):
    pattern: Literal["grating", "line", "heart", "effusion", "relation", "any", "none"]
    wavelength: Annotated[Real, Field(ge=0, le=1)] = 0.0
    contrast: Fraction = 0.0
    prevalence: OpenFraction = 0.35
    includes: Annotated[list[Finding], Distinct] = []

    @model_validator(mode="after")
    def _any_is_of_others(self) -> Self:
        if (self.pattern == "any") != bool(self.includes):
            raise ValueError("includes names the findings that the pattern 'any' is made of, and belongs to it alone")
        return self

    @model_validator(mode="after")
    def _something_is_drawn(self) -> Self:
        stripes = self.pattern in ("grating", "line")
        if stripes != (self.wavelength > 0):
            raise ValueError(
                f"wavelength is {self.wavelength:g} and the pattern is {self.pattern!r}; expected a wavelength above 0 "
                "with grating and line, and none with the others"
            )
        drawn = stripes or self.pattern in ("effusion", "relation")
        if drawn and self.contrast == 0:
            raise ValueError(f"contrast is 0: the pattern {self.pattern!r} would not be seen; expected more than 0")
        if self.pattern in ("any", "none") and self.contrast:
            raise ValueError(f"contrast is {self.contrast:g}, but {self.pattern!r} draws nothing; remove it")
        return self


class Synthetic(Section):
    patients: Annotated[Whole, Field(ge=2, le=1_000_000)]
    rows_px: Pixels
    columns_px: Pixels
    seed: Seed = 0
    uncertain: Fraction = 0.04
    unmentioned: Fraction = 0.6
    correlation: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    label_noise: Annotated[Real, Field(ge=0, lt=0.5)] = 0.0
    planted: Annotated[dict[Finding, Planted], Field(min_length=1), Distinct]

    @field_validator("planted")
    @classmethod
    def _findings_are_drawn(cls, planted: dict[str, Planted]) -> dict[str, Planted]:
        for finding, how in planted.items():
            _one_of("holds", finding, CHEXPERT_FINDINGS)
            drawn = [f for f, other in planted.items() if other.pattern != "any"]
            for part in how.includes:
                _one_of(f"{finding}.includes holds", part, drawn)
        return planted

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
    root: Text = "data/mimic-cxr-jpg"
    manifest: Text = "manifest.csv"
    views: Annotated[list[View], Distinct] | None = None
    ids: Literal["one_spelling", "exact"] = "one_spelling"
    synthetic: Synthetic | None = None

    @field_validator("views")
    @classmethod
    def _some_views(cls, views: list[str] | None) -> list[str] | None:
        if views is not None and not views:
            raise ValueError("is empty, so no image would be used; expected the views to use, or null for all")
        return views

    @model_validator(mode="after")
    def _manifest_is_read(self) -> Self:
        if self.format != "manifest" and self.manifest != Dataset.model_fields["manifest"].default:
            raise ValueError(
                f"dataset.manifest is {self.manifest!r}, but nothing reads it with dataset.format {self.format}; "
                "set dataset.format to manifest, or remove dataset.manifest"
            )
        return self

    @model_validator(mode="after")
    def _synthetic_is_mimic(self) -> Self:
        if self.synthetic is not None and self.format != "mimic-cxr-jpg":
            raise ValueError("dataset.synthetic is written in MIMIC-CXR-JPG's layout: format must be mimic-cxr-jpg")
        if self.synthetic is not None and not {"{", "}"}.isdisjoint(self.root):
            raise ValueError(f"dataset.root is {self.root!r}; Snakemake would take braces for a wildcard: rename it")
        return self


class PolicyOverride(Section):
    uncertain: Literal["zeros", "ones", "ignore"] | None = None
    missing: Literal["negative", "ignore"] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.uncertain is None and self.missing is None:
            raise ValueError("says nothing; give uncertain or missing, or remove the finding from labels.per_finding")
        return self


class Labels(Section):
    source: Literal["chexpert", "negbio"] = "chexpert"
    test_source: Literal["same", "radiologist"] = "same"
    unread: Literal["ignore", "keep"] = "ignore"
    uncertain: Literal["zeros", "ones", "ignore"] = "zeros"
    missing: Literal["negative", "ignore"] = "negative"
    per_finding: Annotated[dict[Finding, PolicyOverride], Distinct] = {}


class Split(Section):
    method: Literal["kfold", "official"] = "kfold"
    folds: Annotated[Whole, Field(ge=2, le=1000)] = 10
    use_folds: Annotated[list[Annotated[Whole, Field(ge=0)]], Field(min_length=1), Distinct] = [0]
    order: Literal["file", "shuffled"] = "file"
    seed: Seed = 0
    validate_fraction: OpenFraction = 0.1
    combine_fraction: Annotated[Real, Field(ge=0, lt=1)] = 0.1
    most_sharing_patients: Annotated[Whole, Field(ge=0)] = 10

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
    jpeg_quality: Annotated[Whole, Field(ge=1, le=100)] | Literal["lossless"] = 95
    bits: Bits | Literal["auto"] = "auto"
    least_levels: Annotated[Whole, Field(ge=2, le=256)] = 32
    least_side_px: Count = 32
    most_aspect: Annotated[Real, Field(ge=1)] = 4.0
    shards: Annotated[Whole, Field(ge=1, le=99_999)] = 256
    together_px: Annotated[list[Pixels], Distinct] | None = None
    upscale: Literal["allow", "exclude"] = "allow"
    max_unreadable_fraction: Fraction = 0.001

    @model_validator(mode="after")
    def _dct_needs_jpeg(self) -> Self:
        if self.filter == "dct" and self.jpeg_quality == "lossless":
            raise ValueError("filter dct decodes JPEG in part: choose another filter for a lossless store")
        return self

    @model_validator(mode="after")
    def _together_is_below_the_base(self) -> Self:
        if wrong := [r for r in self.together_px or [] if r >= self.base_resolution_px]:
            raise ValueError(
                f"store.together_px holds {wrong[0]}, but only resolutions below store.base_resolution_px "
                f"{self.base_resolution_px} are made from the base; remove it, or set together_px to null"
            )
        return self

    def accepted(self) -> dict[str, Any]:
        """Which native pictures are used and how they become 8 bits: the fields of store.pixels.Accepted."""
        return {key: getattr(self, key) for key in ("bits", "least_levels", "least_side_px", "most_aspect")}


class TimmTag(Section):
    timm_tag: Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class LocalWeights(Section):
    file: Annotated[Text, AfterValidator(_no_wildcards)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class Model(Section):
    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_]+$", max_length=100)]
    weights: TimmTag | LocalWeights | None = None


class LearnerSettings(Section):
    """What a learner's weights depend on; `training.overrides` may change these for some learners."""

    epochs: Count = 30
    batch_images: Count = 64
    normalisation: Literal["groups", "frozen", "synchronised", "per_micro_batch"] = "groups"
    norm_group_images: Count = 8
    optimiser: Literal["adam", "adamw"] = "adam"
    learning_rate: Annotated[Real, Field(ge=1e-9, le=10)] = 5e-4
    weight_decay: Annotated[Real, Field(ge=0, le=10)] = 0.0
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    warmup_epochs: Annotated[Real, Field(ge=0)] = 0.0
    plateau_epochs: Count = 3
    plateau_factor: OpenFraction = 0.1
    early_stopping_epochs: Count | None = None
    clip_norm: Annotated[Real, Field(ge=1e-6, le=1e6)] | None = None
    average_decay: OpenFraction | None = None
    label_smoothing: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    positive_weights: Literal["none", "balanced"] = "none"
    flip_probability: Fraction = 0.5
    rotation_degrees: Annotated[Real, Field(ge=0, le=180)] = 15.0
    mean: Fraction = 0.449
    standard_deviation: Annotated[Real, Field(ge=1e-3, le=10)] = 0.226
    precision: Literal["bfloat16", "float32"] = "bfloat16"

    @model_validator(mode="after")
    def _groups_fill_the_batch(self) -> Self:
        if self.normalisation == "groups" and self.batch_images % self.norm_group_images:
            raise ValueError(
                f"batch_images ({self.batch_images}) must be a multiple of norm_group_images ({self.norm_group_images})"
            )
        return self

    @model_validator(mode="after")
    def _everything_can_happen(self) -> Self:
        """What waits for epochs must be able to happen before the last one, else it is without effect."""
        most = self.epochs - 2  # so old is the best epoch, at most, when there is an epoch left
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs ({self.warmup_epochs:g}) leaves nothing of epochs ({self.epochs}); expected less"
            )
        if self.early_stopping_epochs is not None and self.early_stopping_epochs > most:
            raise ValueError(
                f"early_stopping_epochs ({self.early_stopping_epochs}) can stop nothing in {self.epochs} epochs; "
                f"expected at most epochs - 2 ({most}), or null"
            )
        if self.schedule == "plateau" and self.plateau_epochs > most:
            raise ValueError(
                f"plateau_epochs ({self.plateau_epochs}) can lower no learning rate in {self.epochs} epochs; expected "
                f"at most epochs - 2 ({most}), or another schedule than plateau"
            )
        stop = self.early_stopping_epochs
        if self.schedule == "plateau" and stop is not None and stop <= self.plateau_epochs:
            raise ValueError(
                f"early_stopping_epochs ({stop}) stops before plateau_epochs "
                f"({self.plateau_epochs}) can lower the learning rate; expected more than plateau_epochs"
            )
        return self


class TrainingOverride(Section):
    model: str | None = None
    resolution_px: Pixels | None = None
    settings: dict[str, Any]

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.model is None and self.resolution_px is None:
            raise ValueError("names neither model nor resolution_px; what holds for every learner goes into training")
        if not self.settings:
            raise ValueError("settings is empty; give the settings that differ, or remove the override")
        for key in self.settings:
            if key not in LearnerSettings.model_fields:
                choices = ", ".join(LearnerSettings.model_fields)
                raise ValueError(
                    f"settings: {key!r} is no setting of a learner{nearest(key, LearnerSettings.model_fields)}; "
                    f"expected one of {choices}"
                )
        return self

    def names(self, model: str, resolution_px: int) -> bool:
        return self.model in (None, model) and self.resolution_px in (None, int(resolution_px))

    def described(self) -> str:
        """Whom it names, for messages."""
        return " at ".join(
            filter(None, [self.model or "every model", f"{self.resolution_px} px" if self.resolution_px else None])
        )


#: Settings that count with one value of another alone: (setting, other setting, its value).
DORMANT = (
    ("norm_group_images", "normalisation", "groups"),
    ("plateau_epochs", "schedule", "plateau"),
    ("plateau_factor", "schedule", "plateau"),
)


class Training(LearnerSettings):
    overrides: Annotated[list[TrainingOverride], Distinct] = []
    gpus: Count = 1
    nodes: Count = 1
    micro_batch_images: Count | Literal["auto"] = "auto"
    recompute: bool | Literal["auto"] = "auto"
    compile: bool = False
    channels_last: bool | Literal["auto"] = "auto"
    workers: Annotated[Whole, Field(ge=0, le=1000)] = 4
    checkpoint_s: Count = 600
    stage_dir: Text | None = None

    @field_validator("stage_dir")
    @classmethod
    def _is_a_folder(cls, folder: str | None) -> str | None:
        if folder is not None and folder.casefold() == "none":
            raise ValueError(f"is the text {folder!r}; write null for no folder, or ./{folder} for one of that name")
        return folder

    def settings_of(self, model: str, resolution_px: int) -> LearnerSettings:
        """A learner's settings: the overrides that name it laid over the others in order.

        Raises ValueError that names the learner if it could not be trained with them.
        """
        return self._with(self.overrides, model, resolution_px)

    def _with(self, overrides: Iterable[TrainingOverride], model: str, resolution_px: int) -> LearnerSettings:
        values = self.model_dump(include=set(LearnerSettings.model_fields))
        for override in overrides:
            if override.names(model, resolution_px):
                values |= override.settings
        try:
            return LearnerSettings.model_validate(values)
        except ValidationError as error:
            wrong = "; ".join(line.strip() for line in _explain(error))
            raise ValueError(f"training.overrides: with them {model} at {resolution_px} px has {wrong}") from None

    def _has(self, overrides: Iterable[TrainingOverride], model: str, resolution_px: int) -> LearnerSettings | None:
        """As `_with`; None where the learner could not be trained."""
        try:
            return self._with(overrides, model, resolution_px)
        except ValueError:
            return None

    def of_learner(self, model: str, resolution_px: int) -> dict[str, Any]:
        """What the weights of a learner depend on: its settings, and micro_batch_images where it counts as one.

        Those at their default are left out, so that a setting that is added later changes no learner that exists;
        `training.TrainingSettings` has the same defaults.
        """
        settings = self.settings_of(model, resolution_px)
        given = settings.model_dump(mode="json", exclude_defaults=True)
        if settings.normalisation == "per_micro_batch":
            given["micro_batch_images"] = self.micro_batch_images
        return given

    def check_learners(self, learners: Iterable[tuple[str, int]]) -> None:
        """Raise ValueError if a (model, resolution) cannot be trained, or if an override changes none of them."""
        learners = list(learners)
        settings = [self.settings_of(*learner) for learner in learners]
        for learner, has in zip(learners, settings, strict=True):
            if has.normalisation == "per_micro_batch" and self.micro_batch_images == "auto":
                raise ValueError(
                    f"training: normalisation per_micro_batch, of {learner[0]} at {learner[1]} px, makes "
                    "micro_batch_images a setting: give a number"
                )
        for place, override in enumerate(self.overrides):
            where = f"training.overrides.{place} ({override.described()})"
            others = [o for i, o in enumerate(self.overrides) if i != place]
            if all(self._has(others, *x) == has for x, has in zip(learners, settings, strict=True)):
                raise ValueError(
                    f"{where} changes nothing: its learners have these values without it, or a later override hides "
                    "them; remove it, or correct its settings"
                )
            named = [has for x, has in zip(learners, settings, strict=True) if override.names(*x)]
            for key, other, value in DORMANT:
                if key in override.settings and all(getattr(has, other) != value for has in named):
                    raise ValueError(
                        f"{where} sets {key}, which counts with {other} {value} alone; its learners have "
                        f"{getattr(named[0], other)}. Remove {key}, or set {other} too"
                    )


class Evaluation(Section):
    replicates: Annotated[Whole, Field(ge=100, le=1_000_000)] = 2000
    confidence: Confidence = 0.95
    seed: Seed = 0
    calibration_bins: Annotated[Whole, Field(ge=2, le=10_000)] = 15
    specificity: OpenFraction = 0.9
    groups: Annotated[list[Column], Distinct] = ["view"]
    subgroups: Text | None = None

    @model_validator(mode="after")
    def _groups_have_a_source(self) -> Self:
        other = [c for c in self.groups if c != "view"]
        if self.subgroups is None and other:
            raise ValueError(f"groups holds {other[0]!r}; without a file in subgroups, expected view alone")
        if self.subgroups is not None and not other:
            raise ValueError(
                f"subgroups is {self.subgroups!r}, but groups names no column of it; add its columns, or set it to null"
            )
        return self


class Comparison(Section):
    reference_px: Pixels | None = None
    margin_auroc: OpenFraction = 0.01
    native_at_least_px: Pixels | None = None
    joint_confidence: Confidence = 0.99
    least_patients: Count = 30


class Stacking(Section):
    tolerance: Annotated[Real, Field(ge=1e-12, le=1e-2)] = 1e-8
    weight_replicates: Annotated[Whole, Field(ge=100, le=1_000_000)] = 200


class Erf(Section):
    images: Count = 64


class Cam(Section):
    images_per_finding: Count = 2
    method: Literal["auto", "gradcam", "gradcam++", "layercam"] = "auto"
    boxes: Text | None = None
    localisation_images: Count = 500
    box_sizes: Annotated[list[OpenFraction], Field(min_length=2, max_length=2), Distinct] = [0.02, 0.1]

    @field_validator("box_sizes")
    @classmethod
    def _ascending(cls, values: list[float]) -> list[float]:
        if values[0] >= values[1]:
            raise ValueError(f"must ascend: {values[0]:g} is not below {values[1]:g}")
        return values


class Report(Section):
    title: Text = "Effect of image resolution on automated classification of chest X-rays"
    findings: Annotated[list[Finding], Distinct] | None = None
    patient_pictures: bool = False

    @field_validator("findings")
    @classmethod
    def _some_findings(cls, findings: list[str] | None) -> list[str] | None:
        if findings is not None and not findings:
            raise ValueError("is empty, so nothing would be shown; expected findings of the study, or null for all")
        return findings


class StudyConfig(Section):
    """The whole study; `load` is the way to make one."""

    study: Name = "mimic-resolution"
    accelerator: Literal["cuda", "cpu"] = "cuda"
    dataset: Dataset = Dataset()
    findings: Annotated[list[Finding], Field(min_length=1), Distinct] | None = list(CHEXPERT_FINDINGS)
    labels: Labels = Labels()
    split: Split = Split()
    store: Store = Store()
    resolutions_px: Annotated[list[Pixels], Field(min_length=1), Distinct] = [2048, 1024, 512, 256]
    models: Annotated[list[Model], Field(min_length=1), Distinct] = [
        Model(name="densenet121", weights=TimmTag(timm_tag="tv_in1k")),
        Model(name="efficientnet_b4", weights=TimmTag(timm_tag="ra2_in1k")),
    ]
    seeds: Annotated[list[Seed], Field(min_length=1), Distinct] = [0]
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    comparison: Comparison = Comparison()
    stacking: Stacking = Stacking()
    erf: Erf = Erf()
    cam: Cam = Cam()
    report: Report = Report()

    @field_validator("study")
    @classmethod
    def _folder_is_its_own(cls, study: str) -> str:
        if study.casefold() in SHARED_FOLDERS:
            raise ValueError(
                f"is {study!r}, but {RESULTS}/{study.casefold()} is shared by all studies; choose another name than "
                f"{', '.join(SHARED_FOLDERS)}"
            )
        return study

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
        return self

    @model_validator(mode="after")
    def _findings_are_named(self) -> Self:
        of_mimic = self.dataset.format == "mimic-cxr-jpg"
        if self.findings is not None and of_mimic:
            for finding in self.findings:
                _one_of("findings holds", finding, CHEXPERT_FINDINGS)
        choices = self.findings if self.findings is not None else CHEXPERT_FINDINGS if of_mimic else None
        if choices is not None:
            for key, named in (
                ("labels.per_finding", self.labels.per_finding),
                ("report.findings", self.report.findings),
            ):
                for finding in named or []:
                    _one_of(f"{key} holds", finding, choices)
        return self

    @model_validator(mode="after")
    def _labels_exist(self) -> Self:
        labels, made = self.labels, self.dataset.synthetic is not None
        if self.dataset.format != "mimic-cxr-jpg":
            for key, value, only in (
                ("source", labels.source, "chexpert"),
                ("test_source", labels.test_source, "same"),
            ):
                if value != only:
                    raise ValueError(
                        f"labels.{key} is {value}, which is a file of MIMIC-CXR-JPG; with dataset.format "
                        f"{self.dataset.format} remove labels.{key}"
                    )
        if labels.test_source == "radiologist" and made:
            raise ValueError(
                "labels.test_source is radiologist, but dataset.synthetic makes no labels of his; set it to same"
            )
        if labels.test_source == "radiologist" and self.split.method != "official":
            raise ValueError(
                f"labels.test_source is radiologist, but split.method is {self.split.method}: the studies that he read "
                "are those of the official test split and would lie in all splits. Set split.method to official, or "
                "labels.test_source to same"
            )
        return self

    @model_validator(mode="after")
    def _data_lie_apart(self) -> Self:
        root = Path(os.path.abspath(self.dataset.root))  # noqa: PTH100 (resolve would follow links)
        for name in (self.study, *SHARED_FOLDERS[:-1]):
            folder = Path(os.path.abspath(RESULTS)) / name  # noqa: PTH100
            if root.is_relative_to(folder):
                raise ValueError(
                    f"dataset.root is {self.dataset.root}, inside {RESULTS}/{name}, where results go; "
                    f"put the data elsewhere, below {RESULTS}/{SHARED_FOLDERS[-1]} if they are made here"
                )
        return self

    @model_validator(mode="after")
    def _overrides_name_learners(self) -> Self:
        names = [m.name for m in self.models]
        for place, override in enumerate(self.training.overrides):
            if override.model is not None:
                _one_of(f"training.overrides.{place}.model is", override.model, names, "models")
            if override.resolution_px is not None:
                _one_of(
                    f"training.overrides.{place}.resolution_px is", override.resolution_px, self.resolutions_px,
                    "resolutions_px",
                )  # fmt: skip
        self.training.check_learners((name, r) for name in names for r in self.resolutions_px)
        return self

    @model_validator(mode="after")
    def _intervals_can_be_told(self) -> Self:
        evaluation = self.evaluation
        pairs = (
            ("evaluation.replicates", evaluation.replicates, "evaluation.confidence", evaluation.confidence),
            ("evaluation.replicates", evaluation.replicates, "comparison.joint_confidence",
             self.comparison.joint_confidence),
            ("stacking.weight_replicates", self.stacking.weight_replicates, "evaluation.confidence",
             evaluation.confidence),
        )  # fmt: skip
        for key, replicates, other, confidence in pairs:
            if replicates * (1 - confidence) < 1 - 1e-9:
                raise ValueError(
                    f"{key} is {replicates}: too few for {other} {confidence:g}, whose ends would lie beyond all of "
                    f"them; expected at least {1 / (1 - confidence):.0f}"
                )
        return self

    @model_validator(mode="after")
    def _native_sizes_leave_some_out(self) -> Self:
        least = self.comparison.native_at_least_px
        if self.store.upscale == "exclude" and least is not None and least <= max(self.resolutions_px):
            raise ValueError(
                f"comparison.native_at_least_px is {least}, but with store.upscale exclude all images are at least "
                f"{max(self.resolutions_px)} px already; set it to null, or to more"
            )
        return self

    @property
    def reference_px(self) -> int:
        """The resolution that others are held against: the one named, else the largest."""
        return self.comparison.reference_px or max(self.resolutions_px)

    def together_px(self) -> list[int]:
        """Smaller resolutions that are made from one reading of the base; the others are made alone."""
        named = self.store.together_px
        return [r for r in (TOGETHER_PX if named is None else named) if r < self.store.base_resolution_px]

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
        if self.dataset.ids == "exact":
            settings["ids"] = "exact"
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


def _one_of(found: str, value: Any, choices: Iterable[Any], key: str = "") -> None:
    """Raise ValueError if a value is none of the choices. found: words before the value; key: where choices stand."""
    choices = list(choices)
    if value not in choices:
        named = f"{key} {choices}" if key else str(choices)
        raise ValueError(f"{found} {value!r}{nearest(value, choices)}; expected one of {named}")


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
                f"{nearest(model.name, sorted(known))}. Any name of timm.list_models() works."
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
        # Pydantic names the members of a union by the functions that check them, and says that a key is wrong.
        where = [p for p in map(str, problem["loc"]) if not p.startswith("function-") and p != "[key]"]
        key = ".".join(where)
        if problem["type"] == "extra_forbidden":
            choices = _keys_at(where[:-1])
            expected = f"; expected one of {', '.join(choices)}" if choices else ""
            lines.append(f"  {key}: unknown key{nearest(where[-1], choices)}{expected}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            got = "" if problem["type"] in ("value_error", "missing") else f" (got {problem['input']!r})"
            lines.append(f"  {key}: {message}{got}" if key else f"  {message}{got}")
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
