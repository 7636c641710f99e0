import csv
import gzip
import io

import pandas as pd
import pytest

from cxrscale.common.errors import StudyError
from cxrscale.data.findings import CHEXPERT_FINDINGS
from cxrscale.data.formats import Chosen, named
from cxrscale.data.formats import mimic_cxr_jpg as mimic
from cxrscale.data.spelling import Reading

#: image, patient, study, view, split. Study 53 has no label row; study 52 has one that is all blank.
IMAGES = [
    ("a1", "10000032", "51", "PA", "train"),
    ("a2", "10000032", "51", "", "train"),
    ("b1", "10000764", "52", "AP", "validate"),
    ("c1", "11000011", "53", "AP", "test"),
    ("d1", "19000011", "54", "LATERAL", "test"),
]
LABELS = {
    "54": ("19000011", {"Edema": "0.0", "Lung Opacity": "1.0"}),
    "51": ("10000032", {"Edema": "1.0", "Lung Opacity": "-1.0", "Fracture": "0"}),
    "52": ("10000764", {}),
}


def put(path, header, rows):
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    path.write_bytes(gzip.compress(text.getvalue().encode()) if path.suffix == ".gz" else text.getvalue().encode())


def write(root, suffix=".csv.gz", images=IMAGES, labels=LABELS, findings=CHEXPERT_FINDINGS, splits=None):
    put(root / f"mimic-cxr-2.0.0-metadata{suffix}", ["dicom_id", "subject_id", "study_id", "ViewPosition", "Rows",
        "Columns"], [(i, p, s, v, 2544, 3056) for i, p, s, v, _ in images])  # fmt: skip
    splits = splits or [(i, s, p, x) for i, p, s, _, x in images]
    put(root / f"mimic-cxr-2.0.0-split{suffix}", ["dicom_id", "study_id", "subject_id", "split"], splits)
    rows = [(p, s, *(v.get(f, "") for f in findings)) for s, (p, v) in labels.items()]
    for source in ("chexpert", "negbio"):
        put(root / f"mimic-cxr-2.0.0-{source}{suffix}", ["subject_id", "study_id", *findings], rows)
    return mimic.sources(root, Chosen(None, "chexpert", "same"))


def read_images(sources, reading=None):
    return mimic.read_images(sources, reading or Reading())


def read_labels(sources, findings=None, reading=None):
    return mimic.read_labels(sources, findings, reading or Reading())


def test_images_carry_path_size_view_and_split(tmp_path):
    images = read_images(write(tmp_path)).set_index("image_id")
    assert list(images.index) == ["a1", "a2", "b1", "c1", "d1"]
    assert images["path"]["d1"] == "files/p19/p19000011/s54/d1.jpg"
    assert (images["native_height_px"] == 2544).all()
    assert (images["native_width_px"] == 3056).all()
    assert pd.isna(images["view"]["a2"])
    assert list(images["official_split"]) == ["train", "train", "validate", "test", "test"]


def test_images_take_the_labels_of_their_study_in_the_order_of_the_label_file(tmp_path):
    labels = read_labels(write(tmp_path))
    assert list(labels["image_id"]) == ["d1", "a1", "a2", "b1"]  # c1's study has no label row
    edema, opacity = labels["label:Edema"], labels["label:Lung Opacity"]
    assert edema.equals(pd.Series([0, 1, 1, None], dtype="Int8", name="label:Edema"))
    assert opacity.equals(pd.Series([1, -1, -1, None], dtype="Int8", name="label:Lung Opacity"))
    assert labels.loc[3].filter(like="label:").isna().all()  # all blank, and yet a row
    assert list(labels.columns[4:]) == [f"label:{f}" for f in CHEXPERT_FINDINGS]


def test_unzipped_files_in_another_order_of_columns_with_more_of_them_are_the_same(tmp_path):
    (tmp_path / "z").mkdir()
    (tmp_path / "u").mkdir()
    expected = read_labels(write(tmp_path / "z"))
    write(tmp_path / "u", suffix=".csv")
    for path in (tmp_path / "u").iterdir():
        frame = pd.read_csv(path, dtype=str)
        frame = frame[frame.columns[::-1]]
        frame["StudyTime"] = "80556.875"
        frame.to_csv(path, index=False)
    sources = mimic.sources(tmp_path / "u", Chosen(None, "chexpert", "same"))
    assert all(p.suffix == ".csv" for p in sources.values())
    pd.testing.assert_frame_equal(read_labels(sources), expected)
    pd.testing.assert_frame_equal(
        read_images(sources), read_images(mimic.sources(tmp_path / "z", Chosen(None, "chexpert", "same")))
    )


