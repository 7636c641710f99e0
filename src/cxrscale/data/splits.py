"""Splits by patient, and the targets of a fold.

*train* fits the weights, *validate* picks the epoch, *combine* fits what comes after training (stacking, thresholds),
*test* is looked at once. A patient is in one of them only.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from cxrscale.common.errors import StudyError
from cxrscale.common.notes import Note, examples
from cxrscale.data.contracts import RADIOLOGIST, SPLITS
from cxrscale.data.labels import apply_policy
from cxrscale.data.settings import LabelPolicy, SplitSettings
from cxrscale.data.spelling import loosely, one_spelling

logger = logging.getLogger(__name__)


#: Patients of test below which nothing can be said: one alone has no interval.
LEAST_TESTED = 2


def split_patients(patients: Sequence[str], settings: SplitSettings, fold: int) -> dict[str, str]:
    """The split of each patient in one fold of a k-fold split.

    patients: unique, in file order. Folds are consecutive runs of that order whose sizes differ by one at most, the
    longer ones first (scikit-learn's KFold without shuffling). Returns patient -> train, validate, combine or test.
    Raises StudyError if a split would be empty, or a fold have a single patient in test.
    """
    ordered = _ordered(patients, settings)
    if len(ordered) < LEAST_TESTED * settings.folds:
        raise StudyError(
            f"split: {len(ordered)} patients cannot fill {settings.folds} folds with {LEAST_TESTED} patients each to "
            f"test. Lower split.folds to {max(len(ordered) // LEAST_TESTED, 0)} at most."
        )
    test = set(np.array_split(np.asarray(ordered, dtype=object), settings.folds)[fold])
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
    # combine_fraction 0 says that validate is combine; a fraction that comes to nobody does not.
    short = [s for s in need if counts[s] < 1 and fractions[s] > 0]
    if train < 1 or short:
        raise StudyError(
            f"split: {len(rest)} patients leave {train} for train, {counts['validate']} for validate and "
            f"{counts['combine']} for combine; each needs one at least. Change split.validate_fraction or "
            f"split.combine_fraction."
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
    if (tested := list(published.values()).count("test")) < LEAST_TESTED:
        raise StudyError(f"split.method is official, but {tested} patient is in test; expected more. Use kfold.")
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
    unread: Literal["ignore", "keep"] = "ignore",
) -> pd.DataFrame:
    """The targets of one fold, the columns of `data.contracts.TARGETS`, in the order of `labels`.

    labels, images: the tables of those names. views: keep these only (None: all); "" stands for a view that is not
    recorded. The split is drawn before views are filtered, so that a view filter moves no patient.
    With combine_fraction 0 no row says combine: validate serves as both (see `combine_split`).
    unread: where a radiologist's labels are used, what becomes of test images without one: "ignore" masks them, "keep"
    leaves them the labels that they have.
    Raises StudyError if nothing is left, a finding is unknown, a view is no image's, a radiologist's label lies outside
    test, or no finding can be used.
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
    masked = unread_in_test(table) if unread == "ignore" else np.zeros(len(table), dtype=bool)
    if views is not None:
        kept = table["view"].fillna("").isin(_known_views(views, table["view"])).to_numpy(dtype=bool)
        table, masked = table[kept].reset_index(drop=True), masked[kept]

    result = table[["image_id", "subject_id", "study_id", "view", "split"]].copy()
    target, mask = {}, {}
    for finding in findings:
        values, counts = apply_policy(table[f"label:{finding}"], policies[finding])
        target[f"target:{finding}"], mask[f"mask:{finding}"] = values * ~masked, counts * ~masked
    result = pd.concat([result, pd.DataFrame(target | mask, index=result.index)], axis=1)
    _check_classes(result, findings)
    return result


def _known_views(views: Sequence[str], found: pd.Series) -> list[str]:
    """The views asked for as the images spell them. Raises StudyError if one is no image's."""
    known = sorted(set(found.fillna("")))
    wanted = [one_spelling(view) for view in views]
    for view in wanted:
        if view not in known:
            near = next((k for k in known if loosely(k) == loosely(view)), None)
            hint = f" (did you mean {near!r}?)" if near else ""
            raise StudyError(f"dataset.views: no image has the view {view!r}{hint}; the views are {known}.")
    return wanted


def unread_in_test(table: pd.DataFrame) -> np.ndarray:
    """Which images are in test without a radiologist's label where others have one, bool (image,).

    table: split, study_id and source of the labels. All false if no label is a radiologist's. Raises StudyError if one
    lies outside test: it would be trained on, beside labels of another kind.
    """
    read, test = table["source"] == RADIOLOGIST, table["split"] == "test"
    outside = table[read & ~test]
    if len(outside):
        first = outside.iloc[0]
        raise StudyError(
            f"labels.test_source is radiologist, but {outside['study_id'].nunique()} examinations that the "
            f"radiologist read are not in test (first: {first['study_id']}, in {first['split']}). Expected the "
            f"official split of the data set; set labels.test_source to same."
        )
    return (test & ~read).to_numpy(dtype=bool) & bool(read.any())


def notes_on_sources(labels: pd.DataFrame, targets: pd.DataFrame, unread: str) -> list[Note]:
    """What must be known of whose labels test holds; nothing where none is a radiologist's.

    labels: the table of that name; targets: of a fold; unread: as `build_targets` takes it.
    """
    test = labels[labels["image_id"].isin(targets.loc[targets["split"] == "test", "image_id"])]
    examinations = test.drop_duplicates("study_id")
    read = examinations["source"] == RADIOLOGIST
    if not read.any():
        return []
    rest = int((~read).sum())
    what = (
        "are ignored"
        if unread == "ignore"
        else f"keep the labels of {examples(examinations.loc[~read, 'source'].unique())}"
    )
    note = f"{int(read.sum()):,} of {len(examinations):,} examinations of test have a radiologist's labels"
    return [Note("labels", f"{note}; the other {rest:,} {what} (labels.unread)." if rest else f"{note}.")]


def keep_together(targets: pd.DataFrame, shared: pd.DataFrame, most_patients: int) -> tuple[pd.DataFrame, list[Note]]:
    """Bring patients who share a picture, the same file byte by byte, into one split: that of the first of them.

    targets: of a fold, as `build_targets` made them; shared: image_id, path and sha256 of the images whose file another
    has too. Patients are taken in the order of targets, which is the same in every fold, so that each is tested once.
    Returns the targets and what to note. Raises StudyError if more than most_patients share pictures, since ids are
    wrong then, or a split is left empty.
    """
    pictures = shared.merge(targets[["image_id", "subject_id"]], on="image_id")
    by_file = pictures.groupby("sha256", sort=False)
    leaking = by_file["subject_id"].transform("nunique") > 1
    notes = []
    if own := pictures[~leaking]["sha256"].duplicated().sum():
        notes.append(Note("pictures", f"{own:,} images repeat a picture of the same patient, byte by byte."))
    pictures = pictures[leaking]
    if pictures.empty:
        return targets, notes
    sharing, files = pictures["subject_id"].nunique(), pictures["sha256"].nunique()
    shown = examples(
        f"{rows['path'].iloc[0]} of {examples(rows['subject_id'].unique())}"
        for _, rows in pictures.groupby("sha256", sort=False)
    )
    found = f"{sharing} patients share {files} pictures, the same files byte by byte"
    if sharing > most_patients:
        raise StudyError(
            f"pictures: {found} ({shown}), more than split.most_sharing_patients = {most_patients}. Expected each "
            f"picture to be of one patient. Correct subject_id or path, or raise the setting, which keeps these "
            f"patients in one split."
        )
    patients = targets.drop_duplicates("subject_id").set_index("subject_id")["split"]
    together = _first_of_component(patients.index, pictures)
    joined = pd.Series(patients[together].to_numpy(), index=patients.index)
    if lost := [s for s in SPLITS if (patients == s).any() and not (joined == s).any()]:
        raise StudyError(f"split: patients who share pictures are kept in one split, which leaves none in {lost[0]}.")
    moved = int((joined != patients).sum())
    said = f"{found}; they are kept in one split, for which {moved} of them were moved."
    notes.append(Note("pictures", said, shown))
    return targets.assign(split=targets["subject_id"].map(joined)), notes


def _first_of_component(patients: pd.Index, pictures: pd.DataFrame) -> np.ndarray:
    """The first patient, in order, of those that each is linked to by shared pictures; itself where by none.

    pictures: subject_id and sha256, a row an image. Returns (patient,).
    """
    file, files = pd.factorize(pictures["sha256"])
    edges = (np.ones(len(pictures)), (patients.get_indexer(pd.Index(pictures["subject_id"])), len(patients) + file))
    size = len(patients) + len(files)
    component = connected_components(coo_matrix(edges, shape=(size, size)), directed=False)[1][: len(patients)]
    first = np.unique(component, return_index=True)[1]  # components are numbered without gaps
    return patients.to_numpy()[first[component]]


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
