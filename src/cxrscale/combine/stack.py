"""The whole stage: ensembles of every fold and seed, their gains, and the control."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from cxrscale.combine.contracts import COEFFICIENTS, CONTROL, GAINS, SCALE_WEIGHTS, STACKED
from cxrscale.combine.control import Controlled, control_fold, control_rows
from cxrscale.combine.ensembles import Key, Stacked, gain_rows, read_fold, stack_fold
from cxrscale.combine.settings import StackingSettings


def stack(
    predictions: Mapping[Key, Path], combine_split: Mapping[int, str], settings: StackingSettings
) -> dict[str, pd.DataFrame]:
    """Fit on the combine split, score on test, within a fold.

    predictions: (model, resolution_px, fold, seed) -> file; combine_split: fold -> the split that
    ensembles are fitted on. Returns the frames of SCALE_WEIGHTS, COEFFICIENTS, STACKED, GAINS and CONTROL by name.
    """
    stacked, controlled = Stacked(), Controlled()
    for fold in sorted({key[2] for key in predictions}):
        scores = read_fold(predictions, fold, combine_split[fold])
        stack_fold(scores, settings, stacked)
        control_fold(scores, settings, controlled)
    rows = {
        SCALE_WEIGHTS: stacked.scale_weights,
        COEFFICIENTS: stacked.coefficients,
        STACKED: stacked.stacked,
        GAINS: gain_rows(stacked, settings),
        CONTROL: control_rows(controlled, settings),
    }
    return {table.name: pd.DataFrame(found, columns=[c.name for c in table.columns]) for table, found in rows.items()}
