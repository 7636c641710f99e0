import numpy as np
import pytest

from cxrscale.evaluate import verdicts
from cxrscale.evaluate.averaging import Mean, difference_intervals

NAN = float("nan")


def mean(value, se, df=np.inf):
    return Mean(value, se, 0.0, df, 100, 100)


def test_holm_by_hand():
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, which may not fall."""
    assert verdicts.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    found = verdicts.holm(np.array([0.01, NAN, 0.9]))
    assert found[[0, 2]] == pytest.approx([0.02, 0.9])  # what was not tested is none of the family
    assert np.isnan(found[1])
    assert verdicts.holm(np.array([0.6, 0.7])) == pytest.approx([1, 1])
    assert len(verdicts.holm(np.array([]))) == 0


def test_p_and_intervals_from_tables_of_t():
    """The 97.5 % point of t is 2.228 at 10, 4.303 at 2 and 1.960 at infinitely many degrees of freedom."""
    means = [mean(0.02228, 0.01, 10), mean(-0.04303, 0.01, 2), mean(0.0196, 0.01)]
    assert verdicts.p_different(means) == pytest.approx([0.05] * 3, abs=1e-4)
    lower, upper = difference_intervals(means, 0.95)
    assert (upper - lower) / 2 == pytest.approx([0.02228, 0.04303, 0.0196], abs=1e-5)


def test_two_one_sided_tests_by_hand():
    """0.004 +- 0.002: 3 standard errors below a margin of 0.01 and 7 above minus that. P(Z < -3) = 0.00135."""
    means = [mean(0.004, 0.002), mean(-0.004, 0.002), mean(0.01, 0.002), mean(0.02, 0.002)]
    assert verdicts.p_equivalent(means, 0.01) == pytest.approx([0.00135, 0.00135, 0.5, 1], abs=1e-5)


def test_without_any_spread():
    assert verdicts.p_different([mean(0.0, 0.0)]) == pytest.approx([1])
    assert verdicts.p_equivalent([mean(0.0, 0.0)], 0.01) == pytest.approx([0])
    assert np.isnan(verdicts.p_different([mean(0.1, 0.0), mean(0.1, NAN)])).all()
    assert np.isnan(verdicts.p_equivalent([mean(0.001, 0.0), mean(NAN, NAN)], 0.01)).all()


@pytest.mark.parametrize(
    ("difference", "half", "p", "said"),
    [
        (0.0, 0.005, 1.0, "equivalent"),
        (-0.005, 0.004, 0.001, "equivalent"),  # shown, but it matters to nobody
        (-0.03, 0.02, 0.01, "worse than the reference"),
        (0.03, 0.02, 0.01, "better below it"),
        (-0.03, 0.02, 0.06, "undecided"),  # not after correction
        (-0.009, 0.004, 0.001, "undecided"),  # shown, but not to be large enough to matter
        (-0.009, 0.02, 0.3, "undecided"),
        (0.0, 0.01, 1.0, "undecided"),  # the interval reaches the margin
    ],
)
def test_verdicts_by_hand(difference, half, p, said):
    found = verdicts.verdict(difference, difference - half, difference + half, p, 0.01, 0.95)
    assert found == said
    above = verdicts.verdict(difference, difference - half, difference + half, p, 0.01, 0.95, below=False)
    assert above == {"worse than the reference": "worse above it", "better below it": "better above it"}.get(said, said)


def test_the_smallest_sufficient_goes_down_in_order():
    margin = 0.01
    assert verdicts.smallest_sufficient({256: -0.005, 512: -0.004, 1024: 0.0}, 2048, margin) == (256, [])
    assert verdicts.smallest_sufficient({256: -0.02, 512: -0.004, 1024: 0.0}, 2048, margin) == (512, [])
    assert verdicts.smallest_sufficient({256: -0.005, 512: -0.02, 1024: 0.0}, 2048, margin) == (1024, [256])
    assert verdicts.smallest_sufficient({256: -0.005, 512: 0.0, 1024: -0.01}, 2048, margin) == (2048, [256, 512])
    assert verdicts.smallest_sufficient({}, 2048, margin) == (2048, [])
    # A reference that is not the largest: what lies above it is no answer.
    assert verdicts.smallest_sufficient({256: -0.02, 1024: 0.0}, 512, margin) == (512, [])
