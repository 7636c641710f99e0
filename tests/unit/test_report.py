"""The report: what it says, what it keeps to itself, and that it works on the smallest studies."""

import dataclasses
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cxrscale import figures
from cxrscale.evaluation.comparison import DIFFERENCES, LEVELS, SUFFICIENT
from cxrscale.evaluation.metrics import MEAN, METRICS
from cxrscale.figures import ActivationMaps
from cxrscale.report.content import DASH, KEY, Cell, ReportSettings, Results, average, measure, number
from cxrscale.report.explaining import draw_activation
from cxrscale.report.page import draw_figures, picture, render_local, render_report, summary_lines, warnings_of
from cxrscale.report.performance import performance_tables
from cxrscale.report.planted import agreement, expected_gain, planted_table
from cxrscale.report.resolutions import Answer, answer, answer_cell, average_levels
from cxrscale.report.study import findings_table, images_table, protocol_table, store_table
from cxrscale.stacking import STACKED, WEIGHTS

NAN = float("nan")
IMAGE_ID = "0a1b2c-patient-image"
SPLITS = ["train", "train", "validate", "validate", "combine", "combine", "test", "test"]
SCORED = [
    ("auroc", "image", "all", "clustered"),
    ("auroc", "image", "all", "bootstrap"),
    ("auroc", "image", "all", "delong"),
    ("auroc", "study", "all", "clustered"),
    ("auroc", "image", "view: <AP>", "clustered"),
    ("average_precision", "image", "all", "bootstrap"),
    ("sensitivity", "image", "all", "clustered"),
    ("brier", "image", "all", "clustered"),
    ("calibration_error", "image", "all", "none"),
    ("calibration_error_chance", "image", "all", "none"),
]


def framed(table, rows):
    names = [c.name for c in table.columns]
    return pd.DataFrame(rows, columns=names)


def make_settings(**changes) -> ReportSettings:
    settings = ReportSettings(
        title="A study", study="tiny", findings=None, patient_pictures=False, reference_px=64, margin_auroc=0.01,
        confidence=0.95, joint_confidence=0.99, geometry="stretch", native_at_least_px=0,
        settings=[["split.combine_fraction", 0.1, 0.1], ["seeds", [0], [0]], ["training.epochs", 2, 30]],
    )  # fmt: skip
    return dataclasses.replace(settings, **changes)


