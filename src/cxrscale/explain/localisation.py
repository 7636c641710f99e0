"""Whether activation maps point at the finding: against boxes, beside chance and beside what their grid allows.

All maps are enlarged to one common grid, so that resolutions are measured alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t

from cxrscale.common.rows import ALL_FINDINGS, ALL_SIZES
from cxrscale.data.boxes import Box, mask_of
from cxrscale.evaluate.clustered import influence_covariance
from cxrscale.explain.contracts import LOCALISATION, MEASURES, SIZES

#: Cells along a side of the common grid.
GRID = 256

#: Of a map's largest value: where IoU may cut.
THRESHOLDS = np.arange(1, 20) / 20


NO_BOX = "no test image that shows it has such a box"
NO_THRESHOLD = "no image to choose the threshold on has a box"
ONE_PATIENT = "one patient: no interval"


def interpolation(length: int, n: int) -> np.ndarray:
    """float64 (length, n): bilinear weights that enlarge n units along a side to `length` cells, each row of sum 1.

    Units and cells both fill the picture; beyond the outermost units' middles their values go on.
    """
    place = np.clip((np.arange(length) + 0.5) * n / length - 0.5, 0, n - 1)
    low = np.minimum(np.floor(place).astype(int), n - 1)
    weights = np.zeros((length, n))
    weights[np.arange(length), low] += 1 - (place - low)
    weights[np.arange(length), np.minimum(low + 1, n - 1)] += place - low
    return weights


def averaging(n: int, length: int) -> np.ndarray:
    """float64 (n, length): weights that average `length` cells along a side onto n units, each row of sum 1."""
    low, high = np.arange(n)[:, None] / n, (np.arange(n)[:, None] + 1) / n
    cells = np.arange(length)
    overlap = np.minimum(high, (cells + 1) / length) - np.maximum(low, cells / length)
    return np.clip(overlap, 0, None) * n


def enlarge(map_: np.ndarray, length: int = GRID) -> np.ndarray:
    """A map (rows, columns) on the common grid (length, length), bilinearly."""
    rows, columns = map_.shape
    return interpolation(length, rows) @ map_.astype(np.float64) @ interpolation(length, columns).T


def hit(map_: np.ndarray, mask: np.ndarray) -> float:
    """Whether the largest value lies inside (the pointing game, Zhang et al. 2018, doi:10.1007/s11263-017-1059-x): 0
    or 1, or the share of those inside where several cells are equally large."""
    largest = map_ >= map_.max() - 1e-9 * np.ptp(map_)
    return float(mask[largest].mean())


def energy_inside(map_: np.ndarray, mask: np.ndarray) -> float:
    """Share of the positive values that lies inside (Wang et al. 2020, arXiv:1910.01279); 0 if none is positive."""
    positive = np.clip(map_, 0, None)
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else 0.0


def overlaps(map_: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Intersection over union of the mask with the cells at or above each of THRESHOLDS times the largest value.

    float64 (threshold,); 0 if no value is positive.
    """
    if not map_.max() > 0:
        return np.zeros(len(THRESHOLDS))
    steps = len(THRESHOLDS) + 1
    # How many thresholds each cell reaches; the small number undoes the rounding of a value that lies on one.
    reached = np.clip(np.floor(map_ / map_.max() * steps + 1e-9), 0, steps - 1).astype(int)
    marked, inside = (
        np.bincount(cells, minlength=steps)[::-1].cumsum()[::-1][1:] for cells in (reached.ravel(), reached[mask])
    )
    return inside / (marked + mask.sum() - inside)


@dataclass(frozen=True)
class Best:
    """What the best map on a grid of (rows, columns) reaches for a mask: hit, energy and iou, each by itself.

    energy is exact: a share is largest with all of it in one unit. So is hit for a map with one largest unit, since the
    largest value of an enlarged map lies at the middle of a unit; where that misses, an even map does better. iou is
    that of the mask averaged onto the grid and enlarged, at its own best threshold (or of an even map): what a map that
    knew the boxes would be expected to reach.
    """

    hit: float
    energy: float
    iou: float


def best_on_grid(mask: np.ndarray, rows: int, columns: int) -> Best:
    """See `Best`. mask: bool (length, length) on the common grid."""
    length = len(mask)
    down, across = interpolation(length, rows), interpolation(length, columns)
    cells = mask.astype(np.float64)
    energy = (down.T @ cells @ across) / np.outer(down.sum(axis=0), across.sum(axis=0))
    down_peak, across_peak = (w >= w.max(axis=0) - 1e-9 for w in (down, across))
    hits = (down_peak.T @ cells @ across_peak) / np.outer(down_peak.sum(axis=0), across_peak.sum(axis=0))
    averaged = averaging(rows, length) @ cells @ averaging(columns, length).T
    iou = overlaps(down @ averaged @ across.T, mask).max()
    even = float(mask.mean())
    return Best(max(float(hits.max()), even), float(energy.max()), max(float(iou), even))


