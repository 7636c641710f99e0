"""Maps against boxes: measures, the best of a grid, chance and intervals, by hand."""

import numpy as np
import pandas as pd
import pytest

from cxrscale.common import tables
from cxrscale.common.rows import ALL_FINDINGS
from cxrscale.explain.contracts import LOCALISATION
from cxrscale.explain.localisation import (
    GRID,
    NO_BOX,
    NO_THRESHOLD,
    ONE_PATIENT,
    THRESHOLDS,
    averaging,
    best_on_grid,
    energy_inside,
    enlarge,
    hit,
    interpolation,
    mean_interval,
    measure_maps,
    overlaps,
    summarise,
)

#: The upper left quarter of a 4 x 4 map.
QUARTER = np.zeros((4, 4), dtype=bool)
QUARTER[:2, :2] = True
MAP = np.array(
    [
        [4.0, 2.0, 1.0, 0.0],
        [2.0, 0.0, 0.0, -3.0],
        [1.0, 0.0, -1.0, 0.0],
        [0.0, 0.0, 0.0, 6.0],
    ]
)


def test_measures_of_a_map_of_four_by_four():
    assert hit(MAP, QUARTER) == 0  # the largest is 6, lower right
    assert hit(np.where(MAP == 6, 0, MAP), QUARTER) == 1
    assert energy_inside(MAP, QUARTER) == pytest.approx(8 / 16)
    found = dict(zip(THRESHOLDS.round(2), overlaps(MAP, QUARTER), strict=True))
    assert found[0.05] == found[0.15] == pytest.approx(3 / 7)  # marked 4 2 2 1 1 6: three inside, four in the box
    assert found[0.2] == found[0.3] == pytest.approx(3 / 5)  # above 1: 4 2 2 6
    assert found[0.35] == found[0.65] == pytest.approx(1 / 5)  # above 2: 4 6
    assert found[0.7] == found[0.95] == 0  # 6 alone


def test_a_value_on_the_threshold_is_marked():
    map_ = np.zeros((4, 4))
    map_[:2, :2] = [[1.0, 0.3], [0.3, 0.3]]
    found = dict(zip(THRESHOLDS.round(2), overlaps(map_, QUARTER), strict=True))
    assert found[0.3] == 1
    assert found[0.35] == pytest.approx(1 / 4)


def test_equal_values_count_by_their_share():
    assert hit(np.ones((4, 4)), QUARTER) == pytest.approx(1 / 4)
    two = np.zeros((4, 4))
    two[0, 0] = two[3, 3] = 1
    assert hit(two, QUARTER) == pytest.approx(1 / 2)


def test_an_even_map_is_chance():
    even = np.ones((4, 4))
    assert hit(even, QUARTER) == energy_inside(even, QUARTER) == QUARTER.mean()
    assert overlaps(even, QUARTER) == pytest.approx(np.full(19, QUARTER.mean()))


def test_a_map_that_speaks_against_everywhere_has_a_largest_value_but_no_energy():
    against = -1.0 - np.arange(16.0).reshape(4, 4)
    assert hit(against, QUARTER) == 1
    assert energy_inside(against, QUARTER) == 0
    assert overlaps(against, QUARTER).tolist() == [0] * 19
    assert energy_inside(np.zeros((4, 4)), QUARTER) == 0


def test_enlarging_is_bilinear_about_the_middles_of_units():
    # Middles of two units at 1/4 and 3/4; of four cells at 1/8, 3/8, 5/8, 7/8.
    assert interpolation(4, 2) == pytest.approx(np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]))
    assert enlarge(np.array([[1.0, 3.0]]), 4) == pytest.approx(np.tile([1, 1.5, 2.5, 3], (4, 1)))
    assert averaging(2, 4).tolist() == [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    assert averaging(2, 3) == pytest.approx(np.array([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]))
    for n in (1, 2, 3, 7, 64, 300):
        assert interpolation(GRID, n).sum(axis=1) == pytest.approx(1)
        assert averaging(n, GRID).sum(axis=1) == pytest.approx(1)


def test_enlarging_agrees_with_torch():
    import torch

    map_ = np.random.default_rng(0).normal(size=(3, 5))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(map_)[None, None], size=(64, 64), mode="bilinear", align_corners=False
    )
    assert enlarge(map_, 64) == pytest.approx(expected[0, 0].numpy())


