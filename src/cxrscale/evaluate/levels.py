"""What is scored together: the images of a split, or its examinations (study_id), all of them or a subgroup's."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxrscale.common.errors import StudyError
from cxrscale.common.notes import Note, examples
from cxrscale.common.rows import NOT_RECORDED
from cxrscale.evaluate.predictions import Scores

#: Words by which data sets name views of the chest from the front or back (its first word), and from the side (any).
FRONTAL, LATERAL = frozenset(("ap", "pa", "frontal")), frozenset(("lateral", "lat", "ll", "rl", "l"))
PROJECTIONS = ("frontal", "lateral")


def projection_of(view: str) -> str | None:
    """The projection of a view: "frontal" (AP, PA, AP erect, AP_horizontal, ...), "lateral" (LATERAL, LL, L, ...) or
    None for any other, oblique ones among them. Case does not count."""
    words = re.split(r"[\W_]+", view.casefold().strip())
    if words[0] in FRONTAL:
        return "frontal"
    return "lateral" if LATERAL.intersection(words) else None


@dataclass(frozen=True)
class Sample:
    """Units (images or examinations) that are scored together.

    logits: float64 (unit, finding); target: float64 (unit, finding), NaN where ignored; patient: int64 (unit,),
    numbered from 0 without gaps.
    """

    logits: np.ndarray
    target: np.ndarray
    patient: np.ndarray


def of_images(scores: Scores, chosen: np.ndarray) -> Sample:
    """The chosen images of the first learner. chosen: bool (image,)."""
    patient = np.unique(scores.patient[chosen], return_inverse=True)[1]
    return Sample(scores.logits[0][chosen], scores.target[chosen], patient)


def of_examinations(scores: Scores, chosen: np.ndarray) -> Sample:
    """The examinations of the chosen images: the mean probability over an examination's images, as a logit.

    An examination shows a finding if a counted image of it does (with labels of the examination all agree); it is
    ignored if all its images are.
    """
    images = of_images(scores, chosen)
    study = np.unique(scores.study_id[chosen].astype(str), return_inverse=True)[1]
    order = np.argsort(study, kind="stable")
    first = np.flatnonzero(np.diff(study[order], prepend=-1))
    if not len(first):
        return images
    logits = images.logits[order]
    # Logit of the mean probability, from logarithms, since a probability near 1 leaves no digits for the rest.
    present = np.logaddexp.reduceat(-np.logaddexp(0, -logits), first, axis=0)
    absent = np.logaddexp.reduceat(-np.logaddexp(0, logits), first, axis=0)
    target = np.fmax.reduceat(images.target[order], first, axis=0)
    return Sample(present - absent, target, images.patient[order][first])


LEVELS = {"image": of_images, "study": of_examinations}


def group_masks(
    rows: pd.DataFrame, columns: Sequence[str], subgroups: Sequence[pd.DataFrame] = ()
) -> dict[str, np.ndarray]:
    """Subgroups by name, "column: value", each a mask (image,); a missing value is NOT_RECORDED.

    rows: image_id, study_id, subject_id and view of the images. subgroups: tables, each keyed by one of the three ids
    in its first column (see `read_subgroups`). The column view gives "view: frontal" and "view: lateral" besides, which
    leave out what `projection_of` does.
    """
    for table in subgroups:
        rows = rows.merge(
            table.drop(columns="view", errors="ignore"), on=table.columns[0], how="left", validate="many_to_one"
        )
    masks = {}
    for column in columns:
        values = rows[column].astype(object).where(rows[column].notna() & (rows[column] != ""), NOT_RECORDED)
        for value in sorted(values.unique()):
            masks[f"{column}: {value}"] = (values == value).to_numpy(dtype=bool)
        if column == "view":
            projections = rows["view"].fillna("").map(projection_of)
            for name in PROJECTIONS:
                mask = (projections == name).to_numpy(dtype=bool)
                if mask.any():
                    masks[f"view: {name}"] = mask
    return masks


def notes_on_views(views: pd.Series) -> list[Note]:
    """A note on the views that neither the group frontal nor the group lateral holds; none if both hold all.

    views: of the images that are evaluated, null where not recorded.
    """
    out = views.fillna(NOT_RECORDED)[views.fillna("").map(projection_of).isna()].value_counts()
    if not len(out):
        return []
    named = examples(f"{view} ({count:,})" for view, count in out.items())
    return [
        Note(
            "views",
            f"The groups frontal and lateral leave out {int(out.sum()):,} of {len(views):,} images of test: {named}.",
        )
    ]


def check_native(targets: pd.DataFrame, native_px: pd.Series, at_least_px: int, key: str) -> list[Note]:
    """A note on how many images of each split have a native file of at least so many pixels.

    targets: image_id and split of a fold; native_px: of each image of the store, by image_id (`shards.INDEX`).
    key: the setting that leaves out the others. Raises StudyError if it leaves a split without an image.
    """
    split = targets[targets["image_id"].isin(native_px.index)].set_index("image_id")["split"]
    sizes = native_px.reindex(split.index)
    large = sizes >= at_least_px
    counts = large.groupby(split).agg(["sum", "size"])
    for name, (kept, images) in counts.iterrows():
        if not kept:
            raise StudyError(
                f"{key}: none of the {images:,} images of {name} has a native file of {at_least_px} px or more; the "
                f"largest has {int(sizes[split == name].max())}. Lower it or set it to null."
            )
    if large.all():
        return []
    shown = ", ".join(f"{kept:,} of {images:,} of {name}" for name, (kept, images) in counts.iterrows())
    return [
        Note(
            "pictures",
            f"{key}: images with a native file of {at_least_px} px or more are {shown}; others are left out.",
        )
    ]
