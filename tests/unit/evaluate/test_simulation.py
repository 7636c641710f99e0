import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from cxrscale.evaluate import simulation
from cxrscale.evaluate.clustered import components
from cxrscale.evaluate.simulation import Design, check_claims, draw_study, rate, simulate

SMALL = Design(patients=300, effects=(0.0,) * 3, resolutions_px=(256, 512, 1024))


def test_drawn_scores_have_the_auroc_asked_for():
    design = replace(SMALL, patients=20_000, effects=(0.0, -0.1), seeds=1, seed_sd=0.0, auroc=0.85, prevalence=0.3)
    (fold,) = draw_study(design, np.random.default_rng(0))
    assert fold.target.mean() == pytest.approx(0.3, abs=0.01)
    found = [components(fold.logits[:, :, k], fold.target[:, k], fold.patient).auroc for k in range(2)]
    assert found[0] == pytest.approx([0.85] * 3, abs=0.01)
    assert found[1] == pytest.approx([0.75, 0.75, 0.85], abs=0.01)
    # Images of a patient, and learners on an image, depend on each other.
    score = fold.logits[:, :, 0] - fold.target[:, 0] * (fold.logits[:, fold.target[:, 0] == 1, 0].mean())
    assert np.corrcoef(score[0, ::2], score[0, 1::2])[0, 1] == pytest.approx(0.3, abs=0.05)
    assert np.corrcoef(score[0], score[1])[0, 1] == pytest.approx(0.8, abs=0.05)


def test_seeds_move_auroc_by_what_was_asked():
    design = replace(SMALL, patients=3000, seeds=60, seed_sd=0.02, resolutions_px=(512,), effects=(0.0, 0.0))
    (fold,) = draw_study(design, np.random.default_rng(0))
    auroc = components(fold.logits[:, :, 0], fold.target[:, 0], fold.patient).auroc
    assert auroc.std() == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("seeds", [1, 3])
def test_fifty_null_studies_hold_the_claim_loosely(seeds):
    """5 % claimed: more than 8 of 50 happen once in a thousand times."""
    tally = simulate(replace(SMALL, seeds=seeds, seed_sd=0.0 if seeds == 1 else 0.01), 50, 0.03, 0.95, seed=1)
    wrong = (tally["p_holm"] <= 0.05).any(axis=1)
    assert len(wrong) == 50
    assert stats.binom.sf(8, 50, 0.05) < 0.001
    assert wrong.sum() <= 8
    single = (tally["p"] <= 0.05).mean()
    assert single < 0.15


def test_large_differences_are_found():
    design = replace(SMALL, patients=600, seeds=1, seed_sd=0.0, effects=(-0.2, 0.0, 0.1), auroc=0.75)
    tally = simulate(design, 10, 0.05, 0.95, seed=2)
    said = tally["verdict"]
    assert (said[:, tally.finding == 0] == "worse than the reference").mean() > 0.9
    assert (said[:, tally.finding == 2] == "better below it").mean() > 0.7
    assert not np.isin(said[:, tally.finding == 1], ("worse than the reference", "better below it")).any()


def test_one_seed_read_as_resolution_errs_too_often():
    rows = simulation.overreach(replace(SMALL, patients=200), 20, 0.03, 0.95, seed=0)
    assert [row["seed_sd"] for row in rows] == [0.004, 0.008, 0.03]
    assert rows[-1]["low"] > 0.05


def test_a_claim_fails_only_if_the_rate_is_shown_to_be_above():
    events = np.arange(100) < 9
    assert rate(events) == pytest.approx((0.09, 0.0420, 0.1640), abs=1e-4)  # Clopper and Pearson
    assert simulation.claim("c", "s", events, 0.05)["verdict"] == "PASS"
    assert simulation.claim("c", "s", events, 0.04)["verdict"] == "FAIL"


def test_the_program_prints_json_and_its_status_says_whether_claims_hold(capsys, monkeypatch):
    arguments = [
        "--studies", "4", "--patients", "100", "--findings", "2", "--scenarios", "3 seeds",
        "--power-studies", "2", "--power-patients", "200", "--power-seeds", "1",
    ]  # fmt: skip
    assert simulation.main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["claims"]) == 6
    assert [row["difference"] for row in found["power"]] == list(simulation.EFFECTS)
    words = ("worse than the reference", "better below it", "equivalent", "undecided")
    assert all(sum(row[word] for word in words) == pytest.approx(1) for row in found["power"])
    assert simulation.main(arguments) == 0
    assert capsys.readouterr().out.endswith("6 of 6 claims hold: PASS\n")
    failed = [row | {"verdict": "FAIL"} for row in check_claims(SMALL, 2, 0.03, 0.95, 0, ["2 seeds"])]
    monkeypatch.setattr(simulation, "check_claims", lambda *_: failed)
    assert simulation.main(arguments) == 1
    assert capsys.readouterr().out.endswith("0 of 6 claims hold: FAIL\n")