def test_the_best_of_a_grid_by_hand():
    """Two by two units over four by four cells and a box of the upper left quarter: one unit alone, enlarged, is
    1 3/4 1/4 0 along each axis: of its energy (1.75 / 2)^2 lies inside, its peak too. The box averaged is that unit:
    at 0.25 and above lie 9 cells without the corner of 1/16, at 0.3 and above the four inside alone."""
    best = best_on_grid(QUARTER, 2, 2)
    assert best.energy == pytest.approx((1.75 / 2) ** 2)
    assert best.hit == 1
    assert best.iou == 1
    one = best_on_grid(QUARTER, 1, 1)
    assert (one.energy, one.hit, one.iou) == pytest.approx((1 / 4, 1 / 4, 1 / 4))  # one unit can only be even


def test_no_map_of_the_grid_has_more_energy_inside_or_hits_more_often():
    rng = np.random.default_rng(1)
    mask = np.zeros((32, 32), dtype=bool)
    mask[9:14, 5:13] = True
    best = best_on_grid(mask, 4, 4)
    units = [np.eye(16)[k].reshape(4, 4) for k in range(16)]
    tried = [enlarge(rng.exponential(size=(4, 4)) ** 4, 32) for _ in range(300)] + [enlarge(u, 32) for u in units]
    assert max(energy_inside(m, mask) for m in tried) == pytest.approx(best.energy)
    assert max(hit(m, mask) for m in tried) == best.hit


def test_a_box_between_the_middles_of_units_is_hit_by_chance_at_best():
    mask = np.zeros((32, 32), dtype=bool)
    mask[7:9, 7:9] = True  # four units of eight cells: their middles are at 4, 12, 20 and 28
    assert best_on_grid(mask, 4, 4).hit == mask.mean()
    assert best_on_grid(mask, 32, 32).hit == 1


QUARTER_BOX = (0.0, 0.0, 0.5, 0.5)
SMALL_BOX = (0.0, 0.0, 0.125, 0.125)  # 1/64 of the picture


def chosen(n_combine=4, n_test=6, finding="A"):
    splits = ["combine"] * n_combine + ["test"] * n_test
    return pd.DataFrame(
        {
            "finding": finding,
            "image_id": [f"{finding}{k}" for k in range(len(splits))],
            "split": splits,
            "subject_id": [f"p{k // 2}" for k in range(len(splits))],
        }
    )


def unit(row, column, size=4):
    map_ = np.zeros((size, size))
    map_[row, column] = 1
    return map_


def test_localisation_from_maps_to_table(tmp_path):
    pairs = pd.concat([chosen(), chosen(finding="B", n_combine=0, n_test=2)], ignore_index=True)
    boxes = {(f, i): [QUARTER_BOX] for f, i in zip(pairs["finding"], pairs["image_id"], strict=True)}
    boxes["A", "A9"] = [SMALL_BOX]
    maps = [unit(0, 0)] * 8 + [unit(3, 3), unit(0, 0)] + [-np.ones((4, 4)), unit(1, 1)]
    measured = measure_maps(pairs, iter(maps), boxes)
    assert measured["area"].tolist() == pytest.approx([1 / 4] * 9 + [1 / 64] + [1 / 4] * 2)
    table = summarise(measured, ["A", "B", "C"], [0.02, 0.1], 0.95)
    tables.write(LOCALISATION, table, tmp_path / "localisation.csv")
    by = table.set_index(["finding", "size", "measure"])
    assert by.loc[("A", "all", "hit"), "value"] == pytest.approx(
        (4 + 0 + hit(enlarge(unit(0, 0)), np.pad(np.ones((32, 32), bool), (0, 224)))) / 6
    )
    assert by.loc[("A", "all", "hit"), ["n_maps", "n_patients", "n_against"]].tolist() == [6, 3, 0]
    assert by.loc[("A", "small", "hit"), "n_maps"] == 1
    assert by.loc[("A", "small", "hit"), "reason"] == ONE_PATIENT
    assert by.loc[("A", "medium", "hit"), "reason"] == NO_BOX
    assert by.loc[("A", "large", "energy"), "chance"] == pytest.approx(1 / 4)
    assert by.loc[("A", "large", "energy"), "best"] == pytest.approx(best_on_grid(QUARTER_MASK, 4, 4).energy)
    # The mean of A's boxes in combine is the quarter itself.
    assert by.loc[("A", "large", "energy"), "blind"] == pytest.approx(1)
    assert by.loc[("A", "large", "iou"), "blind"] == pytest.approx(1)
    # B speaks against everywhere in one of two images; nothing is known of its place from combine.
    assert by.loc[("B", "all", "hit"), ["n_maps", "n_against"]].tolist() == [2, 1]
    assert by.loc[("B", "all", "energy"), "value"] == pytest.approx(
        energy_inside(enlarge(unit(1, 1)), QUARTER_MASK) / 2
    )
    assert np.isnan(by.loc[("B", "all", "energy"), "blind"])
    assert table.loc[table["finding"] == "C", "reason"].tolist() == [NO_BOX] * 12
    assert by.loc[(ALL_FINDINGS, "all", "hit"), "n_maps"] == 8