def make_results(
    findings=("A", "B"), models=("m", "n"), resolutions=(32, 64), folds=(0,), seeds=(0,), undefined=()
) -> Results:
    """A study where the lower resolutions are as good as 64 px for A, worse for B, and 0.8 everywhere for others."""
    learners = list(itertools.product(models, resolutions, folds, seeds))
    keys = pd.DataFrame(learners, columns=KEY)
    reference = max(resolutions)
    levels, differences, sufficient, weights, stacked, metrics = [], [], [], [], [], []
    for model, finding in itertools.product(models, [*findings, *([MEAN] if len(findings) > 1 else [])]):
        known, gain = finding not in undefined, 0.2 if finding == "B" else 0.0
        reason = None if known else "no positive image"
        for resolution, fold, seed in itertools.product(resolutions, folds, seeds):
            value = (0.8 - gain * (resolution < reference)) if known else NAN
            levels.append(
                [
                    model, finding, fold, seed, resolution, value, value - 0.1, value + 0.1, value - 0.2, value + 0.2,
                    5 if known else 0, 7, reason,
                ]
            )  # fmt: skip
        for r, against in itertools.permutations(resolutions, 2) if known else ():
            d = gain * ((r == reference) - (against == reference))
            verdict = "equivalent" if d == 0 else "better" if d > 0 else "worse"
            n = len(folds) * len(seeds)
            differences.append([model, finding, r, against, d, d - 0.005, d + 0.005, verdict, n, None])
        enough = reference if gain else min(resolutions)
        found = [enough, 0.8 - gain, 0.8, None] if known else [None, None, None, "AUROC is undefined in every fold"]
        sufficient.append([model, finding, reference, *found])
    for model, finding, fold, seed in itertools.product(models, findings, folds, seeds):
        known = finding not in undefined
        reason = None if known else "no positive image"
        for r in resolutions:
            weights.append([model, fold, seed, finding, model, r, 1 / len(resolutions), None])
        for method in ("best_single", "mean", "softmax"):
            values = [0.7, 0.6, 0.8, 0.03, 0.01, 0.05] if known else [NAN] * 6
            stacked.append(
                [model, fold, seed, finding, method, *values, "m-64" if method == "best_single" else None, reason]
            )
    for finding in findings:
        known = finding not in undefined
        values = [0.5, 0.4, 0.6] if known else [NAN] * 3
        reason = None if known else "no positive image"
        for metric, level, group, interval in SCORED:
            ends = values if interval != "none" else [values[0], NAN, NAN]
            metrics.append([finding, metric, "test", level, group, interval, *ends, 12, 4, 5, 7, reason])
    targets = pd.DataFrame(
        {"image_id": [f"{IMAGE_ID}{i}" for i in range(8)], "subject_id": [f"subject-{i}" for i in range(8)]}
    )
    targets = targets.assign(study_id=targets["subject_id"], view="PA", split=SPLITS)
    for finding in findings:
        targets[f"target:{finding}"], targets[f"mask:{finding}"] = [0, 1] * 4, 1
    sizes = pd.DataFrame(
        {
            "state": ["initial", "trained"], "sigma_px": 8.0, "sigma_fraction": 0.25, "radius50_px": 9.0,
            "radius50_fraction": 0.28, "centroid_x_px": 16.0, "centroid_y_px": 16.0, "n_images": 8,
        }
    )  # fmt: skip
    cost = {
        "seconds": 12.5, "images_per_second": 100.0, "peak_memory_mb": 800.0, "device": "cpu", "best_epoch": 1,
        "epochs": 2, "converged": True, "identity": {"inputs": "feedc0de"}, "versions": {"torch": "2.9"},
    }  # fmt: skip
    curve = pd.DataFrame({"epoch": [1, 2], "validation_auroc": [0.7, 0.6]})

    def of_learners(frame):
        return pd.concat([frame.assign(**dict(zip(KEY, k, strict=True))) for k in learners], ignore_index=True)

    map_ = np.full((32, 32), 1 / 1024)
    return Results(
        learners=keys,
        levels=framed(LEVELS, levels),
        differences=framed(DIFFERENCES, differences),
        sufficient=framed(SUFFICIENT, sufficient),
        weights=framed(WEIGHTS, weights),
        stacked=framed(STACKED, stacked),
        metrics=of_learners(framed(METRICS, metrics)),
        history=of_learners(curve),
        fields=of_learners(sizes),
        costs=[dict(cost) for _ in learners],
        field_maps={(m, r): {"initial": map_, "trained": map_} for m in models for r in resolutions},
        activation=[
            ActivationMaps(
                m, r, [findings[0]], [f"{IMAGE_ID}6"], np.ones((1, 2, 2)), np.full((1, 32, 32), 90, np.uint8)
            )
            for m in models
            for r in resolutions
        ],
        targets=dict.fromkeys(folds, targets),
        quarantine=pd.DataFrame({"image_id": ["lost-image"], "path": ["files/lost.jpg"], "reason": ["is absent"]}),
        manifest=pd.DataFrame(
            {"image_id": targets["image_id"], "native_height_px": 80, "native_width_px": 40, "native_px": 40}
        ),
        stores=pd.DataFrame(
            {
                "resolution_px": [32, 64],
                "images": 40,
                "bytes": 2_000_000,
                "enlarged": [0, 40],
                "sampled": 8,
                "jpeg_db": [44.04, np.nan],
                "jpeg_db_least": [41.0, np.nan],
                "direct_db": [40.0, 39.0],
                "direct_db_least": [38.0, 37.0],
            }
        ),
    )


def make_pages(results: Results, settings: ReportSettings, folder) -> tuple[str, str]:
    """The shareable and the local page, with all figures drawn."""
    paths = {}
    for name, figure in draw_figures(results, settings).items():
        paths[name] = folder / f"{name}.png"
        figures.save(figure, paths[name])
    paths["cam"] = folder / "cam.png"
    figures.save(draw_activation(results, settings), paths["cam"])
    return render_report(results, settings, paths), render_local(results, settings, paths["cam"])


