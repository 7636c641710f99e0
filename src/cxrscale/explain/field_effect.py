"""Whether findings that need a wide field prefer low resolution: the paper's claim as a number over findings."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import permutation_test, rankdata

from cxrscale.common.rows import ALL_CHANNELS, MEAN
from cxrscale.evaluate.bootstrap import interval
from cxrscale.explain.contracts import FIELD_EFFECT, FIELD_POINTS

#: Fewer findings have too few orders for a rank correlation to say anything: with four, the least p is 1 / 12.
LEAST_FINDINGS = 5

#: Up to so many findings the permutation test takes all orders, 40,320 of them.
ALL_ORDERS = 8

NO_INTERVAL = "most bootstrap replicates draw findings that do not differ: no interval"
ONE_RESOLUTION = "one resolution: there is no preference"
TOO_FEW_FINDINGS = f"fewer than {LEAST_FINDINGS} findings with a field and an AUROC"
CONSTANT = "fields or preferences do not differ between findings"


def field_points(
    fields: pd.DataFrame, differences: pd.DataFrame, findings: Sequence[str], resolutions: Mapping[str, Sequence[int]],
    reference_px: int,
) -> pd.DataFrame:  # fmt: skip
    """The table FIELD_POINTS.

    fields: rows of `contracts.ERF` of the learners at the reference, each with its model. differences:
    model, finding, resolution_px, against_px, difference. resolutions: model -> those it was trained at.
    """
    rows = []
    trained = fields[(fields["state"] == "trained") & (fields["finding"] != ALL_CHANNELS)]
    for model, trained_at in resolutions.items():
        lowest = min(trained_at)
        for finding in findings:
            sizes = trained[(trained["model"] == model) & (trained["finding"] == finding)]
            known = sizes["sigma_fraction"].dropna()
            gain = differences[
                (differences["model"] == model) & (differences["finding"] == finding)
                & (differences["resolution_px"] == lowest) & (differences["against_px"] == reference_px)
            ]["difference"].dropna()  # fmt: skip
            reasons = [str(r) for r in sizes["reason"].dropna().unique()] if known.empty else []
            if gain.empty:
                reasons.append(ONE_RESOLUTION if lowest == reference_px else "AUROC is undefined")
            row = {
                "model": model, "finding": finding, "reference_px": reference_px, "lowest_px": lowest,
                "field_fraction": known.mean() if len(known) else None,
                "preference": float(gain.iloc[0]) if len(gain) else None,
                "n_fields": len(known), "reason": "; ".join(reasons) or None,
            }  # fmt: skip
            rows.append(row)
    return pd.DataFrame(rows, columns=[c.name for c in FIELD_POINTS.columns])


def field_effect(points: pd.DataFrame, replicates: int, confidence: float, seed: int) -> pd.DataFrame:
    """The table FIELD_EFFECT. points: FIELD_POINTS without the mean of findings.

    The interval draws findings with replacement: it holds the chance of which findings were studied and, through the
    scatter between them, the noise of each point. Findings that go together (effusion and opacity) count as if they did
    not.
    """
    rows = []
    for model, here in points[points["finding"] != MEAN].groupby("model", sort=False):
        known = here.dropna(subset=["field_fraction", "preference"])
        field, preference = (known[c].to_numpy(dtype=np.float64) for c in ("field_fraction", "preference"))
        row: dict[str, object] = {"model": model, "n_findings": len(known)}
        if len(known) < LEAST_FINDINGS:
            why = "; ".join(here["reason"].dropna().unique())
            rows.append(row | {"reason": f"{TOO_FEW_FINDINGS}{f' ({why})' if why else ''}"})
        elif np.ptp(field) == 0 or np.ptp(preference) == 0:
            rows.append(row | {"reason": CONSTANT})
        else:
            rows.append(row | _correlation(field, preference, replicates, confidence, seed))
    return pd.DataFrame(rows, columns=[c.name for c in FIELD_EFFECT.columns])


def _correlation(
    field: np.ndarray, preference: np.ndarray, replicates: int, confidence: float, seed: int
) -> dict[str, object]:
    # Permuting findings permutes ranks.
    ranks, other = rankdata(field) - (len(field) + 1) / 2, rankdata(preference)
    orders = math.inf if len(field) <= ALL_ORDERS else max(replicates, 9999)
    test = permutation_test(
        (ranks,), lambda drawn, axis: (drawn * other).sum(axis=axis), permutation_type="pairings",
        n_resamples=orders, vectorized=True, rng=np.random.default_rng(seed),
    )  # fmt: skip
    drawn = np.random.default_rng([seed, 1]).integers(0, len(field), (replicates, len(field)))
    lower, upper = interval(spearman(field[drawn], preference[drawn]), confidence)
    return {
        "spearman": float(spearman(field, preference)), "lower": lower, "upper": upper, "p": float(test.pvalue),
        "reason": NO_INTERVAL if np.isnan(lower) else None,
    }  # fmt: skip


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation along the last axis, ties with their mean rank; NaN where a side is constant."""
    x, y = (rankdata(side, axis=-1) - (side.shape[-1] + 1) / 2 for side in (a, b))
    scale = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    with np.errstate(invalid="ignore"):
        return np.asarray((x * y).sum(axis=-1) / scale)
