"""What is scored together: the images of a split, or its studies, all of them or a subgroup's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxrscale.predictions import Scores

#: Views, as data sets name them, that show the chest from the front or back, and from the side.
PROJECTIONS = {"frontal": ("AP", "PA", "frontal"), "lateral": ("LATERAL", "LL", "lateral")}


@dataclass(frozen=True)
class Sample:
    """Units (images or studies) that are scored together.

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


def of_studies(scores: Scores, chosen: np.ndarray) -> Sample:
    """The studies of the chosen images: the mean probability over a study's images, as a logit.

    A study shows a finding if a counted image of it does (with labels of the study all agree); it is ignored if all
    its images are.
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


LEVELS = {"image": of_images, "study": of_studies}


def group_masks(rows: pd.DataFrame, columns: Sequence[str], subgroups: pd.DataFrame | None) -> dict[str, np.ndarray]:
    """Subgroups by name, "column: value", each a mask (image,); a missing value is "(not recorded)".

    rows: image_id, study_id, subject_id and view of the images. subgroups: a table keyed by one of the three ids in
    its first column (see `read_subgroups`). The column view gives "view: frontal" and "view: lateral" besides.
    """
    if subgroups is not None:
        key = subgroups.columns[0]
        rows = rows.merge(subgroups.drop(columns="view", errors="ignore"), on=key, how="left", validate="many_to_one")
    masks = {}
    for column in columns:
        values = rows[column].astype(object).where(rows[column].notna() & (rows[column] != ""), "(not recorded)")
        for value in sorted(values.unique()):
            masks[f"{column}: {value}"] = (values == value).to_numpy(dtype=bool)
        if column == "view":
            for name, views in PROJECTIONS.items():
                mask = values.isin(views).to_numpy(dtype=bool)
                if mask.any():
                    masks[f"view: {name}"] = mask
    return masks