def test_only_the_findings_asked_for_are_read(tmp_path):
    labels = read_labels(write(tmp_path), ["Fracture", "Edema"])
    assert list(labels.columns[4:]) == ["label:Fracture", "label:Edema"]


def test_the_radiologist_replaces_the_labels_of_the_studies_he_read(tmp_path):
    write(tmp_path)
    names = ["Airspace Opacity" if f == "Lung Opacity" else f for f in CHEXPERT_FINDINGS]
    row = ["1" if n == "Edema" else "0" if n == "Airspace Opacity" else "" for n in names]
    put(tmp_path / "mimic-cxr-2.1.0-test-set-labeled.csv", ["study_id", *names], [("54", *row), ("99", *row)])
    labels = read_labels(mimic.sources(tmp_path, Chosen(None, "chexpert", "radiologist"))).set_index("image_id")
    assert labels.loc["d1", "label:Edema"] == 1
    assert labels.loc["d1", "label:Lung Opacity"] == 0
    assert labels.loc["a1", "label:Lung Opacity"] == -1
    assert list(labels.index) == ["d1", "a1", "a2", "b1"]
    assert labels["source"].to_dict() == {"d1": "radiologist", "a1": "chexpert", "a2": "chexpert", "b1": "chexpert"}


def test_the_labeler_is_the_source_of_its_labels(tmp_path):
    write(tmp_path)
    for source in ("chexpert", "negbio"):
        assert set(read_labels(mimic.sources(tmp_path, Chosen(None, source, "same")))["source"]) == {source}


def test_studies_and_images_that_do_not_match_are_counted(tmp_path):
    reading = Reading()
    read_labels(write(tmp_path, labels=LABELS | {"77": ("12000000", {})}), None, reading)
    said = {note.examples: note.note for note in reading.notes}
    assert said["examinations 53"].startswith(
        "1 of 5 images belong to 1 examinations without a row in mimic-cxr-2.0.0-chexpert"
    )
    assert said["examinations 77"].startswith("1 of 4 examinations of mimic-cxr-2.0.0-chexpert.csv.gz have no image in")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            {"054": ("19000011", {})},
            "study_id holds '054', .*metadata.csv.gz: study_id holds '54', which may be the same",
        ),
        ({"54": ("10000032", {})}, "examination 54 belongs to patient 10000032 in .* and to 19000011 in"),
    ],
)
def test_ids_that_the_files_spell_or_pair_otherwise_stop(tmp_path, labels, said):
    with pytest.raises(StudyError, match=said):
        read_labels(write(tmp_path, labels={"51": LABELS["51"]} | labels))


def test_ids_of_a_spreadsheet_are_the_same_ids(tmp_path):
    expected = read_labels(write(tmp_path))
    reading = Reading()
    labels = {f"{study}.0": (f"{patient}.0", values) for study, (patient, values) in LABELS.items()}
    pd.testing.assert_frame_equal(read_labels(write(tmp_path, labels=labels), None, reading), expected)
    assert sum(note.about == "ids" for note in reading.notes) == 2


def test_a_radiologist_whose_studies_are_no_ones_is_refused(tmp_path):
    write(tmp_path)
    for study, said in (("99", "no examination of .*labeled.csv is in"), ("054", "holds '054', .* holds '54'")):
        put(tmp_path / "mimic-cxr-2.1.0-test-set-labeled.csv", ["study_id", *CHEXPERT_FINDINGS], [(study, *[""] * 14)])
        with pytest.raises(StudyError, match=said):
            read_labels(mimic.sources(tmp_path, Chosen(None, "chexpert", "radiologist")))


def test_the_radiologists_wrong_value_names_his_file_and_line(tmp_path):
    write(tmp_path)
    put(tmp_path / "mimic-cxr-2.1.0-test-set-labeled.csv", ["study_id", *CHEXPERT_FINDINGS], [("54", "3", *[""] * 13)])
    with pytest.raises(StudyError, match=r"test-set-labeled.csv line 2: Atelectasis is '3'; expected 1, 0, -1"):
        read_labels(mimic.sources(tmp_path, Chosen(None, "chexpert", "radiologist")))


