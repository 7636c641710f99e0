"""Each claim of the truth test passes on tables that hold the planted answer, and fails on tables that do not."""

import pandas as pd
import pytest

from cxrscale import truth
from cxrscale.common.rows import MEAN
from cxrscale.evaluate.contracts import BETTER_BELOW, EQUIVALENT, NEEDS, UNDECIDED
from cxrscale.explain.contracts import ERF, LOCALISATION
from cxrscale.truth import Found

PLANTED = {
    "Fine": ("line", 0.026), "Middle": ("grating", 0.055), "Heart": ("heart", 0.0), "Two": ("relation", 0.0),
    "Parts": ("any", 0.0),
}  # fmt: skip
VERDICTS = {
    "Fine": [NEEDS, NEEDS], "Middle": [NEEDS, EQUIVALENT], "Heart": [EQUIVALENT] * 2, "Two": [BETTER_BELOW, UNDECIDED],
}  # fmt: skip
SUFFICIENT = {"Fine": 128, "Middle": 64, "Heart": 32, "Two": 32}


@pytest.fixture
def study(monkeypatch):
    """A function that gives a study whose tables hold the planted answer, but for what is changed."""

    def build(
        verdicts=(), sufficient=(), weights=None, gains=(), effect=0.02, joint=(0.4, 0.6), reach=(1.1, 0.6), energy=0.5
    ):
        found = Found.__new__(Found)
        found.margin, found.reference_px, found.resolutions_px, found.models = 0.01, 128, [32, 64, 128], ["m"]
        rows = [(f, p, w) for f, (p, w) in PLANTED.items()] + [("Nothing", "none", 0.0)]
        found.planted = pd.DataFrame(rows, columns=["finding", "pattern", "wavelength"])
        found.differences = pd.DataFrame(
            [
                {"model": "m", "finding": f, "resolution_px": r, "difference": -0.1, "lower": -0.2, "upper": 0.0,
                 "verdict": v}
                for f, both in (VERDICTS | dict(verdicts)).items()
                for r, v in zip((64, 32), reversed(both), strict=True)
            ]
        )  # fmt: skip
        enough = SUFFICIENT | dict(sufficient)
        found.sufficient = pd.DataFrame({"model": "m", "finding": list(enough), "sufficient_px": list(enough.values())})
        found.levels = pd.DataFrame(
            {"model": "m", "finding": "Nothing", "value": 0.5, "joint_lower": [0.4, joint[0]],
             "joint_upper": [0.6, joint[1]]}
        )  # fmt: skip
        shares = weights or {"Fine": (0.1, 0.2, 0.7), "Middle": (0.1, 0.5, 0.4)}
        found.scale_weights = pd.DataFrame(
            [("m", f, r, w) for f, row in shares.items() for r, w in zip((32, 64, 128), row, strict=True)],
            columns=["ensemble", "finding", "resolution_px", "weight"],
        )
        gain = {"Fine": -0.005, "Parts": 0.05, MEAN: 0.012} | dict(gains)
        found.gains = pd.DataFrame({"ensemble": "m", "finding": list(gain), "gain": list(gain.values())})
        found.gains["lower"], found.gains["upper"] = found.gains["gain"] - 0.01, found.gains["gain"] + 0.01
        found.control = pd.DataFrame(
            {"model": "m", "finding": ["Parts"], "effect": effect, "lower": effect - 0.01, "upper": effect + 0.01}
        )
        learners = {
            (ERF.name, r): pd.DataFrame({"state": ["trained"], "finding": ["Two"], "radius95_fraction": [d / 2]})
            for r, d in zip((32, 64, 128), (reach[0], 0.9, reach[1]), strict=True)
        }
        learners |= {
            (LOCALISATION.name, 128): pd.DataFrame(
                {"finding": ["(all)"], "size": ["all"], "measure": ["energy"], "value": [energy],
                 "lower": [energy - 0.1], "upper": [energy + 0.1], "chance": [0.2], "best": [0.9]}
            ),
        }  # fmt: skip
        monkeypatch.setattr(Found, "of_learners", lambda self, table, model, r: [learners[table, r]])
        return found

    return build


def failed(study, lossless=None):
    return [(c.claim, c.about) for c in truth.claims_of(study, lossless) if not c.holds]


def test_the_planted_answer_passes_every_claim(study):
    claims = truth.claims_of(study())
    assert [c.claim for c in claims if not c.holds] == []
    assert len(claims) == 2 + 1 + 2 + 1 + 2 + 3 + 2 + 1


@pytest.mark.parametrize(
    ("changed", "claim"),
    [
        ({"sufficient": {"Fine": 64}}, ("smallest sufficient resolution", "m, Fine")),
        ({"verdicts": {"Fine": [NEEDS, UNDECIDED]}}, ("smallest sufficient resolution", "m, Fine")),
        ({"sufficient": {"Middle": None}}, ("smallest sufficient resolution", "m, Middle")),
        ({"verdicts": {"Heart": [UNDECIDED, EQUIVALENT]}}, ("coarse finding", "m, Heart")),
        ({"verdicts": {"Two": [UNDECIDED, BETTER_BELOW]}}, ("relation of distant places", "m, Two")),
        ({"reach": (0.7, 0.6)}, ("field against that distance", "m, Two")),
        ({"reach": (1.1, 0.9)}, ("field against that distance", "m, Two")),
        ({"joint": (0.51, 0.6)}, ("no signal", "m, Nothing")),
        ({"weights": {"Fine": (0.3, 0.3, 0.4), "Middle": (0.1, 0.5, 0.4)}}, ("scale weights", "m, Fine")),
        ({"gains": {"Fine": -0.02}}, ("stack against best single", "m, Fine")),
        ({"gains": {MEAN: 0.009}}, ("stack, mean of findings", "m")),
        ({"gains": {"Parts": 0.009}}, ("evidence at several scales", "m, Parts")),
        ({"effect": 0.009}, ("a gain of resolution", "m, Parts")),
        ({"energy": 0.25}, ("energy of maps in boxes", "m, 128 px, learner 0")),
    ],
)
def test_each_claim_fails_where_its_answer_is_missed(study, changed, claim):
    assert failed(study(**changed)) == [claim]


def test_another_verdict_on_the_lossless_store_is_named(study):
    other = study(verdicts={"Heart": [EQUIVALENT, UNDECIDED]})
    assert failed(study(), other) == [("same verdicts without JPEG", "m, Heart")]
    assert failed(study(), study()) == []


def test_the_table_is_markdown(study):
    lines = truth.table_of(truth.claims_of(study(energy=0.25))).splitlines()
    assert lines[1] == "|---|---|---|---|---|"
    assert [line[:6] for line in lines].count("| FAIL") == 1
