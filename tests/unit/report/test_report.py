"""The report: what it says, what it keeps to itself, and that it works on the smallest studies."""

import dataclasses
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cxrscale.combine.contracts import CONTROL, GAINS, SCALE_WEIGHTS, STACKED
from cxrscale.combine.methods import BEST_SINGLE, EQUAL, PRIMARY
from cxrscale.common.notes import NOTES
from cxrscale.common.rows import ALL_CHANNELS, CHOSEN, MEAN
from cxrscale.evaluate.contracts import AUROC, AVERAGES, DIFFERENCES, METRICS, SUFFICIENT
from cxrscale.evaluate.verdicts import scope_of, smallest_sufficient
from cxrscale.explain.contracts import FIELD_EFFECT, LENGTHS
from cxrscale.explain.field_effect import TOO_FEW, field_points
from cxrscale.explain.localisation import measure_maps, summarise
from cxrscale.report import figures
from cxrscale.report.cells import DASH, Cell, average_rows, measure, number, p_text
from cxrscale.report.explaining import (
    draw_activation,
    field_effect_sentences,
    fields_table,
    finding_fields_table,
    localisation_table,
)
from cxrscale.report.inputs import KEY, ActivationMaps, ReportSettings, Results
from cxrscale.report.page import draw_figures, picture, render_local, render_report, summary_lines, warnings_of
from cxrscale.report.performance import performance_tables
from cxrscale.report.planted import agreement, expected_gain, planted_table
from cxrscale.report.resolutions import (
    Answer,
    answer,
    answer_cell,
    answer_sentence,
    difference_cell,
    pairs_table,
    scope_sentence,
)
from cxrscale.report.study import bits_table, findings_table, images_table, protocol_table, store_table

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
    levels, averages, differences, sufficient, metrics = [], [], [], [], []
    weights, stacked, gains, control = [], [], [], []
    over = [len(folds), len(seeds), scope_of(len(seeds))]
    for model, finding in itertools.product(models, [*findings, *([MEAN] if len(findings) > 1 else [])]):
        known, gain = finding not in undefined, 0.2 if finding == "B" else 0.0
        reason = None if known else "no positive image"
        for resolution, fold, seed in itertools.product(resolutions, folds, seeds):
            value = (0.8 - gain * (resolution < reference)) if known else NAN
            levels.append(
                [
                    model, finding, fold, seed, resolution, value, value - 0.1, value + 0.1, value - 0.1, value + 0.1,
                    value - 0.2, value + 0.2, 5 if known else 0, 7, reason,
                ]
            )  # fmt: skip
        for r in resolutions:
            value = (0.8 - gain * (r < reference)) if known else NAN
            averages.append(
                [
                    model, finding, r, value, 0.05, 0.0, 40.0, value - 0.1, value + 0.1, value - 0.1, value + 0.1,
                    *over, None if known else "AUROC is undefined in every fold",
                ]
            )  # fmt: skip
        for r, against in itertools.combinations(resolutions, 2) if known else ():
            d = -gain * (against == reference)
            confirmatory = against == reference
            kind = "confirmatory" if confirmatory else "exploratory"
            verdict = ("equivalent" if d == 0 else "needs the reference") if confirmatory else None
            p, ends = (1.0 if d == 0 else 0.0001), [d - 0.005, d + 0.005]
            differences.append(
                [
                    model, finding, r, against, kind, d, 0.0025, 0.0, 40.0, *ends, d - 0.006, d + 0.006, p,
                    p if confirmatory else None, 0.01, verdict, *over, None,
                ]
            )  # fmt: skip
        enough = reference if gain else min(resolutions)
        nothing = [None, None, None, None, "AUROC is undefined in every fold"]
        found = [enough, None, 0.8 - gain, 0.8, None] if known else nothing
        sufficient.append([model, finding, reference, *found])
    for model, finding, fold, seed in itertools.product(models, findings, folds, seeds):
        known = finding not in undefined
        reason = None if known else "no positive image"
        where = {"ensemble": model, "fold": fold, "seed": seed, "finding": finding}
        for r in resolutions:
            share = 1 / len(resolutions)
            weights.append(
                where
                | {
                    "model": model,
                    "resolution_px": r,
                    "weight": share,
                    "lower": share / 2,
                    "upper": share,
                    "slope": 0.9,
                }
            )
        for method in (BEST_SINGLE, EQUAL, PRIMARY):
            single = "m-64" if method == BEST_SINGLE else None
            stacked.append(where | {"method": method, "log_loss": 0.3, "learner": single, "reason": reason})
    for model, finding in itertools.product(models, [*findings, *([MEAN] if len(findings) > 1 else [])]):
        known = finding not in undefined
        found = {"auroc": 0.7, "auroc_lower": 0.6, "auroc_upper": 0.8, "gain": 0.03, "lower": 0.01, "upper": 0.05}
        found |= {"p": 0.01, "p_holm": None if finding == MEAN else 0.02}
        row = (found if known else {}) | {"finding": finding, "reason": None if known else "no positive image"}
        for method, against in itertools.permutations((BEST_SINGLE, EQUAL, PRIMARY), 2):
            if against != PRIMARY:
                pair = {"ensemble": model, "method": method, "against": against, "n_learners": len(resolutions)}
                gains.append(row | pair)
        control.append(
            {"model": model, "finding": finding, "method": PRIMARY, "control": CHOSEN, "n_learners": len(resolutions)}
            | {"n_seeds": len(seeds), "reason": "2 learners of one resolution need 2 seeds, there is 1"}
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
            "state": ["random", *["trained"] * (1 + len(findings))],
            "finding": [ALL_CHANNELS, ALL_CHANNELS, *findings],
            **{f"{name}_{u}": v for name in LENGTHS for u, v in (("px", 8.0), ("fraction", 0.25))},
            "edge_ratio": 0.5, "cut_share": 0.1, "centroid_x_px": 16.0, "centroid_y_px": 16.0, "n_images": 8,
            "reason": None,
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
        levels=framed(AUROC, levels),
        averages=framed(AVERAGES, averages),
        differences=framed(DIFFERENCES, differences),
        sufficient=framed(SUFFICIENT, sufficient),
        weights=framed(SCALE_WEIGHTS, weights),
        stacked=framed(STACKED, stacked),
        gains=framed(GAINS, gains),
        control=framed(CONTROL, control),
        metrics=of_learners(framed(METRICS, metrics)),
        history=of_learners(curve),
        fields=of_learners(sizes),
        costs=[dict(cost) for _ in learners],
        field_points=field_points(
            of_learners(sizes),
            framed(DIFFERENCES, differences),
            findings,
            dict.fromkeys(models, resolutions),
            reference,
        ),
        field_effect=framed(FIELD_EFFECT, [[m, 0.5, -0.2, 0.9, 0.21, len(findings), None] for m in models]),
        field_maps={(m, r): {"random": map_, "trained": map_} for m in models for r in resolutions},
        activation=[
            ActivationMaps(
                m, r, [findings[0]], [f"{IMAGE_ID}6"], np.ones((1, 2, 2)), np.full((1, 32, 32), 90, np.uint8)
            )
            for m in models
            for r in resolutions
        ],
        targets=dict.fromkeys(folds, targets),
        notes=framed(
            NOTES, [("ids", "f.csv: subject_id is read in another spelling on 3 rows.", "'patient-9 ' as ...")]
        ),
        quarantine=pd.DataFrame({"image_id": ["lost-image"], "path": ["files/lost.jpg"], "reason": ["is absent"]}),
        index=pd.DataFrame(
            {"image_id": targets["image_id"], "native_height_px": 80, "native_width_px": 40, "native_px": 40}
        ).assign(native_bits=np.where(np.arange(len(targets)) % 4, 12, 8)),
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


def test_notes_stand_first_and_name_no_patient_in_the_page_to_share(tmp_path):
    results = make_results()
    for allowed in (False, True):
        page, local = make_pages(results, make_settings(patient_pictures=allowed), tmp_path)
        said = "Ids: f.csv: subject_id is read in another spelling on 3 rows."
        assert page.index("Read first") < page.index(said) < page.index("The answer")
        assert "patient-9" not in page
        assert "patient-9" in local
    assert f"Note: {said}" in summary_lines(results, make_settings(), "report.html")
    nothing = results.having(notes=results["notes"].iloc[:0])
    assert "Read first" not in make_pages(nothing, make_settings(), tmp_path)[0]


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
    assert ("One seed: verdicts are about these learners" in text) == ("seeds" not in study)
    assert ("averaged over 4 folds and seeds" in text) == ("folds" in study)


def test_answers_are_sorted_into_what_the_data_say():
    results, settings = make_results(models=("m",)), make_settings()
    assert answer(results, settings, "m", "A") == Answer("A", "suffices", 32)
    assert answer(results, settings, "m", "B") == Answer("B", "needed", 64)
    undecided = results["differences"].assign(verdict="undecided")
    changed = results.having(differences=undecided)
    assert answer(changed, settings, "m", "B").kind == "undecided"
    at_chance = results.having(averages=results["averages"].assign(lower=0.5))
    assert answer(at_chance, settings, "m", "A").kind == "chance"
    gone = make_results(models=("m",), undefined=("A",))
    assert answer(gone, settings, "m", "A").reason == "AUROC is undefined in every fold: no positive image"
    single = make_results(models=("m",), resolutions=(64,))
    assert answer(single, settings, "m", "A").kind == "smallest"


def test_the_answer_names_resolutions_that_would_be_enough_but_for_one_between():
    results = make_results(models=("m",), resolutions=(16, 32, 64))
    changed = results["sufficient"].assign(sufficient_px=64, beyond_px="16")
    results = results.having(sufficient=changed)
    found = answer(results, make_settings(), "m", "A")
    assert (found.kind, found.px, found.beyond) == ("undecided", 64, (16,))
    assert answer_cell(found, make_settings()).note.endswith("16 px would be enough alone, but not one between")


def test_the_answer_names_resolutions_that_are_better_than_the_reference():
    """Also where the reference itself is at chance, and where one between is not shown to be enough."""
    results, settings = make_results(models=("m",), resolutions=(16, 32, 64)), make_settings()
    lowest = results["differences"]["resolution_px"] == 16
    changed = results.having(
        differences=results["differences"].assign(verdict=lowest.map({True: "better below it", False: "undecided"})),
        sufficient=results["sufficient"].assign(sufficient_px=64, beyond_px="16"),
        averages=results["averages"].assign(lower=0.5),
    )
    found = answer(changed, settings, "m", "A")
    assert found == Answer("A", "better", 64, beyond=(16,), better=(16,))
    assert answer_cell(found, settings) == Cell(
        "64 px", "the reference; not every smaller one was shown to be enough; better than 64 px: 16 px"
    )
    assert answer_sentence([found], settings) == "16 px is better than 64 px, the reference, for A."
    enough = changed.having(sufficient=results["sufficient"].assign(sufficient_px=16))
    found = answer(enough, settings, "m", "A")
    assert (found.kind, found.px, found.better) == ("suffices", 16, (16,))
    assert answer_sentence([found], settings) == (
        "16 px suffices for A; 16 px is better than 64 px, the reference, for A."
    )


def test_a_difference_shows_interval_corrected_p_and_verdict():
    results = make_results(models=("m",))
    cell = difference_cell(results, make_settings(), "m", "B", 32)
    minus = "\N{MINUS SIGN}"
    assert cell == Cell(f"{minus}0.200", f"{minus}0.205 to {minus}0.195; p < 0.001; needs the reference")
    few = results["differences"].assign(verdict=None, p_holm=NAN, reason="5 patients with the finding: no verdict")
    cell = difference_cell(results.having(differences=few), make_settings(), "m", "B", 32)
    assert cell.note.endswith("; 5 patients with the finding: no verdict")
    assert [p_text(p) for p in (0.0123, 0.0009, NAN)] == ["p = 0.012", "p < 0.001", "no p"]


def test_exploratory_pairs_are_folded_away_marked_and_without_verdict(tmp_path):
    results = make_results(models=("m",), resolutions=(16, 32, 64))
    table = pairs_table(results, make_settings())
    kinds = [row[3].text for row in table.cells]
    assert kinds.count("exploratory") == 3
    assert table.marked == {i for i, kind in enumerate(kinds) if kind == "exploratory"}
    assert all(row[9].text == DASH for row, kind in zip(table.cells, kinds, strict=True) if kind == "exploratory")
    page = Page(make_pages(results, make_settings(), tmp_path)[0])
    assert {"details", "summary"} <= set(page.tags)
    assert "16 minus 32 px" in page.text


def test_the_scope_follows_the_seeds():
    said = [scope_sentence(make_results(seeds=range(n))) for n in (1, 2, 3)]
    assert "about these learners, not about resolution" in said[0]
    assert "in between" in said[1]
    assert "Verdicts are about resolution" in said[2]


def test_the_answer_stands_in_summary_and_page(tmp_path):
    results = make_results(models=("m",))
    sentence = "32 px suffices for A; 64 px, the reference, is needed for B (every smaller one is worse)."
    assert f"m: {sentence}" in summary_lines(results, make_settings(), "x")
    text = Page(make_pages(results, make_settings(), tmp_path)[0]).text
    assert sentence in text
    assert text.index("The answer") < text.index(sentence) < text.index("What it costs")
    assert "0.800" in text
    assert "\N{MINUS SIGN}0.200" in text  # lowest minus reference, B


def test_averages_are_of_defined_values_and_intervals_need_all_ends():
    frame = pd.DataFrame(
        {
            "finding": ["A", "A", "A", "B", "B"], "value": [0.6, 0.8, NAN, 0.5, 0.7],
            "lower": [0.5, 0.7, NAN, 0.4, NAN],
            "reason": [None, None, "no positive image", None, "few"],
        }
    )  # fmt: skip
    averaged = average_rows(frame, ["finding"], ["value", "lower"]).set_index("finding")
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
    unfitted = results["scale_weights"].assign(reason="no positive image to fit on")
    changed = results.having(costs=late, targets=merged, scale_weights=unfitted)
    warned = " ".join(warnings_of(changed, make_settings()))
    for expected in (
        "m at 32 px, fold 0, seed 0: not converged",
        "fitted on validate",
        "One seed: verdicts are about these learners",
        "A, fold 0: stacking weights are equal, not fitted (no positive image to fit on)",
        "1 images could not be used",
    ):
        assert expected in warned
    several = " ".join(warnings_of(make_results(seeds=(0, 1, 2)), make_settings()))
    for absent in ("converged", "validate", "seed", "stacking"):
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


def planted_as(pattern="grating", wavelength=0.0):
    return pd.DataFrame(
        {"finding": ["A"], "pattern": [pattern], "wavelength": [wavelength], "contrast": 0.2, "prevalence": 0.3}
    )


def make_found(planted, auroc, half=0.004, reference=96):
    """A study of one finding and model whose AUROCs (resolution_px -> value) and differences have such intervals."""
    results = make_results(findings=("A",), models=("m",), resolutions=tuple(auroc))
    value = results["averages"]["resolution_px"].map(auroc)
    averages = results["averages"].assign(value=value, lower=value - half, upper=value + half)
    pairs = results["differences"]
    d = pairs["resolution_px"].map(auroc) - pairs["against_px"].map(auroc)
    lower = d - half
    differences = pairs.assign(difference=d, lower=lower, upper=d + half)
    against = zip(pairs["resolution_px"], pairs["against_px"], lower, strict=True)
    ends = {int(r): float(end) for r, against_px, end in against if against_px == reference}
    px, beyond = smallest_sufficient(ends, reference, 0.01)
    sufficient = results["sufficient"].assign(sufficient_px=px, beyond_px=", ".join(map(str, beyond)) or None)
    return results.having(planted=planted, averages=averages, differences=differences, sufficient=sufficient)


def planted_row(planted, auroc, **more):
    """The words of each resolution, planted and found px, and the overall word."""
    table = planted_table(make_found(planted, auroc, **more), make_settings(reference_px=96))
    (row,) = table.cells
    words = [cell.note.split("; ")[-1].split(" (")[0] for cell in row[3:-3]]
    return words, row[-3].text, row[-2].text, row[-1].text


def test_planted_truth_is_held_against_the_findings(tmp_path):
    planted = pd.DataFrame(
        {
            "finding": ["A", "B", "C", "D"], "pattern": ["heart", "grating", "none", "any"],
            "wavelength": [0.0, 0.05, 0.0, 0.0], "contrast": 0.2, "prevalence": 0.3,
        }
    )  # fmt: skip
    results = make_results(findings=("A", "B", "C", "D"), models=("m",)).having(planted=planted)
    table = planted_table(results, make_settings())
    assert table.head[3:] == [
        "32 px minus 64 px", "AUROC at 64 px", "Smallest sufficient: planted", "Found", "Overall",
    ]  # fmt: skip
    rows = {row[0].text: row for row in table.cells}
    minus = "\N{MINUS SIGN}"
    assert rows["A"][2] == Cell("heart")
    assert rows["A"][3:] == [
        Cell(f"{minus}0.000", f"{minus}0.005 to +0.005; as planted"), Cell("0.800", "0.700 to 0.900; as planted"),
        Cell("32 px"), Cell("32 px"), Cell("as planted"),
    ]  # fmt: skip
    assert rows["B"][2] == Cell("grating", "wavelength 0.050: more than 40 px")  # 2 / 0.05
    assert rows["B"][3] == Cell(f"{minus}0.200", f"{minus}0.205 to {minus}0.195; as planted")
    assert [c.text for c in rows["B"][5:]] == ["64 px", "64 px", "as planted"]
    assert [c.text for c in rows["C"][5:]] == [DASH, "32 px", "not as planted"]  # 0.8 - 0.2 > 0.5
    assert rows["D"][7] == Cell("as planted", "gain of combining +0.030 (+0.010 to +0.050)")
    assert "Against the planted truth" in make_pages(results, make_settings(), tmp_path)[0]
    chance = results.having(auroc=results["auroc"].assign(joint_lower=0.4, joint_upper=0.6))
    table = planted_table(chance, make_settings())
    assert table.cells[2][7] == Cell("as planted", "all 2 joint 99% intervals hold 0.5")


def test_every_resolution_as_planted_is_as_planted():
    good = ["as planted"] * 3
    found = planted_row(planted_as(wavelength=0.055), {32: 0.6, 48: 0.99, 96: 0.99})
    assert found == (good, "48 px", "48 px", "as planted")
    found = planted_row(planted_as(wavelength=0.025), {32: 0.5, 48: 0.6, 96: 0.99})
    assert found == (good, "96 px", "96 px", "as planted")
    assert planted_row(planted_as("heart"), {32: 0.99, 48: 0.99, 96: 0.99}) == (good, "32 px", "32 px", "as planted")


def test_a_resolution_that_holds_the_stripes_but_is_at_chance_is_not_as_planted():
    """DenseNet121 in the demo as it was: lesions need 36 px, and at 48 px it had learned nothing."""
    words, needed, found, overall = planted_row(planted_as(wavelength=0.055), {32: 0.505, 48: 0.502, 96: 0.995})
    assert words == ["as planted", "not as planted", "as planted"]
    assert (needed, found, overall) == ("48 px", "96 px", "not as planted")


def test_a_resolution_in_the_middle_that_shows_what_it_cannot_hold_is_not_as_planted():
    words, needed, found, overall = planted_row(planted_as(wavelength=0.025), {32: 0.5, 48: 0.988, 96: 0.99})
    assert words == ["as planted", "not as planted", "as planted"]
    assert (needed, found, overall) == ("96 px", "48 px", "not as planted")
    # And one in the middle that is better than the reference, where all should be alike.
    words, needed, found, overall = planted_row(planted_as("heart"), {32: 0.9, 48: 0.97, 96: 0.9})
    assert words == ["as planted", "not as planted", "as planted"]
    assert overall == "not as planted"


def test_a_coarse_finding_learned_at_the_lowest_but_lost_in_the_middle_is_not_as_planted():
    words, needed, found, overall = planted_row(planted_as("effusion"), {32: 0.99, 48: 0.7, 96: 0.99})
    assert words == ["as planted", "not as planted", "as planted"]
    assert needed == "32 px"
    assert found == "96 px"
    assert overall == "not as planted"


def test_nothing_learned_is_undecided():
    words, _, found, overall = planted_row(planted_as("heart"), {32: 0.502, 48: 0.502, 96: 0.502})
    assert words == ["undecided"] * 3
    assert found == "32 px, without meaning"
    assert overall == "undecided"
    wide = planted_row(planted_as(wavelength=0.055), {32: 0.6, 48: 0.985, 96: 0.99}, half=0.02)
    assert wide == (["as planted", "undecided", "as planted"], "48 px", "96 px", "undecided")


def test_one_resolution_alone_is_held_against_nothing():
    results = make_found(planted_as("heart"), {96: 0.99})
    (row,) = planted_table(results, make_settings(reference_px=96)).cells
    assert row[-1] == Cell(DASH, "no smaller resolution was tried")


def test_what_sampling_theory_expects():
    assert expected_gain("grating", 40, 32, 64) == "a gain"
    assert expected_gain("grating", 20, 32, 64) == "no gain"
    assert expected_gain("line", 100, 32, 64) == "visible at neither"
    assert expected_gain("heart", None, 32, 64) == "no gain"
    assert expected_gain("relation", None, 32, 64) == "no gain, or a loss"


def test_what_agrees_with_what_was_expected():
    def word(expected, lower, upper, seen=True):
        return agreement(expected, {"lower": lower, "upper": upper, "reason": None}, 0.01, seen).text

    assert word("no gain", -0.005, 0.005) == "as planted"
    assert word("no gain", -0.005, 0.005, seen=False) == "undecided"
    assert word("no gain", -0.02, 0.02) == "undecided"
    assert word("no gain", -0.1, -0.02) == "not as planted"
    assert word("no gain", 0.02, 0.1) == "not as planted"
    assert word("no gain, or a loss", 0.02, 0.1) == "as planted"
    assert word("visible at neither", -0.005, 0.005, seen=False) == "as planted"
    assert word("visible at neither", 0.02, 0.1) == "not as planted"
    assert word("a gain", -0.1, -0.02, seen=False) == "as planted"
    assert word("a gain", -0.1, 0.02) == "undecided"
    assert word("a gain", -0.005, -0.001) == "not as planted"  # shown to be enough
    assert word("a gain", 0.02, 0.1) == "not as planted"
    assert agreement("a gain", None, 0.01, seen=True) == Cell(DASH, "no difference was computed")


def test_pictures_are_counted_by_bits():
    results = make_results()
    results["index"]["native_bits"] = [8, *[12] * (len(results["index"]) - 1)]
    n = len(results["index"])
    assert bits_table(results).rows == [["8", "1", f"{1 / n:.1%}"], ["12", f"{n - 1}", f"{1 - 1 / n:.1%}"]]


def test_images_out_of_the_store_do_not_count():
    results = make_results()
    results = results.having(index=results["index"].iloc[1:])
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


def test_fields_have_a_row_a_state_and_a_reason_where_there_is_none():
    results = make_results(models=("m",))
    table = fields_table(results)
    assert [[c.text for c in row[:3]] for row in table.cells] == [
        ["m", "32 px", "Random weights"],
        ["m", "32 px", "Trained"],
        ["m", "64 px", "Random weights"],
        ["m", "64 px", "Trained"],
    ]
    assert table.cells[0][3] == Cell("0.250", "8.0 px")
    gone = results["erf"].assign(
        sigma_px=NAN, sigma_fraction=NAN, reason=results["erf"]["finding"].map({"A": "no head"}).fillna("no field")
    )
    changed = results.having(erf=gone)
    assert fields_table(changed).cells[0][3] == Cell(DASH, "no field")
    assert finding_fields_table(changed, make_settings()).cells[0][2] == Cell(DASH, "no head")
    assert finding_fields_table(results, make_settings()).cells[1][4].text == "\N{MINUS SIGN}0.200"  # B needs 64 px


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([0.8, 0.3, 0.95, 0.01, 14, None], "do prefer low resolution here; so few findings"),
        ([-0.8, -0.95, -0.3, 0.01, 14, None], "against the claim"),
        ([0.8, 0.3, 0.95, 0.07, 14, None], "neither shown nor refuted"),
        ([0.3, -0.2, 0.7, 0.3, 30, None], "so the claim is neither shown nor refuted."),
        ([NAN, NAN, NAN, NAN, 2, TOO_FEW], f"no rank correlation: {TOO_FEW}: the claim cannot be judged here."),
    ],
)
def test_the_claim_about_fields_is_said_as_the_numbers_allow(row, said):
    changed = make_results(models=("m",)).having(field_effect=framed(FIELD_EFFECT, [["m", *row]]))
    sentence = field_effect_sentences(changed, make_settings())["m"]
    assert said in sentence
    assert f"n = {row[4]} findings" in sentence or row[4] < 5