RADIOLOGIST = "mimic-cxr-2.1.0-test-set-labeled.csv"
HEADER = ",".join(["study_id", *CHEXPERT_FINDINGS])


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "cannot be read as csv: No columns to parse from file"),
        ('"' + HEADER, "cannot be read as csv: .*EOF inside string"),
        (HEADER.replace("study_id", "study"), "there is no column 'study_id'; it has .*Expected study_id, Atelectasis"),
        (HEADER.replace("Edema", "Oedema"), "there is no column 'Edema'; it has .*Expected study_id, Atelectasis"),
        (HEADER.replace("Fracture", "Edema"), "the column 'Edema' stands twice; expected each column once"),
        (
            HEADER.replace("Lung Opacity", "Opacity"),
            "there is no column 'Lung Opacity' or 'Airspace Opacity'; it has .*Expected",
        ),
    ],
)
def test_a_broken_header_of_the_radiologist_names_file_column_and_what_is_expected(tmp_path, header, said):
    write(tmp_path)
    (tmp_path / RADIOLOGIST).write_text(f"{header}\n54{',' * 14}\n" if header else "")
    with pytest.raises(StudyError, match=f"{RADIOLOGIST}: {said}"):
        read_labels(mimic.sources(tmp_path, Chosen(None, "chexpert", "radiologist")))


def test_sources_follow_the_settings_and_tell_what_is_missing(tmp_path):
    write(tmp_path)
    assert mimic.sources(tmp_path, Chosen(None, "negbio", "same"))["labels"].name == "mimic-cxr-2.0.0-negbio.csv.gz"
    with pytest.raises(StudyError, match=r"has no mimic-cxr-2.1.0-test-set-labeled.csv.gz or .*labeled.csv\. Get"):
        mimic.sources(tmp_path, Chosen(None, "chexpert", "radiologist"))
    with pytest.raises(StudyError, match=r"dataset.root: there is no folder"):
        mimic.sources(tmp_path / "absent", Chosen(None, "chexpert", "same"))


def test_digests_follow_the_content_of_the_csv_files(tmp_path):
    write(tmp_path)
    chosen = Chosen(None, "chexpert", "same")
    before = named("mimic-cxr-jpg").digests(tmp_path, chosen)
    assert {k: set(v) for k, v in before.items()} == {
        "labels": {"metadata", "labels"},
        "images": {"metadata", "split"},
    }
    write(tmp_path, labels=LABELS | {"53": ("11000011", {})})
    after = named("mimic-cxr-jpg").digests(tmp_path, chosen)
    assert after["labels"]["labels"] != before["labels"]["labels"]
    assert named("mimic-cxr-jpg").module == mimic.__name__


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": [*IMAGES, IMAGES[0]]}, r"metadata.csv.gz lines 2 and 7: dicom_id 'a1' stands twice"),
        (
            {"images": [*IMAGES, ("e1", "77", "51", "PA", "train")]},
            "study_id 51 belongs to the patients 10000032 and 77",
        ),
        (
            {"images": [*IMAGES, ("e1", "77", "55", "PA", "dev")]},
            "split.csv.gz line 7: split is 'dev'; expected train, validate or test",
        ),
        (
            {"images": [*IMAGES, ("../e1", "77", "55", "PA", "train")]},
            "line 7: path 'files/p77/p77/s55/../e1.jpg' leads out of dataset.root",
        ),
    ],
)
def test_images_that_cannot_be_right_are_refused(tmp_path, changed, said):
    with pytest.raises(StudyError, match=said):
        read_images(write(tmp_path, **changed))


def test_a_size_that_is_no_number_names_file_line_and_value(tmp_path):
    sources = write(tmp_path)
    frame = pd.read_csv(sources["metadata"], dtype=str)
    frame.loc[1, "Rows"] = "tall"
    frame.to_csv(sources["metadata"], index=False)
    with pytest.raises(StudyError, match=r"metadata.csv.gz line 3: Rows is 'tall'; expected a whole number"):
        read_images(sources)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"labels": {"51": ("10000032", {"Edema": "2.0"})}},
            "chexpert.csv.gz line 2: Edema is '2.0'; expected 1, 0, -",
        ),
        ({"findings": CHEXPERT_FINDINGS[1:]}, "chexpert.csv.gz: there is no column 'Atelectasis'; it has"),
        ({"labels": {"51": ("1", {})}}, "no examination of .* has an image in .*metadata.csv.gz"),
    ],
)
def test_labels_that_cannot_be_right_are_refused(tmp_path, changed, said):
    with pytest.raises(StudyError, match=said):
        read_labels(write(tmp_path, **changed))


def test_a_study_with_two_label_rows_names_both_lines(tmp_path):
    sources = write(tmp_path)
    header, first, *rest = gzip.decompress(sources["labels"].read_bytes()).splitlines(keepends=True)
    sources["labels"].write_bytes(gzip.compress(b"".join([header, first, *rest, first])))
    with pytest.raises(StudyError, match=r"chexpert.csv.gz lines 2 and 5: study_id '54' stands twice"):
        read_labels(sources)


def test_an_image_without_published_split_has_none(tmp_path):
    splits = [(i, s, p, x) for i, p, s, _, x in IMAGES[1:]]
    images = read_images(write(tmp_path, splits=splits))
    assert images["official_split"].isna().tolist() == [True, False, False, False, False]
