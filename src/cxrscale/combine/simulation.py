"""What is said of gains and of the control, held to its error and to its power on studies drawn without training.

    python -m cxrscale.combine.simulation --studies 1000

All learners are exchangeable, whatever their resolution: a logit that shifts between the classes, with errors of which
half are those of all learners. So no resolution gains anything over seeds, and fitted weights gain nothing over equal
ones. Training is a spread of the shift over learners. For power, a part of the errors is that of the resolution, so
that others make up for it. Prints a row a claim or power; the exit status is 1 if a claim failed.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import pandas as pd

from cxrscale.combine.contracts import CONTROL, GAINS
from cxrscale.combine.control import Controlled, control_fold, control_rows
from cxrscale.combine.ensembles import FoldScores, Stacked, gain_rows, stack_fold
from cxrscale.combine.methods import BEST_SINGLE, EQUAL, METHODS, PRIMARY
from cxrscale.combine.settings import StackingSettings
from cxrscale.common.rows import MEAN, STRONGEST
from cxrscale.evaluate.predictions import Scores
from cxrscale.evaluate.simulation import claim, printed, rate

SHIFT = 1.6


@dataclass(frozen=True)
class Scenario:
    """spread: standard deviation of a learner's shift about SHIFT. prevalence: of a finding. of_resolution: of the
    variance of a learner's error, the share that all learners of its resolution have in common; 0: a null study."""

    spread: float
    resolutions: int
    seeds: int
    findings: int = 4
    prevalence: float = 0.5
    of_resolution: float = 0.0

    def __str__(self) -> str:
        rare = f", prevalence {self.prevalence:g}" if self.prevalence < 0.5 else ""
        return f"{self.resolutions} resolutions, {self.seeds} seeds, spread {self.spread:g}{rare}"


SCENARIOS = (
    Scenario(0, 2, 2), Scenario(0.2, 2, 2), Scenario(0.2, 2, 3), Scenario(0.2, 2, 5), Scenario(0.2, 3, 3),
    Scenario(0.2, 3, 5), Scenario(0.2, 2, 3, prevalence=0.05),
)  # fmt: skip
#: Shares of a learner's error that are its resolution's, for power.
SHARES = (0.1, 0.25)


