"""Settings of stage data: the data set, its labels, and how patients are split."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from cxrscale.common.errors import nearest
from cxrscale.common.settings import (
    Check,
    Distinct,
    Fraction,
    Name,
    OpenFraction,
    Pixels,
    Range,
    Real,
    Section,
    Seed,
    Text,
    Trimmed,
    Whole,
    chosen,
    not_empty,
)
from cxrscale.data.findings import CHEXPERT_FINDINGS, Finding

Pattern = Literal["grating", "line", "heart", "effusion", "relation", "any", "none"]
Uncertain = Literal["zeros", "ones", "ignore"]
Missing = Literal["negative", "ignore"]


@dataclass(frozen=True)
class Planted(Section):
    """How one finding of a synthetic data set is drawn."""

    pattern: Pattern
    """grating: a round patch of parallel stripes; line: a few long parallel stripes; heart: a wider heart, brighter by
    the contrast; effusion: the foot of one lung filled; relation: a blob at the top of one side and one at the foot of
    the other, in every image, each darker or brighter than its surroundings, alike where the finding is present and
    opposite where not, so that neither alone says anything; any: nothing of its own, present where one of includes is;
    none: labels without any signal"""
    wavelength: Annotated[Real, Range(ge=0, le=1)] = 0.0
    """distance of the stripes as a fraction of the width; of grating and line alone"""
    contrast: Fraction = 0.0
    """amplitude, as a fraction of the grey range"""
    prevalence: OpenFraction = 0.35
    """share of the examinations (study_id) that have it; without meaning for any"""
    includes: Annotated[list[Finding], Distinct] = field(default_factory=list)
    """findings that any is made of, as lung opacity has edema and lesion below it in the hierarchy of CheXpert's
    labels: evidence that may lie at several scales"""

    def __post_init__(self) -> None:
        if (self.pattern == "any") != bool(self.includes):
            raise ValueError("includes names the findings that the pattern 'any' is made of, and belongs to it alone")
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


def one_of(found: str, value: Any, choices: Any, key: str = "") -> None:
    """Raise ValueError if a value is none of the choices. found: words before the value; key: where choices stand."""
    choices = list(choices)
    if value not in choices:
        named = f"{key} {choices}" if key else str(choices)
        raise ValueError(f"{found} {value!r}{nearest(value, choices)}; expected one of {named}")


def _drawn(planted: dict[str, Planted]) -> dict[str, Planted]:
    for finding, how in planted.items():
        one_of("holds", finding, CHEXPERT_FINDINGS)
        drawn = [f for f, other in planted.items() if other.pattern != "any"]
        for part in how.includes:
            one_of(f"{finding}.includes holds", part, drawn)
    return planted


#: The csv files of a synthetic data set, in MIMIC-CXR-JPG's names: metadata, splits, and the labels of each source.
SYNTHETIC_FILES = (
    "mimic-cxr-2.0.0-metadata.csv.gz",
    "mimic-cxr-2.0.0-split.csv.gz",
    "mimic-cxr-2.0.0-chexpert.csv.gz",
    "mimic-cxr-2.0.0-negbio.csv.gz",
)


@dataclass(frozen=True)
class SyntheticSettings(Section):
    """Size and content of a synthetic data set."""

    patients: Annotated[Whole, Range(ge=2, le=1_000_000)]
    """their number; each has 1 to 3 examinations (study_id) of 1 or 2 images"""
    rows_px: Pixels
    """native height of frontal images"""
    columns_px: Pixels
    """native width of frontal images"""
    planted: Annotated[dict[Finding, Planted], Range(min_length=1), Distinct, Check(_drawn)]
    """the findings, and how each is drawn"""
    seed: Seed = 0
    """of all that is drawn: the same settings give the same bytes"""
    uncertain: Fraction = 0.04
    """share of the labels turned into -1"""
    unmentioned: Fraction = 0.6
    """share of the absent findings left blank"""
    correlation: Annotated[Real, Range(ge=0, lt=1)] = 0.0
    """of the normal variables, one a finding and examination, whose lowest values are the findings present (a Gaussian
    copula); findings without signal are left out of it"""
    label_noise: Annotated[Real, Range(ge=0, lt=0.5)] = 0.0
    """share of the examinations of which a finding's label is the opposite of what was drawn; boxes.csv tells what was
    drawn"""

    def given(self) -> dict[str, Any]:
        """What the data set depends on; options at their default are left out, so that a later one changes nothing."""
        names = ("patients", "rows_px", "columns_px", "seed", "uncertain", "unmentioned", "planted")
        plain = chosen(self, *names) | {k: v for k, v in chosen(self, "correlation", "label_noise").items() if v}
        for how in plain["planted"].values():
            if not how["includes"]:
                del how["includes"]
        return plain


@dataclass(frozen=True)
class DatasetSettings(Section):
    """dataset: what is studied."""

    name: Name = "mimic-cxr-jpg"
    """names the store; use another name for another data set"""
    format: str = "mimic-cxr-jpg"
    """of its csv files; all are listed by python -m cxrscale.data.formats"""
    root: Text = "data/mimic-cxr-jpg"
    """folder with the csv files and, below it, pictures; absolute or relative to where snakemake runs"""
    options: dict[str, Any] = field(default_factory=dict)
    """of the format"""
    views: (
        Annotated[
            list[Trimmed], Distinct, not_empty("so no image would be used; expected the views to use, or null for all")
        ]
        | None
    ) = None
    """null: all, as in the paper; or a list: [AP, PA]; "" is "not recorded"; [] is an error"""
    ids: Literal["one_spelling", "exact"] = "one_spelling"
    """one_spelling: "p0 " is p0, and p0 beside P0 stops | exact: as they stand (docs/own-pictures.md)"""
    synthetic: SyntheticSettings | None = None
    """make the data set instead of reading one (config/demo.yaml)"""

    @property
    def exact_ids(self) -> bool:
        return self.ids == "exact"

    def __post_init__(self) -> None:
        if self.synthetic is not None and not {"{", "}"}.isdisjoint(self.root):
            raise ValueError(f"dataset.root is {self.root!r}; Snakemake would take braces for a wildcard: rename it")


@dataclass(frozen=True)
class LabelPolicy:
    """What uncertain and missing labels become.

    uncertain: "zeros" and "ones" make -1 a target; "ignore" masks it. missing: "negative" makes null a 0; "ignore"
    masks it.
    """

    uncertain: Uncertain = "zeros"
    missing: Missing = "negative"


@dataclass(frozen=True)
class PolicyOverride(Section):
    """The policy of one finding, where it differs."""

    uncertain: Uncertain | None = None
    """as labels.uncertain"""
    missing: Missing | None = None
    """as labels.missing"""

    def __post_init__(self) -> None:
        if self.uncertain is None and self.missing is None:
            raise ValueError("says nothing; give uncertain or missing, or remove the finding from labels.per_finding")


@dataclass(frozen=True)
class LabelSettings(Section):
    """labels: whose labels, and what becomes of those that are neither yes nor no."""

    source: str | None = None
    """whose labels, of those that the format has (negbio, say); null: its first"""
    test_source: str = "same"
    """same | radiologist, of mimic-cxr-jpg 2.1.0 with split.method official, for the examinations read"""
    unread: Literal["ignore", "keep"] = "ignore"
    """examinations of test that the radiologist did not read: ignore (masked) | keep their labels"""
    uncertain: Uncertain = "zeros"
    """-1 becomes: zeros (paper) | ones | ignore (masked)"""
    missing: Missing = "negative"
    """blank becomes: negative (paper) | ignore (masked)"""
    per_finding: Annotated[dict[Finding, PolicyOverride], Distinct] = field(default_factory=dict)
    """exceptions, e.g. {No Finding: {uncertain: ignore}}"""

    def policy(self) -> dict[str, Any]:
        """The default policy, and those of single findings where they differ."""
        return {
            "default": chosen(self, "uncertain", "missing"),
            "per_finding": {
                finding: {k: v for k, v in chosen(own, "uncertain", "missing").items() if v is not None}
                for finding, own in self.per_finding.items()
            },
        }


@dataclass(frozen=True)
class SplitSettings(Section):
    """split: how patients are split."""

    method: Literal["kfold", "official"] = "kfold"
    """kfold: by patient | official: the data set's own column"""
    folds: Annotated[Whole, Range(ge=2, le=1000)] = 10
    """number of folds"""
    use_folds: Annotated[list[Annotated[Whole, Range(ge=0)]], Range(min_length=1), Distinct] = field(
        default_factory=lambda: [0]
    )
    """which of them to run; the paper ran fold 0"""
    order: Literal["file", "shuffled"] = "file"
    """file: patients as the label file lists them (paper) | shuffled by seed"""
    seed: Seed = 0
    """of the shuffled order"""
    validate_fraction: OpenFraction = 0.1
    """of the patients outside test; picks the epoch"""
    combine_fraction: Annotated[Real, Range(ge=0, lt=1)] = 0.1
    """of the patients outside test; fits stacking. 0: validate serves as both, as in the paper"""
    most_sharing_patients: Annotated[Whole, Range(ge=0)] = 10
    """who have the same picture, byte by byte: so many are kept in one split, more stop the study"""

    def __post_init__(self) -> None:
        most = self.folds if self.method == "kfold" else 1
        if wrong := [fold for fold in self.use_folds if fold >= most]:
            raise ValueError(f"use_folds holds {wrong[0]}, but {self.method} has the folds 0 to {most - 1}")
        if self.validate_fraction + self.combine_fraction >= 1:
            raise ValueError("validate_fraction and combine_fraction leave nothing to train on")

    def of_patients(self) -> dict[str, Any]:
        """What the split of each fold depends on."""
        return chosen(self, "method", "folds", "order", "seed", "validate_fraction", "combine_fraction")


PATTERNS: tuple[str, ...] = get_args(Pattern)