QUARTER_MASK = np.zeros((GRID, GRID), dtype=bool)
QUARTER_MASK[: GRID // 2, : GRID // 2] = True


def test_the_threshold_is_chosen_on_combine_alone():
    pairs = chosen()
    boxes = {("A", i): [QUARTER_BOX] for i in pairs["image_id"]}
    high, low = np.ones((4, 4)), np.full((4, 4), 0.05)
    high[2:], high[:, 2:] = 0.5, 0.5  # the box stands out above a half
    low[:2, :2] = [[1, 0.3], [0.3, 0.3]]  # the box stands out below it
    cuts = []
    for in_combine, in_test in ((high, high), (high, low), (low, high)):
        measured = measure_maps(pairs, [in_combine] * 4 + [in_test] * 6, boxes)
        table = summarise(measured, ["A"], [0.02, 0.1], 0.95).set_index(["finding", "size", "measure"])
        row = table.loc[("A", "all", "iou")]
        expected = overlaps(enlarge(in_test), QUARTER_MASK)[np.isclose(THRESHOLDS, row["threshold"]).argmax()]
        assert row["value"] == pytest.approx(expected)
        cuts.append(float(row["threshold"]))
    assert cuts[0] == cuts[1] > 0.5
    assert cuts[2] < 0.35


def test_without_boxes_in_combine_there_is_no_iou():
    pairs = chosen(n_combine=0)
    measured = measure_maps(pairs, [unit(0, 0)] * 6, {("A", i): [QUARTER_BOX] for i in pairs["image_id"]})
    table = summarise(measured, ["A"], [0.02, 0.1], 0.95).set_index(["finding", "size", "measure"])
    assert table.loc[("A", "all", "iou"), "reason"] == NO_THRESHOLD
    assert table.loc[("A", "all", "hit"), "value"] == 1
    assert len(summarise(measure_maps(chosen(0, 0), [], {}), ["A"], [0.02, 0.1], 0.95)) == 2 * 4 * 3


def test_with_one_image_a_patient_the_interval_is_wilsons():
    """10 of 40, each of another patient: n grows by the 39/40 of the unbiased variance; t instead of z."""
    from scipy.stats import t

    values = np.repeat([1.0, 0.0], [10, 30])
    lower, upper = mean_interval(values, np.arange(40), 0.95)
    z, n = t.ppf(0.975, 39), 39
    for end in (lower, upper):
        assert (0.25 - end) ** 2 == pytest.approx(z**2 * end * (1 - end) / n)  # what Wilson's ends solve
    assert lower < 0.25 < upper


def test_patients_are_the_unit_of_the_interval():
    values = np.repeat([1.0, 0.0], [10, 30])
    once = mean_interval(values, np.arange(40), 0.95)
    copied = mean_interval(np.repeat(values, 5), np.repeat(np.arange(40), 5), 0.95)
    assert copied == pytest.approx(once)
    apart = mean_interval(np.repeat(values, 5), np.arange(200), 0.95)
    assert apart[1] - apart[0] < 0.6 * (once[1] - once[0])


def test_intervals_keep_a_width_and_stay_within_zero_and_one():
    lower, upper = mean_interval(np.ones(12), np.arange(12), 0.95)
    assert upper == 1
    assert lower < 0.8
    assert mean_interval(np.zeros(12), np.arange(12), 0.95)[1] > 0.2
    assert np.isnan(mean_interval(np.ones(3), np.zeros(3), 0.95)).all()


def test_the_interval_holds_the_mean_as_often_as_it_claims():
    """40 patients of 1 to 4 maps each; their own rates spread widely about 0.7."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        count = rng.integers(1, 5, 40)
        rate = rng.beta(1.4, 0.6, 40)
        patient = np.repeat(np.arange(40), count)
        lower, upper = mean_interval((rng.random(len(patient)) < rate[patient]).astype(float), patient, 0.95)
        held += lower <= 0.7 <= upper
    assert 0.925 <= held / 400 <= 0.985
