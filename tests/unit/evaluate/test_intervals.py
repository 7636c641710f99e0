import numpy as np
import pytest
from scipy.stats import norm

from cxrscale.evaluate.averaging import FoldAuroc, level_intervals, means_over
from cxrscale.evaluate.clustered import components
from cxrscale.evaluate.intervals import error_interval


def test_intervals_by_hand():
    """On the logit scale 0.8 is log 4 and the error 0.05 / (0.8 * 0.2) = 0.3125."""
    assert error_interval(2.0, 0.5, 0.95, within_0_and_1=False) == pytest.approx((1.020018, 2.979982), abs=1e-6)
    odds = 4 * np.exp(np.array([-1, 1]) * 0.3125 * 1.959964)
    assert error_interval(0.8, 0.05, 0.95, within_0_and_1=True) == pytest.approx(odds / (1 + odds), abs=1e-6)
    # 2.776445 is the table's 97.5 % quantile of t with 4 degrees of freedom.
    assert error_interval(0.0, 1.0, 0.95, within_0_and_1=False, degrees_of_freedom=4)[1] == pytest.approx(2.776445)


@pytest.mark.parametrize(("value", "error"), [(1.0, 0.0), (0.0, 0.1), (0.7, 0.0), (0.7, np.nan)])
def test_no_error_no_interval(value, error):
    assert np.isnan(error_interval(value, error, 0.95, within_0_and_1=True)).all()


def test_the_clustered_interval_covers_the_true_auroc():
    """600 data sets of 300 patients with 1 to 4 images that share the patient's effect, 30 patients ill. True AUROC:
    P(N(2, 1) > N(0, 1)) = Phi(2 / sqrt(2)) = 0.921. 95 % within three standard errors of counting (2.7 %) is what
    the interval promises; one that takes images for independent falls far short, and Wald's behind."""
    rng = np.random.default_rng(11)
    truth = norm.cdf(2 / np.sqrt(2))
    covered = {"clustered": 0, "wald": 0, "images": 0}
    n = 600
    for _ in range(n):
        patient = np.repeat(np.arange(300), rng.integers(1, 5, 300))
        ill = (np.arange(300) < 30)[patient]
        score = np.sqrt(0.7) * rng.normal(size=300)[patient] + np.sqrt(0.3) * rng.normal(size=len(patient)) + 2 * ill
        found = components(score, ill, patient)
        alone = components(score, ill, np.arange(len(patient)))
        for name, which in (("clustered", found), ("wald", found), ("images", alone)):
            (mean,) = means = means_over([FoldAuroc.of(which, 1)], np.eye(1))
            ends = level_intervals(means, 0.95)
            if name == "wald":
                ends = [mean.value - norm.ppf(0.975) * mean.se], [mean.value + norm.ppf(0.975) * mean.se]
            covered[name] += ends[0][0] <= truth <= ends[1][0]
    share = {name: count / n for name, count in covered.items()}
    assert share["clustered"] == pytest.approx(0.95, abs=0.027)
    assert share["wald"] < share["clustered"]
    assert share["images"] < 0.85