def measure_maps(
    chosen: pd.DataFrame, maps: Iterable[np.ndarray], boxes: Mapping[tuple[str, str], Sequence[Box]]
) -> pd.DataFrame:
    """Measures of each map, with those of the best map on its grid, of the blind map and of chance.

    chosen: as `cam.select_boxed`; maps: (rows, columns), in its order; boxes: as `boxes_by_pair`.
    Returns chosen with hit, energy, iou (one a threshold), best_hit, best_energy, best_iou, blind_hit, blind_energy,
    blind_iou (one a threshold; the blind values are None where combine has no box of the finding), area (share of
    the picture that the boxes cover) and against (no value is positive).
    """
    blind: dict[str, np.ndarray] = {}
    for finding, rows in chosen[chosen["split"] == "combine"].groupby("finding"):
        masks = (mask_of(boxes[str(finding), str(i)], GRID) for i in rows["image_id"])
        blind[str(finding)] = sum(masks, start=np.zeros((GRID, GRID))) / len(rows)
    found = []
    for finding, image_id, map_ in zip(chosen["finding"], chosen["image_id"], maps, strict=True):
        mask, large = mask_of(boxes[finding, image_id], GRID), enlarge(map_)
        best, prior = best_on_grid(mask, *map_.shape), blind.get(finding)
        values = {
            "hit": hit(large, mask), "energy": energy_inside(large, mask), "iou": overlaps(large, mask),
            "best_hit": best.hit, "best_energy": best.energy, "best_iou": best.iou,
            "blind_hit": None, "blind_energy": None, "blind_iou": None,
            "area": float(mask.mean()), "against": not large.max() > 0,
        }  # fmt: skip
        if prior is not None:
            values |= {
                "blind_hit": hit(prior, mask), "blind_energy": energy_inside(prior, mask),
                "blind_iou": overlaps(prior, mask),
            }  # fmt: skip
        found.append(values)
    measured = pd.DataFrame(found) if found else pd.DataFrame(columns=_MEASURED)
    return pd.concat([chosen.reset_index(drop=True), measured], axis=1)


_MEASURED = [
    *MEASURES, *(f"{kind}_{m}" for kind in ("best", "blind") for m in MEASURES), "area", "against",
]  # fmt: skip


def chosen_threshold(combine: pd.DataFrame, column: str = "iou") -> int | None:
    """Place in THRESHOLDS of the largest mean IoU over combine's maps; None without any. combine: rows of combine."""
    values = [v for v in combine[column] if v is not None]
    return int(np.mean(values, axis=0).argmax()) if values else None


def summarise(
    measured: pd.DataFrame, findings: Sequence[str], box_sizes: Sequence[float], confidence: float
) -> pd.DataFrame:
    """The table LOCALISATION. measured: as `measure_maps` returns it. box_sizes: shares of the picture between small
    and medium and between medium and large. Thresholds come from combine's rows, all else from test's."""
    combine, test = (measured[measured["split"] == s] for s in ("combine", "test"))
    cuts = {"iou": chosen_threshold(combine), "blind_iou": chosen_threshold(combine, "blind_iou")}
    size = np.array(SIZES, dtype=object)[np.searchsorted(box_sizes, test["area"].astype(float), side="right")]
    rows = []
    for finding in [*findings, ALL_FINDINGS]:
        for wanted in (ALL_SIZES, *SIZES):
            here = test[
                ((test["finding"] == finding) | (finding == ALL_FINDINGS)) & ((size == wanted) | (wanted == ALL_SIZES))
            ]
            counts = {
                "n_maps": len(here),
                "n_patients": here["subject_id"].nunique(),
                "n_against": int(here["against"].sum()),
            }
            for measure in MEASURES:
                row = {"finding": finding, "size": wanted, "measure": measure, **counts}
                rows.append(row | _values(here, measure, cuts, confidence))
    return pd.DataFrame(rows, columns=[c.name for c in LOCALISATION.columns])


def _values(here: pd.DataFrame, measure: str, cuts: Mapping[str, int | None], confidence: float) -> dict[str, object]:
    if here.empty:
        return {"reason": NO_BOX}
    found: dict[str, object] = {"best": here[f"best_{measure}"].mean(), "chance": here["area"].mean()}
    blind = [v for v in here[f"blind_{measure}"] if v is not None and not np.all(pd.isna(v))]
    if measure == "iou":
        cut = cuts["iou"]
        if cut is None:
            return found | {"reason": NO_THRESHOLD}
        found["threshold"] = THRESHOLDS[cut]
        values = np.array([v[cut] for v in here["iou"]])
        blind = [v[cuts["blind_iou"]] for v in blind]
    else:
        values = here[measure].to_numpy(dtype=np.float64)
    # Only where every map has one: else it would be a mean over other maps.
    if len(blind) == len(here):
        found["blind"] = float(np.mean(blind))
    lower, upper = mean_interval(values, here["subject_id"].to_numpy(), confidence)
    found |= {"value": float(values.mean()), "lower": lower, "upper": upper}
    return found | {"reason": ONE_PATIENT if np.isnan(lower) else None}


def mean_interval(values: np.ndarray, patient: np.ndarray, confidence: float) -> tuple[float, float]:
    """Interval of a mean of values in [0, 1], patients as clusters; NaN, NaN for one patient.

    Wilson's score interval for the number of independent zeros and ones of the same variance (one a patient where no
    value differs), with Student's t for the few patients there may be. It stays within 0 and 1 and keeps a width where
    all values are 0 or all are 1; recommended for proportions of clustered samples by Franco et al. 2019
    (PMC6690503).
    """
    names, member = np.unique(patient, return_inverse=True)
    if len(names) < 2:
        return float("nan"), float("nan")
    mean = float(values.mean())
    added = np.bincount(member, weights=values - mean) / len(values)  # (patient,)
    variance = float(influence_covariance(added[:, None])[0, 0])
    spread = mean * (1 - mean)
    n = spread / variance if variance > 1e-12 and spread > 0 else float(len(names))
    z = float(t.ppf(0.5 + confidence / 2, len(names) - 1))
    middle = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(spread / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)
