"""The policy that turns raw labels into targets.

A raw label is 1 (present), 0 (absent), -1 (uncertain) or null (not mentioned). A target is 0 or 1 with a mask: 1 where
the target counts, 0 where it is ignored by loss and metrics.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from cxrscale.data.settings import LabelPolicy


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
