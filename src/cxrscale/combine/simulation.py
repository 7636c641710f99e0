"""Does the control's interval hold what it says? Studies without any effect of resolution, drawn without training.

    python -m cxrscale.combine.simulation --studies 300

All learners are exchangeable, whatever their resolution: a logit that shifts between the classes, with errors of which
half are those of all learners. So the effect that `control` estimates is 0 against any fixed resolution, and intervals
should lie above 0 and below it in half of 1 - confidence each. Training is a spread of the shift over learners.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from scipy.stats import binomtest

from cxrscale.combine.control import Controlled, control_fold, control_rows
from cxrscale.combine.ensembles import FoldScores
from cxrscale.combine.methods import PRIMARY
from cxrscale.combine.settings import StackingSettings
from cxrscale.common.rows import CHOSEN
from cxrscale.evaluate.predictions import Scores

SHIFT = 1.6


@dataclass(frozen=True)
class Scenario:
    """spread: standard deviation of a learner's shift about SHIFT."""

    spread: float
    resolutions: int
    seeds: int


SCENARIOS = (Scenario(0, 2, 2), Scenario(0.2, 2, 2), Scenario(0.2, 2, 5), Scenario(0.2, 3, 3))


def draw(scenario: Scenario, images: int, rng: np.random.Generator) -> FoldScores:
    """Scores of one finding: `images` in combine and in test each, half as many in validate, two a patient."""
    learners = [("m", px, seed) for px, seed in product(range(1, scenario.resolutions + 1), range(scenario.seeds))]
    shift = SHIFT + scenario.spread * rng.standard_normal(len(learners))

    def split(n: int) -> Scores:
        target = rng.integers(0, 2, n).astype(np.float64)
        common, own = rng.standard_normal(n), rng.standard_normal((len(learners), n))
        logits = shift[:, None] * (target - 0.5) + np.sqrt(0.5) * (common + own)
        drawn: dict[str, Any] = {
            "findings": ["F"], "patient": np.arange(n) // 2, "target": target[:, None], "logits": logits[:, :, None],
        }  # fmt: skip
        return cast(Scores, SimpleNamespace(**drawn))

    return FoldScores(0, learners, split(images // 2), split(images), split(images))


def misses(scenario: Scenario, studies: int, images: int, confidence: float, seed: int) -> Iterator[dict[str, object]]:
    """A row for a fixed resolution and one for the chosen: how many of the studies' intervals are above and below 0."""
    settings = StackingSettings(
        tolerance=1e-6, scale_weight_replicates=0, replicates=0, confidence=confidence, seed=seed
    )
    rng = np.random.default_rng([seed, scenario.resolutions, scenario.seeds, int(1000 * scenario.spread)])
    counts = {"1": np.zeros(2, int), CHOSEN: np.zeros(2, int)}
    for _ in range(studies):
        result = Controlled()
        control_fold(draw(scenario, images, rng), settings, result)
        for row in control_rows(result, settings):
            if row["method"] == PRIMARY and row["control"] in counts:
                counts[str(row["control"])] += [cast(float, row["lower"]) > 0, cast(float, row["upper"]) < 0]
    for control, (above, below) in counts.items():
        yield {
            "spread": scenario.spread, "resolutions": scenario.resolutions, "seeds": scenario.seeds,
            "against": "the chosen" if control == CHOSEN else "a fixed one", "above": int(above), "below": int(below),
            "p": float(binomtest(int(above + below), studies, 1 - confidence).pvalue),
        }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("--studies", type=int, default=300, help="drawn for each row")
    parser.add_argument("--images", type=int, default=1200, help="in combine and in test")
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    print(
        "| spread of the shift | resolutions | seeds | against | above 0 | below 0 | p |\n|---|---|---|---|---|---|---|"
    )
    for scenario in SCENARIOS:
        for row in misses(scenario, given.studies, given.images, given.confidence, given.seed):
            above, below = (cast(int, row[side]) / given.studies for side in ("above", "below"))
            print(
                f"| {row['spread']} | {row['resolutions']} | {row['seeds']} | {row['against']} | {above:.1%} | "
                f"{below:.1%} | {row['p']:.2g} |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
