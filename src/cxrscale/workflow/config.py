"""The study's configuration: the sections of all stages, what must hold between them, and how it is read.

A setting is declared once, in the `settings` module of its stage; config.yaml, docs/config.md and config/schema.json
are written from there (`config_page`). The defaults are the paper's protocol on MIMIC-CXR-JPG (Haque et al. 2023,
doi:10.1117/1.JMI.10.4.044503), controlled as docs/protocol.md says. Unknown keys are errors, so that a misspelt one
cannot pass; so are numbers that are not finite, lists that hold a value twice, and settings that contradict each other
or can have no effect. Imports no torch.
"""

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ValidationError

from cxrscale.combine.settings import StackingSection
from cxrscale.common.errors import StudyError, nearest
from cxrscale.common.places import DATA, RESULTS, SHARED_FOLDERS
from cxrscale.common.provenance import digest
from cxrscale.common.settings import Check, Distinct, Name, Pixels, Range, Section, Seed, chosen, names_of
from cxrscale.data import formats
from cxrscale.data.findings import CHEXPERT_FINDINGS, Finding
from cxrscale.data.settings import DatasetSettings, LabelSettings, SplitSettings, one_of
from cxrscale.evaluate.settings import ComparisonSection, EvaluationSettings
from cxrscale.explain.settings import CamSettings, ErfSettings
from cxrscale.report.settings import ReportSection
from cxrscale.store.settings import StoreSettings
from cxrscale.workflow.networks import Model, TimmTag, TrainingPlan
from cxrscale.workflow.validation import adapter, explain, with_nulls

#: Smaller resolutions that are made from one reading of the base, unless the config names others.
TOGETHER_PX = (1024, 512, 256)


def _own_folder(study: str) -> str:
    if study.casefold() in SHARED_FOLDERS:
        raise ValueError(
            f"is {study!r}, but {RESULTS}/{study.casefold()} is shared by all studies; choose another name than "
            f"{', '.join(SHARED_FOLDERS)}"
        )
    return study


def _default_models() -> list[Model]:
    return [
        Model(name="densenet121", weights=TimmTag(timm_tag="tv_in1k")),
        Model(name="efficientnet_b4", weights=TimmTag(timm_tag="ra2_in1k")),
    ]


