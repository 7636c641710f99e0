"""Settings of stage combine: the scale weights of ensembles, and their intervals."""

from dataclasses import dataclass
from typing import Annotated

from cxrscale.common.settings import Count, Range, Real, Section, Whole
from cxrscale.evaluate.settings import BootstrapSettings


@dataclass(frozen=True)
class StackingSection(Section):
    """stacking: ensembles of learners. Paper: softmax weights on probabilities; a convex problem, solved as such
    (docs/stacking.md)."""

    tolerance: Annotated[Real, Range(ge=1e-12, le=1e-2)] = 1e-8
    """nats of mean log loss that scale weights may be above the least, by a proven bound"""
    scale_weight_replicates: Annotated[Whole, Range(ge=100, le=1_000_000)] = 200
    """resamplings of combine's patients, for the intervals of the scale weights"""


@dataclass(frozen=True)
class StackingSettings(BootstrapSettings, StackingSection):
    """What stacking depends on: its own section, what all intervals share, and the comparison's least patients."""

    least_patients: Count = 30
    """with and without a finding, in the test splits of all folds; with fewer nothing is said of a gain"""