def test_maps_are_held_against_boxes_where_there_are_any(tmp_path):
    results = make_results(models=("m",))
    pairs = pd.DataFrame(
        {
            "finding": "A", "image_id": [f"x{k}" for k in range(6)], "subject_id": [f"p{k}" for k in range(6)],
            "split": ["combine"] * 2 + ["test"] * 4,
        }
    )  # fmt: skip
    boxes = {("A", i): [(0.0, 0.0, 0.5, 0.5)] for i in pairs["image_id"]}
    maps = [np.array([[1.0, 0.0], [0.0, 0.0]])] * 5 + [np.full((2, 2), -1.0)]
    table = summarise(measure_maps(pairs, maps, boxes), ["A", "B"], [0.02, 0.1], 0.95)
    of_learners = [table.assign(**dict(zip(KEY, k, strict=True))) for k in results.learners.itertuples(index=False)]
    changed = results.having(localisation=pd.concat(of_learners))
    found = localisation_table(changed, make_settings())
    named = [[c.text for c in row[:3]] for row in found.cells]
    assert named[:3] == [
        ["m", "32 px", "A"], ["m", "32 px", "All findings"], ["m", "32 px", "All findings, large boxes"],
    ]  # fmt: skip
    assert len(named) == 6
    # Three hits, and a map that is the same everywhere: a quarter of it lies in the box.
    assert found.cells[0][3].text == "0.812"
    assert "best 1.00, one map 1.00" in found.cells[0][3].note
    assert [c.text for c in found.cells[0][6:]] == ["0.25", "1", "4"]
    text = Page(make_pages(changed, make_settings(), tmp_path)[0]).text
    assert "Activation maps of test images against boxes" in text
    assert not re.search(r"\b(nan|None)\b", text)
    assert "x0" not in text


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
    metrics = results["metrics"]
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
    without = results.having(metrics=metrics[metrics["group"] == "all"])
    assert len(performance_tables(without, make_settings())) == 3
