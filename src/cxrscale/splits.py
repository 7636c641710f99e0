"""Splits by patient, and the targets of a fold.

*train* fits the weights, *validate* picks the epoch, *combine* fits what comes after training (stacking, thresholds),
*test* is looked at once. A patient is in one of them only.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from cxrscale.errors import StudyError
from cxrscale.findings import LabelPolicy, apply_policy

logger = logging.getLogger(__name__)

SPLITS = ("train", "validate", "combine", "test")


@dataclass(frozen=True)
class SplitSettings:
    """How patients are split.

    method: "kfold" (by patient) or "official" (the data set's own column).
    folds: number of folds for kfold. order: "file" takes patients in the order of the label file, as the paper did;
    "shuffled" shuffles them by `seed` first.
    validate_fraction, combine_fraction: of the patients that are not in test (kfold) or in train (official and
    without such a split), taken from the end of that order. combine_fraction 0: combine is validate, as in the paper.
    """

    method: Literal["kfold", "official"] = "kfold"
    folds: int = 10
    order: Literal["file", "shuffled"] = "file"
    seed: int = 0
    validate_fraction: float = 0.1
    combine_fraction: float = 0.1


def split_patients(patients: Sequence[str], settings: SplitSettings, fold: int) -> dict[str, str]:
    """The split of each patient in one fold of a k-fold split.

    patients: unique, in file order. Folds are consecutive runs of that order whose sizes differ by one at most, the
    longer ones first (scikit-learn's KFold without shuffling). Returns patient -> train, validate, combine or test.
    Raises StudyError if a split would be empty.
    """
    ordered = _ordered(patients, settings)
    test = set(np.array_split(np.asarray(ordered, dtype=object), settings.folds)[fold])
    if not test:
        raise StudyError(
            f"split: {len(ordered)} patients cannot fill {settings.folds} folds; fold {fold} has no test patient. "
            f"Lower split.folds."
        )
    rest = [p for p in ordered if p not in test]
    return {**dict.fromkeys(test, "test"), **_divide(rest, settings)}


def _ordered(patients: Sequence[str], settings: SplitSettings) -> list[str]:
    if settings.order == "file":
        return list(patients)
    rng = np.random.default_rng(settings.seed)
    return [patients[i] for i in rng.permutation(len(patients))]


def _divide(rest: list[str], settings: SplitSettings, need: Sequence[str] = ("validate", "combine")) -> dict[str, str]:
    """Divide patients into train, then combine, then validate at the end of the order."""
    fractions = {"validate": settings.validate_fraction, "combine": settings.combine_fraction}
    counts = {s: round(fractions[s] * len(rest)) if s in need else 0 for s in fractions}
    train = len(rest) - counts["validate"] - counts["combine"]
    if train < 1 or ("validate" in need and counts["validate"] < 1):
        raise StudyError(
            f"split: {len(rest)} patients leave {train} for train and {counts['validate']} for validate; "
            f"each needs one at least. Change split.validate_fraction or split.combine_fraction."
        )
    names = ["train"] * train + ["combine"] * counts["combine"] + ["validate"] * counts["validate"]
    return dict(zip(rest, names, strict=True))


def official_split(images: pd.DataFrame, settings: SplitSettings) -> dict[str, str]:
    """The published split of each patient; what it lacks of validate and combine is taken from train.

    images: subject_id and official_split of each image, in file order. Raises StudyError if a patient is in two
    splits, an image has none or there is no test patient.
    """
    if images["official_split"].isna().any():
        image = images.loc[images["official_split"].isna(), "image_id"].iloc[0]
        raise StudyError(f"split.method is official, but image {image} has no published split. Use kfold.")
    pairs = images.drop_duplicates(["subject_id", "official_split"])
    twice = pairs["subject_id"].duplicated()
    if twice.any():
        patient = pairs.loc[twice, "subject_id"].iloc[0]
        names = sorted(pairs.loc[pairs["subject_id"] == patient, "official_split"])
        raise StudyError(
            f"patient {patient} is in the splits {' and '.join(names)}; a patient may be in one only. "
            f"Correct the split column or use split.method kfold."
        )
    published = dict(zip(pairs["subject_id"], pairs["official_split"], strict=True))
    if "test" not in published.values():
        raise StudyError("split.method is official, but no patient is in test. Use kfold.")
    need = [s for s in ("validate", "combine") if s not in published.values()]
    train = _ordered([p for p, s in published.items() if s == "train"], settings)
    return published | _divide(train, settings, need)


def build_targets(
    labels: pd.DataFrame,
    images: pd.DataFrame,
    findings: Sequence[str],
    policies: Mapping[str, LabelPolicy],
    views: Sequence[str] | None,
    settings: SplitSettings,
    fold: int,
) -> pd.DataFrame:
    """The targets of one fold, the columns of `findings.TARGETS`, in the order of `labels`.

    labels, images: the tables of those names. views: keep these only (None: all); "" stands for a view that is not
    recorded. The split is drawn before views are filtered, so that a view filter moves no patient.
    With combine_fraction 0 no row says combine: validate serves as both (see `combine_split`).
    Raises StudyError if nothing is left, a finding is unknown, or no finding can be used.
    """
    unknown = [f for f in findings if f"label:{f}" not in labels.columns]
    if unknown:
        known = [c.removeprefix("label:") for c in labels.columns if c.startswith("label:")]
        raise StudyError(f"findings: {unknown[0]!r} is not in the labels; they hold {', '.join(known)}.")
    table = labels.merge(images[["image_id", "view", "official_split"]], on="image_id", how="inner")
    if settings.method == "official":
        split = official_split(table, settings)
    else:
        split = split_patients(table["subject_id"].unique().tolist(), settings, fold)
    table["split"] = table["subject_id"].map(split)
    if views is not None:
        table = table[table["view"].fillna("").isin(list(views))].reset_index(drop=True)
        if table.empty:
            found = sorted(set(images["view"].fillna("")))
            raise StudyError(f"dataset.views: no image has a view in {list(views)}; the views are {found}.")

    result = table[["image_id", "subject_id", "study_id", "view", "split"]].copy()
    target, mask = {}, {}
    for finding in findings:
        target[f"target:{finding}"], mask[f"mask:{finding}"] = apply_policy(
            table[f"label:{finding}"], policies[finding]
        )
    result = pd.concat([result, pd.DataFrame(target | mask, index=result.index)], axis=1)
    _check_classes(result, findings)
    return result


def combine_split(targets: pd.DataFrame) -> str:
    """The split that stacking and thresholds are fitted on: combine, or validate where there is none."""
    return "combine" if (targets["split"] == "combine").any() else "validate"


def _check_classes(targets: pd.DataFrame, findings: Sequence[str]) -> None:
    """Warn of each finding without both classes in a split; raise StudyError if none can be trained and tested."""
    usable = set(findings)
    fallback = {
        "train": "it is trained all the same, learns nothing, and its metrics say so",
        "validate": "it has no part in the choice of the epoch",
        "combine": "its stacking weights stay equal",
        "test": "its metrics are left empty",
    }
    for split in SPLITS:
        rows = targets[targets["split"] == split]
        if rows.empty and split == "combine":
            continue  # validate serves as both
        for finding in findings:
            counted = rows.loc[rows[f"mask:{finding}"] == 1, f"target:{finding}"]
            lacking = [name for value, name in ((1, "positive"), (0, "negative")) if not (counted == value).any()]
            if lacking:
                logger.warning(
                    "%s has no %s image in %s: %s.", finding, " and no ".join(lacking), split, fallback[split]
                )
                if split in ("train", "test"):
                    usable.discard(finding)
    if not usable:
        raise StudyError(
            f"findings: none of {', '.join(findings)} has positives and negatives in both train and test. "
            f"Check labels.source, the label policy and split."
        )
