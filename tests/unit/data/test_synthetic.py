import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrscale.common.errors import StudyError
from cxrscale.data import synthetic
from cxrscale.data.formats import Chosen, mimic_cxr_jpg
from cxrscale.data.settings import Planted, SyntheticSettings
from cxrscale.data.spelling import Reading

PLANTED = {
    "Cardiomegaly": Planted("heart"),
    "Pleural Effusion": Planted("effusion", contrast=0.22),
    "Lung Lesion": Planted("grating", 0.05, 0.25),
    "Fracture": Planted("line", 0.03, 0.25),
    "Pleural Other": Planted("none"),
}
SETTINGS = SyntheticSettings(12, 96, 80, seed=3, planted=PLANTED)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic")
    return root, synthetic.make(root, SETTINGS)


def content(root):
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_the_same_settings_give_the_same_bytes(made, tmp_path):
    root, number = made
    assert synthetic.make(tmp_path, SETTINGS) == number
    first, second = content(root), content(tmp_path)
    assert len(first) == number + 9
    assert first == second
    synthetic.make(tmp_path / "b", replace(SETTINGS, seed=4))
    assert content(tmp_path / "b") != first


def test_the_parser_reads_it_and_the_files_are_where_it_says(made):
    root, number = made
    sources = mimic_cxr_jpg.sources(root, Chosen(None, "chexpert", "same"))
    images, labels = mimic_cxr_jpg.read_images(sources, Reading()), mimic_cxr_jpg.read_labels(sources, None, Reading())
    assert len(images) == len(labels) == number
    assert images["subject_id"].nunique() == 12
    for row in images.itertuples():
        with Image.open(root / row.path) as image:
            assert image.mode == "L"
            assert image.size == (row.native_width_px, row.native_height_px)
    assert set(labels["label:Fracture"].dropna()) <= {-1, 0, 1}
    assert labels["label:Edema"].isna().all()


def test_boxes_lie_in_the_image_and_only_findings_with_a_trace_have_one(made):
    root, _ = made
    boxes = pd.read_csv(root / "boxes.csv")
    images = mimic_cxr_jpg.read_images(mimic_cxr_jpg.sources(root, Chosen(None, "chexpert", "same")), Reading())
    boxes = boxes.merge(images, on="image_id", validate="many_to_one")
    assert len(boxes) > 20
    assert set(boxes["finding"]) == set(PLANTED) - {"Pleural Other"}
    assert (boxes["x_min"] >= 0).all()
    assert (boxes["y_min"] >= 0).all()
    assert (boxes["x_max"] <= boxes["native_width_px"]).all()
    assert (boxes["y_max"] <= boxes["native_height_px"]).all()
    assert (boxes["x_min"] < boxes["x_max"]).all()
    assert (boxes["y_min"] < boxes["y_max"]).all()


@pytest.mark.parametrize("finding", ["Lung Lesion", "Fracture", "Pleural Effusion", "Cardiomegaly"])
@pytest.mark.parametrize("number", [0, 5])
def test_a_finding_changes_the_picture_about_its_box_and_the_anatomy_nowhere(finding, number):
    everything = dict.fromkeys(PLANTED, True)
    shown, boxes = synthetic.draw(False, everything, SETTINGS, number)
    bare, others = synthetic.draw(False, everything | {finding: False}, SETTINGS, number)
    (x0, y0, x1, y1) = dict(boxes)[finding]
    assert [b for b in boxes if b[0] != finding] == others
    change = np.abs(shown.astype(int) - bare)
    assert change[y0:y1, x0:x1].max() > 10
    margin = (x1 - x0 + 1) // 2, (y1 - y0 + 1) // 2  # the soft edges reach out of the box
    far = np.ones(shown.shape, bool)
    far[max(y0 - margin[1], 0) : y1 + margin[1], max(x0 - margin[0], 0) : x1 + margin[0]] = False
    assert far.sum() > 1000
    assert change[far].max() <= 1


def test_stripes_have_the_wavelength_asked_for():
    """The strongest frequency in the difference is 1 / wavelength cycles an image, whatever the angle."""
    settings = SyntheticSettings(2, 256, 256, seed=0, planted={"Lung Lesion": Planted("grating", 0.05, 0.25)})
    shown, _ = synthetic.draw(False, {"Lung Lesion": True}, settings, 0)
    bare, _ = synthetic.draw(False, {"Lung Lesion": False}, settings, 0)
    power = np.abs(np.fft.fft2(shown.astype(float) - bare))
    fy, fx = (np.fft.fftfreq(n) * n for n in power.shape)
    row, column = np.unravel_index(power.argmax(), power.shape)
    assert np.hypot(fy[row], fx[column]) == pytest.approx(1 / 0.05, abs=1.5)


def test_a_finding_without_pattern_leaves_the_picture_as_it_is():
    present = dict.fromkeys(PLANTED, False)
    bare, _ = synthetic.draw(False, present, SETTINGS, 1)
    shown, boxes = synthetic.draw(False, present | {"Pleural Other": True}, SETTINGS, 1)
    assert (shown == bare).all()
    assert boxes == []


def test_a_folder_it_did_not_make_is_refused_and_left_alone(tmp_path):
    (tmp_path / "patients.csv").write_text("real")
    with pytest.raises(StudyError, match="is not empty and was not made by the synthetic generator"):
        synthetic.make(tmp_path, SETTINGS)
    assert [p.name for p in tmp_path.iterdir()] == ["patients.csv"]


def test_a_finding_that_mimic_lacks_is_refused_with_the_choices(tmp_path):
    with pytest.raises(StudyError, match="'Scoliosis' is no finding of MIMIC-CXR-JPG; expected one of Atelectasis, "):
        synthetic.make(tmp_path / "new", replace(SETTINGS, planted={"Scoliosis": Planted("heart")}))
    assert not (tmp_path / "new").exists()


