"""The page: what it says, what it keeps to itself, and that it works on the smallest studies."""

import re

import pytest

from cxrscale.report.cells import DASH
from cxrscale.report.page import build, summary_lines

#: Of the pictures in the results that are made here.
IMAGE_ID = "0a1b2c-patient-image"


def test_findings_are_escaped_everywhere(make_results, make_settings, make_pages):
    results = make_results(findings=("<b>x</b>", "<script>alert(1)</script>"), undefined=("<b>x</b>",))
    pages = make_pages(results, make_settings(title="<i>title</i>"))
    for page in pages:
        assert "<b>x</b>" not in page
        assert "<script" not in page
        assert "<i>" not in page
        assert "&lt;b&gt;x&lt;/b&gt;" in page


def test_pictures_and_ids_stay_in_the_local_page(make_results, make_settings, make_pages):
    results = make_results()
    shared, local = make_pages(results, make_settings())
    page = build(results, make_settings())
    (cam,) = (drawn.data for drawn in page.figures if drawn.private)
    for secret in (IMAGE_ID, "subject-", "lost-image", "files/lost.jpg", cam):
        assert secret not in shared
    for kept in (f"{IMAGE_ID}6", "lost-image", "files/lost.jpg", cam, "Do not share"):
        assert kept in local
    allowed, local = make_pages(results, make_settings(patient_pictures=True))
    assert cam in allowed
    assert cam in local
    assert "also in report.html" in local
    assert "lost-image" not in allowed


def test_the_page_asks_for_nothing(make_results, make_settings, make_pages, read_page):
    for page in make_pages(make_results(), make_settings(patient_pictures=True)):
        links = read_page(page).links
        assert links  # the loop below ran
        for link in links:
            assert link.startswith(("#", "data:image/png;base64,"))
        assert not re.search(r"@import|url\(|<script|<link|<iframe", page)


def test_internal_links_have_targets(make_results, make_settings, make_pages, read_page):
    page = make_pages(make_results(), make_settings())[0]
    anchors = [link[1:] for link in read_page(page).links if link.startswith("#")]
    assert len(anchors) > 5
    assert not [a for a in anchors if f'id="{a}"' not in page]


def test_undefined_values_show_their_reason_and_never_nan(make_results, make_settings, make_pages, read_page):
    page, _ = make_pages(make_results(undefined=("B",)), make_settings())
    text = read_page(page).text
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
def test_small_and_large_studies_work(make_results, make_settings, make_pages, read_page, study):
    results = make_results(**study)
    text = read_page(make_pages(results, make_settings())[0]).text
    assert not re.search(r"\b(nan|None)\b", text)
    lines = summary_lines(results, make_settings(), "results/tiny/report/report.html")
    assert 5 <= len(lines) <= 10
    assert lines[-1] == "Report: results/tiny/report/report.html"
    assert ("One seed: verdicts are about these learners" in text) == ("seeds" not in study)
    assert ("averaged over 4 folds and seeds" in text) == ("folds" in study)


def test_only_chosen_findings_are_shown(make_results, make_settings, make_pages, read_page):
    results = make_results(findings=("Alpha", "Beta"))
    text = read_page(make_pages(results, make_settings(findings=["Beta"]))[0]).text
    assert "Alpha" not in text
    assert "Beta" in text


def test_the_page_is_the_same_twice(make_results, make_settings, make_pages):
    first, second = (make_pages(make_results(), make_settings()) for _ in range(2))
    assert first == second


def test_pictures_of_patients_are_saved_apart(make_results, make_settings, tmp_path):
    page = build(make_results(), make_settings(patient_pictures=True))
    page.save_figures(tmp_path / "figures", tmp_path / "local")
    assert [path.name for path in (tmp_path / "local").iterdir()] == ["cam.png"]
    saved = {path.stem: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert saved == {drawn.name: drawn.png for drawn in page.figures if not drawn.private}
    assert {"auroc", "differences", "cost", "scale_weights", "erf", "field_effect", "training"} == set(saved)