def draw(scenario: Scenario, images: int, rng: np.random.Generator) -> FoldScores:
    """Scores: `images` in combine and in test each, half as many in validate, two a patient."""
    learners = [("m", px, seed) for px, seed in product(range(1, scenario.resolutions + 1), range(scenario.seeds))]
    n_learners, n_findings = len(learners), scenario.findings
    shift = SHIFT + scenario.spread * rng.standard_normal((n_learners, 1, n_findings))
    resolution = [px - 1 for _, px, _ in learners]
    of_resolution, own = scenario.of_resolution, 0.5 - scenario.of_resolution

    def split(n: int) -> Scores:
        target = (rng.random((n, n_findings)) < scenario.prevalence).astype(np.float64)
        common = rng.standard_normal((n, n_findings))
        seen = rng.standard_normal((scenario.resolutions, n, n_findings))[resolution]
        alone = rng.standard_normal((n_learners, n, n_findings))
        error = np.sqrt(0.5) * common + np.sqrt(of_resolution) * seen + np.sqrt(own) * alone
        logits = shift * (target - 0.5) + error
        drawn: dict[str, Any] = {
            "findings": [f"F{k}" for k in range(n_findings)], "patient": np.arange(n) // 2, "target": target,
            "logits": logits,
        }  # fmt: skip
        return cast(Scores, SimpleNamespace(**drawn))

    return FoldScores(0, learners, split(images // 2), split(images), split(images))


def tables_of(
    scenario: Scenario, studies: int, images: int, settings: StackingSettings
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of CONTROL and GAINS, those of the declared method alone, of many studies; `study` is their number."""
    rng = np.random.default_rng([settings.seed, scenario.resolutions, scenario.seeds, int(1000 * scenario.spread)])
    rows: dict[str, list[dict[str, object]]] = {CONTROL.name: [], GAINS.name: []}
    for study in range(studies):
        controlled, stacked = Controlled(), Stacked()
        scores = draw(scenario, images, rng)
        control_fold(scores, settings, controlled)
        stack_fold(scores, settings, stacked)
        for name, found in (
            (CONTROL.name, control_rows(controlled, settings)),
            (GAINS.name, gain_rows(stacked, settings)),
        ):
            rows[name] += [row | {"study": study} for row in found if row["method"] == PRIMARY]
    return pd.DataFrame(rows[CONTROL.name]), pd.DataFrame(rows[GAINS.name])


def any_gain(rows: pd.DataFrame, value: str, alpha: float) -> np.ndarray:
    """bool (study,): whether a gain of some finding is claimed."""
    said = (rows["p_holm"] <= alpha) & (rows[value] > 0)
    return said.groupby(rows["study"]).any().to_numpy()


def check_claims(scenario: Scenario, studies: int, images: int, settings: StackingSettings) -> Iterator[dict[str, Any]]:
    """A row a claim about a null study. One finding of a study counts where no finding is corrected."""
    control, gains = tables_of(scenario, studies, images, settings)
    alpha, name = 1 - settings.confidence, str(scenario)
    over_mean = gains[gains["against"] == EQUAL]
    fixed = control[(control["control"] == "1") & (control["finding"] == "F0")]
    strongest = control[control["control"] == STRONGEST]
    of_mean = strongest[strongest["finding"] == MEAN]
    yield claim("any false gain of resolution", name, any_gain(strongest, "effect", alpha), alpha)
    yield claim("false gain of resolution in the mean", name, (of_mean["p"] <= alpha).to_numpy(), alpha)
    outside = ((fixed["lower"] > 0) | (fixed["upper"] < 0)).to_numpy()
    yield claim("the interval against a fixed control misses 0", name, outside, alpha)
    yield claim("any false gain of fitted over equal weights", name, any_gain(over_mean, "gain", alpha), alpha)
    one = over_mean[over_mean["finding"] == "F0"]
    yield claim("the interval of that gain lies above 0", name, (one["lower"] > 0).to_numpy(), alpha / 2)


def power(scenario: Scenario, studies: int, images: int, settings: StackingSettings) -> Iterator[dict[str, Any]]:
    """How often a gain of resolution is claimed where there is one."""
    for share in SHARES:
        control, _ = tables_of(replace(scenario, of_resolution=share), studies, images, settings)
        strongest = control[control["control"] == STRONGEST]
        one = strongest[strongest["finding"] == "F0"]
        of_mean = strongest[strongest["finding"] == MEAN]
        yield {
            "scenario": str(scenario), "errors of the resolution": share,
            "effect": float(one["effect"].mean()),
            "claimed for a finding": rate((one["p_holm"] <= 1 - settings.confidence).to_numpy())[0],
            "claimed for the mean": rate((of_mean["p"] <= 1 - settings.confidence).to_numpy())[0],
        }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--studies", type=int, default=1000, help="drawn for each claim")
    parser.add_argument("--power-studies", type=int, default=200, help="drawn for each row of power; 0: none")
    parser.add_argument("--images", type=int, default=1200, help="in combine and in test")
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    settings = StackingSettings(
        tolerance=1e-6, scale_weight_replicates=2, replicates=0, confidence=given.confidence, seed=given.seed,
        least_patients=0,
    )  # fmt: skip
    claims = []
    judged = {name: METHODS[name] for name in (BEST_SINGLE, EQUAL, PRIMARY)}
    with patch.dict(METHODS, judged, clear=True):  # exploratory methods would take most of the time
        for scenario in SCENARIOS:
            rows = list(check_claims(scenario, given.studies, given.images, settings))
            print(printed(rows), end="\n\n", flush=True)
            claims += rows
        if given.power_studies:
            strength = [
                row for s in SCENARIOS if s.spread for row in power(s, given.power_studies, given.images, settings)
            ]
            print(printed(strength), end="\n\n")
    failed = sum(row["verdict"] == "FAIL" for row in claims)
    print(f"{len(claims) - failed} of {len(claims)} claims not shown to fail: {'FAIL' if failed else 'PASS'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
