"""Settings of stage evaluate: metrics and their intervals, and the comparison of resolutions."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from cxrscale.common.settings import (
    ColumnName,
    Confidence,
    Count,
    Distinct,
    OpenFraction,
    Pixels,
    Range,
    Section,
    Seed,
    Text,
    Whole,
    chosen,
    names_of,
)


@dataclass(frozen=True)
class BootstrapSettings(Section):
    """What all intervals share."""

    replicates: Annotated[Whole, Range(ge=100, le=1_000_000)] = 2000
    """of the patient bootstrap; the comparison and stacking use them too"""
    confidence: Confidence = 0.95
    """of every interval"""
    seed: Seed = 0
    """of what is drawn at random"""

    def bootstrap(self) -> dict[str, Any]:
        return chosen(self, *names_of(BootstrapSettings))


@dataclass(frozen=True)
class EvaluationSettings(BootstrapSettings):
    """evaluation: metrics of each learner."""

    calibration_bins: Annotated[Whole, Range(ge=2, le=10_000)] = 15
    """bins of the calibration error, each with equally many images"""
    specificity: OpenFraction = 0.9
    """on combine, where the threshold is set at which test's sensitivity is read"""
    groups: Annotated[list[ColumnName], Distinct] = field(default_factory=lambda: ["view"])
    """columns whose values are scored by themselves too, on test"""
    subgroups: Text | None = None
    """csv file with more columns for groups, keyed by image_id, study_id or subject_id"""

    def of_learner(self) -> dict[str, Any]:
        """What a learner's metrics depend on; the file of subgroups counts by its content."""
        return self.bootstrap() | chosen(self, "calibration_bins", "specificity", "groups")


@dataclass(frozen=True)
class ComparisonSection(Section):
    """comparison: the effect of resolution."""

    reference_px: Pixels | None = None
    """held against it; null: the largest. Never chosen by looking at test"""
    margin_auroc: OpenFraction = 0.01
    """a smaller difference does not matter (docs/protocol.md, what a verdict means)"""
    native_at_least_px: Pixels | None = None
    """2048: compare again, on test images whose native file is at least as large"""
    joint_confidence: Confidence = 0.99
    """of the intervals that hold all resolutions at once"""
    least_patients: Count = 30
    """with and without a finding, in the test splits of all folds; with fewer no verdict"""


@dataclass(frozen=True)
class ComparisonSettings(BootstrapSettings, ComparisonSection):
    """What the comparison depends on: its own section, and what all intervals share."""

    reference_px: int = 0
    """held against it"""
    native_at_least_px: int = 0
    """only test images whose native file is at least as large; 0: all"""
