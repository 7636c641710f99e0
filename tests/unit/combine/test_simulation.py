"""Studies of gains and of the control: exchangeable learners, and counts that follow the confidence asked for."""

import numpy as np
import pytest

from cxrscale.combine import simulation
from cxrscale.combine.methods import METHODS
from cxrscale.combine.settings import StackingSettings
from cxrscale.combine.simulation import Scenario, check_claims, draw, power
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


def test_intervals_of_half_confidence_miss_in_about_half_of_the_studies():
    settings = StackingSettings(1e-6, 2, replicates=0, confidence=0.5, seed=1, least_patients=0)
    rows = {row["claim"]: row for row in check_claims(Scenario(0.0, 2, 2, findings=2), 30, 200, settings)}
    assert 0.2 <= rows["the interval against a fixed control misses 0"]["rate"] <= 0.8
    assert rows["any false gain of resolution"]["rate"] <= 0.7
    assert all(row["studies"] == 30 for row in rows.values())


def test_a_gain_that_is_there_is_claimed():
    settings = StackingSettings(1e-6, 2, replicates=0, confidence=0.95, seed=1, least_patients=0)
    weak, strong = power(Scenario(0.02, 2, 4, findings=2), 10, 1200, settings)
    assert strong["effect"] > max(weak["effect"], 0.005)
    assert strong["claimed for the mean"] >= 0.5


def test_the_program_prints_all_claims_and_its_status_says_whether_they_hold(capsys, monkeypatch):
    scenario = Scenario(0.2, 2, 2, findings=2)
    monkeypatch.setattr(simulation, "SCENARIOS", (scenario,))
    methods = list(METHODS)
    assert simulation.main(["--studies", "2", "--power-studies", "1", "--images", "60"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(str(scenario) in line for line in lines) == 5 + len(simulation.SHARES)
    assert lines[-1] == "5 of 5 claims not shown to fail: PASS"
    assert list(METHODS) == methods