@dataclass(frozen=True)
class StudyConfig(Section):
    """The whole study; `load` is the way to make one."""

    study: Annotated[Name, Check(_own_folder)] = "mimic-resolution"
    """results go to results/<study>; not stores, data or weights, which studies share"""
    accelerator: Literal["cuda", "cpu"] = "cuda"
    """cuda | cpu; where it runs, no part of any result's identity"""
    dataset: DatasetSettings = field(default_factory=DatasetSettings)
    findings: Annotated[list[Finding], Range(min_length=1), Distinct] | None = field(
        default_factory=lambda: list(CHEXPERT_FINDINGS)
    )
    """null: all that the data set has"""
    labels: LabelSettings = field(default_factory=LabelSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    resolutions_px: Annotated[list[Pixels], Range(min_length=1), Distinct] = field(
        default_factory=lambda: [2048, 1024, 512, 256]
    )
    """sides of the learners' inputs, none above store.base_resolution_px"""
    models: Annotated[list[Model], Range(min_length=1), Distinct] = field(default_factory=_default_models)
    """any timm model, with its initial weights"""
    seeds: Annotated[list[Seed], Range(min_length=1), Distinct] = field(default_factory=lambda: [0])
    """one learner a seed; a verdict about resolution needs several"""
    training: TrainingPlan = field(default_factory=TrainingPlan)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    comparison: ComparisonSection = field(default_factory=ComparisonSection)
    stacking: StackingSection = field(default_factory=StackingSection)
    erf: ErfSettings = field(default_factory=ErfSettings)
    cam: CamSettings = field(default_factory=CamSettings)
    report: ReportSection = field(default_factory=ReportSection)

    def __post_init__(self) -> None:
        for check in CHECKS:
            check(self)

    def plain(self) -> dict[str, Any]:
        """All settings as plain values: defaults too, and what the data set's format chooses."""
        plain = asdict(self)
        plain["dataset"]["options"] = asdict(self.chosen.options)
        plain["labels"]["source"] = self.chosen.label_source
        return plain

    @cached_property
    def format(self) -> formats.Format:
        return formats.named(self.dataset.format)

    @cached_property
    def chosen(self) -> formats.Chosen:
        """What the study chose of its data set's format."""
        options = adapter(self.format.options).validate_python(self.dataset.options)
        source = self.labels.source or self.format.label_sources[0]
        return formats.Chosen(options, source, self.labels.test_source)

    @property
    def file_groups(self) -> list[str]:
        """The columns of evaluation.groups that the file evaluation.subgroups holds."""
        return [c for c in self.evaluation.groups if c not in ("view", *self.format.groups)]

    @property
    def format_groups(self) -> list[str]:
        """The columns of evaluation.groups that the data set itself holds, beside the view."""
        return [c for c in self.evaluation.groups if c in self.format.groups]

    @property
    def boxes_file(self) -> str:
        """The csv file of boxes: that of cam.boxes, or the format's own where there is one; "" without."""
        root = Path(self.dataset.root)
        if self.cam.boxes is not None:
            return str(root / self.cam.boxes)
        own = root / self.format.boxes if self.format.boxes else None
        return str(own) if own is not None and own.is_file() else ""

    @property
    def gpu(self) -> int:
        """GPUs of a job that uses one learner."""
        return 1 if self.accelerator == "cuda" else 0

    @property
    def reference_px(self) -> int:
        """The resolution that others are held against: the one named, else the largest."""
        return self.comparison.reference_px or max(self.resolutions_px)

    @property
    def native_at_least_px(self) -> int:
        """All resolutions see the same images: with store.upscale "exclude" none that the largest would enlarge."""
        return max(self.resolutions_px) if self.store.upscale == "exclude" else 0

    def comparison_settings(self) -> dict[str, Any]:
        """The fields of ComparisonSettings."""
        own = chosen(self.comparison, *names_of(ComparisonSection))
        named = {"reference_px": self.reference_px, "native_at_least_px": self.comparison.native_at_least_px or 0}
        return self.evaluation.bootstrap() | own | named

    def stacking_settings(self) -> dict[str, Any]:
        """The fields of StackingSettings."""
        own = chosen(self.stacking, *names_of(StackingSection))
        return self.evaluation.bootstrap() | own | chosen(self.comparison, "least_patients")

    def together_px(self) -> list[int]:
        """Smaller resolutions that are made from one reading of the base; the others are made alone."""
        named = self.store.together_px
        return [r for r in (TOGETHER_PX if named is None else named) if r < self.store.base_resolution_px]

    def store_settings(self) -> dict[str, Any]:
        """What the pixels of the store depend on, and which images it holds."""
        settings = self.store.named_by()
        if self.dataset.synthetic is not None:
            settings["synthetic"] = self.dataset.synthetic.given()
        if self.dataset.exact_ids:
            settings["ids"] = "exact"
        return settings | {"format": self.dataset.format}

    def store_name(self) -> str:
        """Folder of the store below results/stores: two studies with the same settings share it."""
        return f"{self.dataset.name}-{digest(self.store_settings())[:8]}"


def _format_is_known(study: StudyConfig) -> None:
    dataset, labels = study.dataset, study.labels
    one_of("dataset.format is", dataset.format, formats.formats())
    known = study.format.option_names
    for name in dataset.options:
        if name not in known:
            others = [f.name for f in formats.formats().values() if name in f.option_names]
            belongs = f"; it is one of dataset.format {' and '.join(others)}" if others else ""
            raise ValueError(
                f"dataset.options.{name} is no option of dataset.format {dataset.format}{nearest(name, known)}{belongs}"
                f"; expected {'one of ' + ', '.join(known) if known else 'none'}"
            )
    try:
        adapter(study.format.options).validate_python(dataset.options)
    except ValidationError as error:
        wrong = "; ".join(f"dataset.options.{line.strip()}" for line in explain(error, study.format.options))
        raise ValueError(wrong) from None
    if dataset.synthetic is not None and not study.format.synthetic:
        layout = next(f.name for f in formats.formats().values() if f.synthetic)
        raise ValueError(f"dataset.synthetic is written in another layout: format must be {layout}")
    for key, value, choices in (
        ("source", labels.source, study.format.label_sources),
        ("test_source", labels.test_source, study.format.test_sources),
    ):
        if value is not None and value not in choices:
            raise ValueError(
                f"labels.{key} is {value}, which dataset.format {dataset.format} does not have{nearest(value, choices)}"
                f"; expected {' or '.join(choices)}, or remove labels.{key}"
            )


def _boxes_are_one_table(study: StudyConfig) -> None:
    if study.dataset.synthetic is not None and study.cam.boxes is not None:
        raise ValueError("cam.boxes: a synthetic data set brings its own boxes; leave it null")


def _resolutions_fit(study: StudyConfig) -> None:
    base = study.store.base_resolution_px
    if above := [r for r in study.resolutions_px if r > base]:
        growth = (above[0] / base) ** 2
        raise ValueError(
            f"resolutions_px holds {above[0]}, above store.base_resolution_px {base}: it would show nothing that "
            f"the base lacks. Raising the base to {above[0]} reads every native file again and takes about "
            f"{growth:.1f} times the disk; else remove {above[0]}"
        )
    reference = study.comparison.reference_px
    if reference is not None and reference not in study.resolutions_px:
        raise ValueError(
            f"comparison.reference_px is {reference}; expected one of resolutions_px {study.resolutions_px}"
        )


def _findings_are_named(study: StudyConfig) -> None:
    known = study.format.findings
    if study.findings is not None and known is not None:
        for finding in study.findings:
            one_of("findings holds", finding, known)
    choices = study.findings if study.findings is not None else known
    if choices is not None:
        for key, named in (
            ("labels.per_finding", study.labels.per_finding),
            ("report.findings", study.report.findings),
        ):
            for finding in named or []:
                one_of(f"{key} holds", finding, choices)


def _test_labels_exist(study: StudyConfig) -> None:
    source = study.labels.test_source
    if source == "same":
        return
    if study.dataset.synthetic is not None:
        raise ValueError(
            f"labels.test_source is {source}, but dataset.synthetic makes no labels of his; set it to same"
        )
    if study.split.method != "official":
        raise ValueError(
            f"labels.test_source is {source}, but split.method is {study.split.method}: the examinations that he read "
            "are those of the official test split and would lie in all splits. Set split.method to official, or "
            "labels.test_source to same"
        )


def _split_is_published(study: StudyConfig) -> None:
    if study.split.method == "official" and study.format.official_split == "never":
        raise ValueError(
            f"split.method is official, but dataset.format {study.dataset.format} has no published split; set it to "
            "kfold"
        )


def _data_lie_apart(study: StudyConfig) -> None:
    root = Path(os.path.abspath(study.dataset.root))  # noqa: PTH100 (resolve would follow links)
    for name in (study.study, *(n for n in SHARED_FOLDERS if n != DATA)):
        folder = Path(os.path.abspath(RESULTS)) / name  # noqa: PTH100
        if root.is_relative_to(folder):
            raise ValueError(
                f"dataset.root is {study.dataset.root}, inside {RESULTS}/{name}, where results go; "
                f"put the data elsewhere, below {RESULTS}/{DATA} if they are made here"
            )


def _overrides_name_learners(study: StudyConfig) -> None:
    names = [m.name for m in study.models]
    for key in ("overrides", "gpus_for"):
        for place, some in enumerate(getattr(study.training, key)):
            where = f"training.{key}.{place}"
            if some.model is not None:
                one_of(f"{where}.model is", some.model, names, "models")
            if some.resolution_px is not None:
                one_of(f"{where}.resolution_px is", some.resolution_px, study.resolutions_px, "resolutions_px")
    study.training.check_learners((name, r) for name in names for r in study.resolutions_px)


def _groups_have_a_source(study: StudyConfig) -> None:
    evaluation, other = study.evaluation, study.file_groups
    if evaluation.subgroups is None and other:
        known = " or ".join(("view", *study.format.groups))
        raise ValueError(f"evaluation: groups holds {other[0]!r}; without a file in subgroups, expected {known} alone")
    if evaluation.subgroups is not None and not other:
        raise ValueError(
            f"evaluation: subgroups is {evaluation.subgroups!r}, but groups names no column of it; add its columns, or "
            "set it to null"
        )


def _intervals_can_be_told(study: StudyConfig) -> None:
    evaluation, joint = study.evaluation, study.comparison.joint_confidence
    confidence = ("evaluation.confidence", evaluation.confidence)
    for (key, replicates), (other, wanted) in (
        (("evaluation.replicates", evaluation.replicates), confidence),
        (("evaluation.replicates", evaluation.replicates), ("comparison.joint_confidence", joint)),
        (("stacking.scale_weight_replicates", study.stacking.scale_weight_replicates), confidence),
    ):
        if replicates * (1 - wanted) < 1 - 1e-9:
            raise ValueError(
                f"{key} is {replicates}: too few for {other} {wanted:g}, whose ends would lie beyond all of "
                f"them; expected at least {1 / (1 - wanted):.0f}"
            )


def _native_sizes_leave_some_out(study: StudyConfig) -> None:
    least = study.comparison.native_at_least_px
    if study.store.upscale == "exclude" and least is not None and least <= max(study.resolutions_px):
        raise ValueError(
            f"comparison.native_at_least_px is {least}, but with store.upscale exclude all images are at least "
            f"{max(study.resolutions_px)} px already; set it to null, or to more"
        )


#: What must hold between sections.
CHECKS = (
    _format_is_known,
    _boxes_are_one_table,
    _resolutions_fit,
    _findings_are_named,
    _test_labels_exist,
    _split_is_published,
    _data_lie_apart,
    _overrides_name_learners,
    _groups_have_a_source,
    _intervals_can_be_told,
    _native_sizes_leave_some_out,
)


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


def load(raw: Mapping[str, Any]) -> StudyConfig:
    """Check a configuration and fill in defaults.

    raw: what YAML gave; values within lists and mappings of `--config` come as text and are converted.
    Raises StudyError whose lines name each wrong key, the value and what was expected.
    """
    try:
        study: StudyConfig = adapter(StudyConfig).validate_python(with_nulls(dict(raw)))
    except ValidationError as error:
        raise StudyError("the configuration is not usable:\n" + "\n".join(explain(error, StudyConfig))) from None
    known = timm_model_names()
    for model in study.models:
        if known and model.name not in known:
            raise StudyError(
                f"the configuration is not usable:\n  models: timm knows no model {model.name!r}"
                f"{nearest(model.name, sorted(known))}. Any name of timm.list_models() works."
            )
    return study
