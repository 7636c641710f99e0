"""Findings, and the policy that turns raw labels into targets.

A raw label is 1 (present), 0 (absent), -1 (uncertain) or null (not mentioned). A target is 0 or 1 with a mask: 1 where
the target counts, 0 where it is ignored by loss and metrics.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from cxrscale.common.errors import StudyError, nearest
from cxrscale.common.tables import Column, Table

#: In the order of MIMIC-CXR-JPG's label files (Johnson et al. 2019, arXiv:1901.07042).
CHEXPERT_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)

#: The source of a label that a radiologist gave, in the column source of the labels.
RADIOLOGIST = "radiologist"

#: Names that mean something else where a finding's name may stand: columns of csv files, rows of results, the report's
#: label of the mean. Nor may a name begin with "(": so do the rows that stand for no finding, as "(mean)".
RESERVED_NAMES = (
    "all",
    "image_id",
    "mean of all findings",
    "path",
    "split",
    "study_id",
    "subject_id",
    "view",
)

TARGETS = Table(
    name="targets",
    row="an image that a fold uses",
    columns=(
        Column("image_id", "text", "the image"),
        Column("subject_id", "text", "the patient; no patient is in two splits"),
        Column("study_id", "text", "the study (one examination, one or more images)"),
        Column("view", "text", "projection as the data set names it", null="not recorded"),
        Column("split", "text", "train, validate, combine or test"),
    ),
    key=("image_id",),
    per_finding=(
        Column("target:{finding}", "int8", "1 present, 0 absent; 0 where the mask is 0"),
        Column("mask:{finding}", "int8", "1 the target counts, 0 it is ignored"),
    ),
)


def check_finding_name(name: str) -> str | None:
    """Why a finding may not have this name, with what to do; None if it may.

    The sentence names the name and no key: who asks puts the key, or the file and the column, before it.
    """
    if not name.strip():
        return f"{name!r} is blank; a finding needs a name"
    if name != name.strip():
        return f"{name!r} begins or ends with a blank; expected {name.strip()!r}"
    if not name.isprintable():
        return f"{name!r} holds a character that cannot be printed; remove it"
    if name.startswith("("):
        return f"{name!r} begins with a bracket, as rows do that stand for no finding; give the finding another name"
    if name.casefold() in RESERVED_NAMES:
        return f"{name!r} is a reserved name ({', '.join(RESERVED_NAMES)}); give the finding another one"
    return None


def check_named(named: Iterable[str], findings: Sequence[str], key: str) -> None:
    """Raise StudyError if a finding that a setting names is none of the study's. key: the setting."""
    for name in named:
        if name not in findings:
            hint = nearest(name, findings)
            raise StudyError(f"{key} names {name!r}{hint}, which is no finding of the study; it has {list(findings)}.")


@dataclass(frozen=True)
class LabelPolicy:
    """What uncertain and missing labels become.

    uncertain: "zeros" and "ones" make -1 a target; "ignore" masks it.
    missing: "negative" makes null a 0; "ignore" masks it.
    """

    uncertain: Literal["zeros", "ones", "ignore"] = "zeros"
    missing: Literal["negative", "ignore"] = "negative"


def apply_policy(raw: pd.Series, policy: LabelPolicy) -> tuple[np.ndarray, np.ndarray]:
    """Turn one finding's raw labels into targets and mask.

    raw: (image,) values 1, 0, -1 or null. Returns two int8 arrays (image,): target in {0, 1} and mask in {0, 1}.
    """
    values = raw.to_numpy(dtype="float64", na_value=np.nan)
    uncertain, missing = values == -1, np.isnan(values)
    target = np.where(uncertain, 1.0 if policy.uncertain == "ones" else 0.0, np.nan_to_num(values))
    ignored = np.zeros(len(values), dtype=bool)
    if policy.uncertain == "ignore":
        ignored |= uncertain
    if policy.missing == "ignore":
        ignored |= missing
    target[ignored] = 0
    return target.astype(np.int8), (~ignored).astype(np.int8)


def policies(
    findings: list[str], default: LabelPolicy, per_finding: Mapping[str, LabelPolicy]
) -> dict[str, LabelPolicy]:
    """The policy of each finding: its own where it has one, else the default."""
    return {f: per_finding.get(f, default) for f in findings}