def test_sha256sums_are_those_of_the_files(made):
    import hashlib

    root, number = made
    lines = (root / "SHA256SUMS.txt").read_text().splitlines()
    assert len(lines) == number
    for line in lines:
        expected, name = line.split("  ")
        assert hashlib.sha256(io.BytesIO((root / name).read_bytes()).read()).hexdigest() == expected


def drawn_and_labelled(root):
    """What was drawn (image, finding) and what the labels say of the same studies, both bool; frontal and lateral."""
    sources = mimic_cxr_jpg.sources(root, Chosen(None, "chexpert", "same"))
    labels = mimic_cxr_jpg.read_labels(sources, None, Reading()).set_index("image_id")
    boxes = pd.read_csv(root / "boxes.csv")
    findings = sorted(set(boxes["finding"]))
    drawn = pd.crosstab(boxes["image_id"], boxes["finding"]).reindex(labels.index, fill_value=0)[findings] > 0
    return drawn, (labels[[f"label:{f}" for f in findings]] == 1).fillna(False).astype(bool).set_axis(findings, axis=1)


def test_correlated_findings_go_together_and_keep_their_prevalence(tmp_path):
    """Normal variables with correlation 0.8, both below the 35 % quantile: 25 % of the studies, not 12."""
    many = replace(SETTINGS, patients=250, rows_px=32, columns_px=32, correlation=0.8)
    synthetic.make(tmp_path, many)
    drawn, _ = drawn_and_labelled(tmp_path)
    assert drawn.mean().to_numpy() == pytest.approx(0.35, abs=0.07)
    assert (drawn["Fracture"] & drawn["Cardiomegaly"]).mean() == pytest.approx(0.25, abs=0.05)
    other = mimic_cxr_jpg.read_labels(
        mimic_cxr_jpg.sources(tmp_path, Chosen(None, "chexpert", "same")), None, Reading()
    ).set_index("image_id")
    signal_free = (other["label:Pleural Other"] == 1).fillna(False).astype(bool)
    assert np.corrcoef(signal_free, drawn["Fracture"])[0, 1] == pytest.approx(0, abs=0.12)


def test_label_noise_turns_labels_and_no_picture(made, tmp_path):
    root, _ = made
    synthetic.make(tmp_path, replace(SETTINGS, label_noise=0.3, uncertain=0.0))
    assert (root / "boxes.csv").read_bytes() == (tmp_path / "boxes.csv").read_bytes()
    drawn, labelled = drawn_and_labelled(tmp_path)
    assert 0.15 < (drawn != labelled).to_numpy().mean() < 0.45
    drawn, labelled = drawn_and_labelled(root)
    assert not (labelled & ~drawn).to_numpy().any()


def test_a_relation_shows_in_both_places_together_and_in_none_alone():
    settings = SyntheticSettings(2, 128, 128, seed=0, planted={"Edema": Planted("relation", contrast=0.3)})
    seen = []
    for number in range(40):
        bare, _ = synthetic.draw(False, {}, replace(settings, planted={}), number)
        for present in (True, False):
            shown, boxes = synthetic.draw(False, {"Edema": present}, settings, number)
            change = shown.astype(int) - bare
            assert [f for f, _ in boxes] == (["Edema"] if present else [])
            top, foot = change[:64], change[64:]
            signs = [int(np.sign(half.ravel()[np.abs(half).argmax()])) for half in (top, foot)]
            assert (signs[0] == signs[1]) == present
            seen.append(signs)
    assert np.abs(np.mean(seen, axis=0)).max() < 0.5


def test_a_finding_made_of_others_is_present_where_one_is_and_has_their_boxes(tmp_path):
    made_of = {
        "Lung Opacity": Planted("any", includes=("Lung Lesion", "Fracture")),
        "Lung Lesion": Planted("grating", 0.05, 0.25), "Fracture": Planted("line", 0.03, 0.4),
    }  # fmt: skip
    synthetic.make(tmp_path / "with", replace(SETTINGS, planted=made_of, uncertain=0.0))
    drawn, labelled = drawn_and_labelled(tmp_path / "with")
    expected = drawn["Lung Lesion"] | drawn["Fracture"]
    assert 0.2 < expected.mean() < 0.8
    assert (labelled["Lung Opacity"] == expected).all()
    boxes = pd.read_csv(tmp_path / "with" / "boxes.csv")
    columns = ["image_id", "x_min", "y_min", "x_max", "y_max"]
    own = boxes.loc[boxes["finding"] == "Lung Opacity", columns]
    parts = boxes.loc[boxes["finding"] != "Lung Opacity", columns]
    assert sorted(map(tuple, own.to_numpy())) == sorted(map(tuple, parts.to_numpy()))
    # It draws nothing of its own.
    settings, present = replace(SETTINGS, planted=made_of), dict.fromkeys(made_of, True)
    shown, _ = synthetic.draw(False, present, settings, 3)
    bare, _ = synthetic.draw(False, present | {"Lung Opacity": False}, settings, 3)
    assert (shown == bare).all()


@pytest.mark.parametrize("includes", [["Edema"], ["Lung Opacity"]])
def test_a_finding_can_be_made_of_drawn_ones_alone(tmp_path, includes):
    planted = {"Lung Opacity": Planted("any", includes=includes), "Lung Lesion": Planted("grating", 0.05, 0.25)}
    with pytest.raises(StudyError, match=r"Lung Opacity.includes: '(Edema|Lung Opacity)' is not drawn"):
        synthetic.make(tmp_path, replace(SETTINGS, planted=planted))