class Page(HTMLParser):
    """The visible text of a page, its tags, and what its attributes point to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.links, self._style = "", [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._style = tag == "style"
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, data):
        self.text += "" if self._style else data + " "


def test_findings_are_escaped_everywhere(tmp_path):
    results = make_results(findings=("<b>x</b>", "<script>alert(1)</script>"), undefined=("<b>x</b>",))
    pages = make_pages(results, make_settings(title="<i>title</i>"), tmp_path)
    for page in pages:
        assert "<b>x</b>" not in page
        assert "<script" not in page
        assert "<i>" not in page
        assert "&lt;b&gt;x&lt;/b&gt;" in page


def test_pictures_and_ids_stay_in_the_local_page(tmp_path):
    results = make_results()
    shared, local = make_pages(results, make_settings(), tmp_path)
    cam = picture("cam", tmp_path / "cam.png", results, make_settings())["data"]
    for secret in (IMAGE_ID, "subject-", "lost-image", "files/lost.jpg", cam):
        assert secret not in shared
    for kept in (f"{IMAGE_ID}6", "lost-image", "files/lost.jpg", cam, "Do not share"):
        assert kept in local
    allowed, local = make_pages(results, make_settings(patient_pictures=True), tmp_path)
    assert cam in allowed
    assert cam in local
    assert "also in report.html" in local
    assert "lost-image" not in allowed


def test_the_page_asks_for_nothing(tmp_path):
    for page in make_pages(make_results(), make_settings(patient_pictures=True), tmp_path):
        links = Page(page).links
        assert links  # the loop below ran
        for link in links:
            assert link.startswith(("#", "data:image/png;base64,"))
        assert not re.search(r"@import|url\(|<script|<link|<iframe", page)


def test_internal_links_have_targets(tmp_path):
    page = make_pages(make_results(), make_settings(), tmp_path)[0]
    anchors = [link[1:] for link in Page(page).links if link.startswith("#")]
    assert len(anchors) > 5
    assert not [a for a in anchors if f'id="{a}"' not in page]


def test_undefined_values_show_their_reason_and_never_nan(tmp_path):
    page, _ = make_pages(make_results(undefined=("B",)), make_settings(), tmp_path)
    text = Page(page).text
    assert "no positive image" in text
    assert DASH in text
    assert not re.search(r"\b(nan|None|NaN|NaT|<NA>|inf)\b", text)
    assert "B, fold 0: AUROC is undefined (no positive image)." in text


@pytest.mark.parametrize(
    "study",
    [
        {"findings": ("A",)},
        {"models": ("m",)},
        {"resolutions": (64,)},
        {"findings": ("A",), "models": ("m",), "resolutions": (64,)},
        {"findings": ("A",), "undefined": ("A",)},
        {"folds": (0, 1), "seeds": (0, 1)},
    ],
    ids=lambda study: " ".join(study),
)
def test_small_and_large_studies_work(study, tmp_path):
    results = make_results(**study)
    text = Page(make_pages(results, make_settings(), tmp_path)[0]).text
    assert not re.search(r"\b(nan|None)\b", text)
    lines = summary_lines(results, make_settings(), "results/tiny/report/report.html")
    assert 5 <= len(lines) <= 10
    assert lines[-1] == "Report: results/tiny/report/report.html"
    assert ("one seed" in text) == ("seeds" not in study)
    assert ("averaged over 4 folds and seeds" in text) == ("folds" in study)


def test_answers_are_sorted_into_what_the_data_say():
    results, settings = make_results(models=("m",)), make_settings()
    levels = average_levels(results)
    assert answer(results, levels, settings, "m", "A") == Answer("A", "suffices", 32)
    assert answer(results, levels, settings, "m", "B") == Answer("B", "needed", 64)
    undecided = results.differences.assign(verdict="undecided")
    changed = dataclasses.replace(results, differences=undecided)
    assert answer(changed, levels, settings, "m", "B").kind == "undecided"
    at_chance = levels.assign(lower=0.5)
    assert answer(results, at_chance, settings, "m", "A").kind == "chance"
    gone = make_results(models=("m",), undefined=("A",))
    assert (
        answer(gone, average_levels(gone), settings, "m", "A").reason
        == "AUROC is undefined in every fold: no positive image"
        == "AUROC is undefined in every fold: no positive image"
    )
    single = make_results(models=("m",), resolutions=(64,))
    assert answer(single, average_levels(single), settings, "m", "A").kind == "smallest"


def test_the_answer_names_resolutions_between_that_were_not_shown_to_suffice():
    results = make_results(models=("m",), resolutions=(16, 32, 64))
    odd = (results.differences["resolution_px"] == 32) & (results.differences["against_px"] == 64)
    changed = results.differences.assign(lower=results.differences["lower"].mask(odd, -0.3))
    results = dataclasses.replace(results, differences=changed)
    found = answer(results, average_levels(results), make_settings(), "m", "A")
    assert (found.px, found.exceptions) == (16, (32,))
    assert answer_cell(found, make_settings()).note == "but 32 px not shown to"


def test_the_answer_stands_in_summary_and_page(tmp_path):
    results = make_results(models=("m",))
    sentence = "32 px suffices for A; 64 px, the reference, is needed for B (every smaller one is worse)."
    assert f"m: {sentence}" in summary_lines(results, make_settings(), "x")
    text = Page(make_pages(results, make_settings(), tmp_path)[0]).text
    assert sentence in text
    assert text.index("The answer") < text.index(sentence) < text.index("What it costs")
    assert "0.800" in text
    assert "+0.200" in text  # reference minus lowest, B


def test_averages_are_of_defined_values_and_intervals_need_all_ends():
    frame = pd.DataFrame(
        {
            "finding": ["A", "A", "A", "B", "B"], "value": [0.6, 0.8, NAN, 0.5, 0.7],
            "lower": [0.5, 0.7, NAN, 0.4, NAN],
            "reason": [None, None, "no positive image", None, "few"],
        }
    )  # fmt: skip
    averaged = average(frame, ["finding"], ["value", "lower"]).set_index("finding")
    assert averaged.loc["A", "value"] == pytest.approx(0.7)
    assert averaged.loc["A", "lower"] == pytest.approx(0.6)
    assert averaged.loc["A", "n"] == 2
    assert averaged.loc["B", "value"] == pytest.approx(0.6)
    assert np.isnan(averaged.loc["B", "lower"])
    assert measure(dict(averaged.loc["B"]), "value", "lower", "lower").note == "no interval: few"


def test_warnings_name_what_weakens_the_numbers():
    results = make_results()
    late = [dict(c, converged=False, best_epoch=2) if i == 0 else c for i, c in enumerate(results.costs)]
    merged = {0: results.targets[0].replace({"split": {"combine": "validate"}})}
    unfitted = results.weights.assign(reason="no positive image to fit on")
    changed = dataclasses.replace(results, costs=late, targets=merged, weights=unfitted)
    warned = " ".join(warnings_of(changed, make_settings()))
    for expected in (
        "m at 32 px, fold 0, seed 0: not converged",
        "fitted on validate",
        "one seed",
        "A, fold 0: stacking weights are equal, not fitted (no positive image to fit on)",
        "1 images could not be used",
    ):
        assert expected in warned
    several = " ".join(warnings_of(make_results(seeds=(0, 1)), make_settings()))
    for absent in ("converged", "validate", "one seed", "stacking"):
        assert absent not in several


def test_only_chosen_findings_are_shown(tmp_path):
    results = make_results(findings=("Alpha", "Beta"))
    text = Page(make_pages(results, make_settings(findings=["Beta"]), tmp_path)[0]).text
    assert "Alpha" not in text
    assert "Beta" in text


def test_deviations_from_the_default_protocol_are_marked():
    table = protocol_table(make_settings())
    assert table.marked == frozenset({2})
    assert [c.text for c in table.cells[2]] == ["training.epochs", "2", "30"]
    assert "1 of 3 deviate" in table.caption


def test_planted_truth_is_held_against_the_findings(tmp_path):
    planted = pd.DataFrame(
        {
            "finding": ["A", "B", "C"], "pattern": ["heart", "grating", "none"], "wavelength": [0.0, 0.05, 0.0],
            "contrast": 0.2, "prevalence": 0.3,
        }
    )  # fmt: skip
    results = dataclasses.replace(make_results(findings=("A", "B", "C"), models=("m",)), planted=planted)
    table = planted_table(results, average_levels(results), make_settings())
    rows = {row[0].text: [c.text for c in row] for row in table.cells}
    assert rows["A"][5] == "no gain"
    assert rows["A"][7] == "as planted"
    assert rows["B"][3:6] == ["0.050", "40", "a gain"]  # 2 / 0.05
    assert rows["B"][6:] == ["+0.200", "as planted"]
    assert rows["C"][7] == "not as planted"  # 0.8 - 0.2 > 0.5
    assert "Against the planted truth" in make_pages(results, make_settings(), tmp_path)[0]
    chance = dataclasses.replace(results, levels=results.levels.assign(joint_lower=0.4, joint_upper=0.6))
    table = planted_table(chance, average_levels(chance), make_settings())
    assert table.cells[2][7] == Cell("as planted", "all 2 joint 99% intervals hold 0.5")


def test_what_sampling_theory_expects():
    assert expected_gain("grating", 40, 32, 64) == "a gain"
    assert expected_gain("grating", 20, 32, 64) == "no gain"
    assert expected_gain("line", 100, 32, 64) == "visible at neither"
    assert expected_gain("heart", None, 32, 64) == "no gain"
    assert expected_gain("none", None, 32, 64).startswith("no signal")


def test_nothing_learned_is_no_agreement():
    gain = {"lower": -0.005, "upper": 0.005, "reason": None}
    assert agreement("no gain", gain, 0.01, seen=True).text == "as planted"
    assert agreement("no gain", gain, 0.01, seen=False).text == "undecided"
    assert agreement("a gain", gain, 0.01, seen=True).text == "undecided"
    assert agreement("no gain", gain | {"lower": 0.02, "upper": 0.1}, 0.01, seen=True).text == "not as planted"


def test_images_out_of_the_store_do_not_count():
    results = make_results()
    results = dataclasses.replace(results, manifest=results.manifest.iloc[1:])
    row = images_table(results, make_settings()).cells[0]
    assert row[1] == Cell("1 images", "1 patients")
    assert row[5].text == "1"
    counts = findings_table(results, make_settings()).cells[0]
    assert counts[2].text == "1 / 0"


def test_enlarged_images_are_counted_and_those_left_out_are_named():
    results = make_results()
    cells = store_table(results).cells
    assert [c.text for c in cells[1]] == ["64 px", "40", "0.002 GB", "40", DASH, "39.0 dB"]
    assert cells[1][3].note == "100.0% of the images"
    assert cells[0][4] == Cell("44.0 dB", "least 41.0")
    strict = make_settings(native_at_least_px=64)
    assert "whose native file is smaller than 64 px are left out" in " ".join(warnings_of(results, strict))
    assert images_table(results, strict).cells[0][1].text == "0 images"


def test_numbers_have_a_true_minus_and_fixed_decimals():
    assert number(-0.04567, signed=True) == "\N{MINUS SIGN}0.046"
    assert number(0.04567, signed=True) == "+0.046"
    assert number(12345.6, 1) == "12,345.6"
    assert number(None) == number(NAN) == DASH


def test_the_page_is_the_same_twice(tmp_path):
    first, second = (make_pages(make_results(), make_settings(), tmp_path) for _ in range(2))
    assert first == second


def test_performance_shows_the_reference_and_says_what_is_missing():
    results = make_results(findings=("A", "B"), models=("m",), undefined=("B",))
    metrics = results.metrics
    metrics.loc[metrics["resolution_px"] == 32, "value"] = 0.9  # not the reference
    metrics.loc[metrics["metric"] == "calibration_error_chance", "value"] = 0.02
    by_image, groups, calibration, variance = performance_tables(results, make_settings())
    assert by_image.cells[0][2] == by_image.cells[0][3] == Cell("0.500", "0.400 to 0.600")
    assert by_image.cells[0][6] == Cell(DASH, "not computed")  # no specificity
    assert by_image.cells[1][2] == Cell(DASH, "no positive image")
    assert "at 64 px" in by_image.caption
    assert groups.head == ["Model", "Finding", "All", "view: <AP>"]
    assert calibration.cells[0][3] == Cell("0.500", "by chance 0.020")
    assert calibration.cells[1][3] == Cell(DASH, "no positive image")
    assert [c.text for c in variance.cells[0]] == ["m", "A", "0.500", "0.500", "0.500"]
    without = dataclasses.replace(results, metrics=metrics[metrics["group"] == "all"])
    assert len(performance_tables(without, make_settings())) == 3
