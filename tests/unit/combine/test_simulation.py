"""Null studies of the control: exchangeable learners, and counts that follow the confidence asked for."""

import numpy as np
import pytest

from cxrscale.combine import simulation
from cxrscale.combine.simulation import Scenario, draw, misses
from cxrscale.evaluate.auroc import auroc


def test_drawn_learners_are_as_good_as_the_shift_says():
    """Two normals 1.6 apart have an AUROC of Phi(1.6 / sqrt 2) = 0.871."""
    scores = draw(Scenario(0.0, 2, 3), 20_000, np.random.default_rng(0))
    assert scores.learners == [("m", px, seed) for px in (1, 2) for seed in (0, 1, 2)]
    target = scores.test.target[:, 0]
    found = [auroc(logits, target) for logits in scores.test.logits[:, :, 0]]
    assert found == pytest.approx([0.871] * 6, abs=0.006)
    residual = scores.test.logits[:, :, 0] - 1.6 * (target - 0.5)
    assert np.corrcoef(residual)[0, 1] == pytest.approx(0.5, abs=0.03)


def test_intervals_of_half_confidence_miss_in_about_half_of_the_studies(capsys):
    fixed, chosen = misses(Scenario(0.0, 2, 2), 30, 200, confidence=0.5, seed=1)
    assert (fixed["against"], chosen["against"]) == ("a fixed one", "the chosen")
    assert 6 <= fixed["above"] + fixed["below"] <= 24
    assert simulation.main(["--studies", "1", "--images", "60"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * len(simulation.SCENARIOS)
    assert len({line.count("|") for line in lines}) == 1
