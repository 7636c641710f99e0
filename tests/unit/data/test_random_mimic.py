"""The published counts (Johnson et al. 2019, PhysioNet), in full tables and through parser, labels and targets."""

import filecmp
import sys

import pandas as pd
import pytest

from cxrscale.common import tables
from cxrscale.common.errors import StudyError
from cxrscale.data import random_mimic as mimic_tables
from cxrscale.data.contracts import IMAGES, LABELS
from cxrscale.data.csv_files import assign_shards
from cxrscale.data.findings import CHEXPERT_FINDINGS
from cxrscale.data.formats import Chosen
from cxrscale.data.formats import mimic_cxr_jpg as mimic
from cxrscale.data.labels import policies
from cxrscale.data.settings import LabelPolicy, SplitSettings
from cxrscale.data.spelling import Reading
from cxrscale.data.splits import build_targets

FRACTION = 0.01
METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
#: Studies of train: positive, negative, uncertain.
PUBLISHED = {
    "Atelectasis": "44012 921 9623",
    "Cardiomegaly": "38002 15563 5753",
    "Consolidation": "10199 7791 2913",
    "Edema": "25549 24746 11426",
    "Enlarged Cardiomediastinum": "6798 5158 9015",
    "Fracture": "3675 871 295",
    "Lung Lesion": "5939 822 996",
    "Lung Opacity": "49512 2794 2052",
    "No Finding": "74019 0 0",
    "Pleural Effusion": "51680 26532 5184",
    "Pleural Other": "1884 120 707",
    "Pneumonia": "15333 23771 17313",
    "Pneumothorax": "9159 41250 848",
    "Support Devices": "63971 3014 95",
}


@pytest.fixture(scope="module")
def full():
    return mimic_tables.build()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slice") / "data"
    mimic_tables.write_tables(folder, FRACTION)
    return folder


@pytest.fixture(scope="module")
def images(root, tmp_path_factory):
    frame = mimic.read_images(mimic.sources(root, Chosen(None, "chexpert", "same")), Reading())
    frame["shard"], frame["order"] = assign_shards(list(frame["image_id"]), 256)
    path = tmp_path_factory.mktemp("images") / "images.parquet"
    tables.write(IMAGES, frame, path)
    return tables.read(IMAGES, path)


@pytest.fixture(scope="module")
def labels(root, tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "labels.parquet"
    tables.write(
        LABELS, mimic.read_labels(mimic.sources(root, Chosen(None, "chexpert", "same")), None, Reading()), path
    )
    return tables.read(LABELS, path)


def targets(labels, images, method):
    findings = list(CHEXPERT_FINDINGS)
    of_each = policies(findings, LabelPolicy(), {})
    return build_targets(labels, images, findings, of_each, None, SplitSettings(method=method), 0)


def test_the_full_tables_have_the_published_counts(full):
    metadata, split = full["mimic-cxr-2.0.0-metadata.csv.gz"], full["mimic-cxr-2.0.0-split.csv.gz"]
    assert (len(metadata), metadata["study_id"].nunique(), metadata["subject_id"].nunique()) == (377110, 227835, 65379)
    assert metadata["dicom_id"].is_unique
    assert metadata["subject_id"].between(10_000_000, 19_999_999).all()
    assert ",".join(metadata.columns) == METADATA
    assert not split.duplicated("dicom_id").any()
    assert (split["dicom_id"] == metadata["dicom_id"]).all()
    assert split["split"].value_counts().to_dict() == {"train": 368960, "validate": 2991, "test": 5159}
    assert (split.groupby("subject_id")["split"].nunique() == 1).all()
    assert (split.groupby("study_id")["subject_id"].nunique() == 1).all()
    views = metadata["ViewPosition"].value_counts()
    assert [views[v] for v in ("AP", "PA", "LATERAL", "LL", "")] == [147169, 96155, 82852, 35129, 15769]
    assert 0 < views.drop(["AP", "PA", "LATERAL", "LL", ""]).max() < 5


@pytest.mark.parametrize("labeler", ["chexpert", "negbio"])
def test_the_full_label_files_have_the_published_counts(full, labeler):
    labels, split = full[f"mimic-cxr-2.0.0-{labeler}.csv.gz"], full["mimic-cxr-2.0.0-split.csv.gz"]
    assert list(labels.columns) == ["subject_id", "study_id", *CHEXPERT_FINDINGS]
    assert len(labels) == 227827
    assert labels["study_id"].is_unique
    values = labels[list(CHEXPERT_FINDINGS)]
    assert values.isna().all(axis=1).sum() == 2414
    assert set(values["No Finding"].dropna()) == {1}
    train = labels[labels["study_id"].isin(split.loc[split["split"] == "train", "study_id"])]
    counts = {f: tuple(int((train[f] == value).sum()) for value in (1, 0, -1)) for f in CHEXPERT_FINDINGS}
    assert {finding: " ".join(map(str, count)) for finding, count in counts.items()} == PUBLISHED


def test_a_study_with_no_finding_has_none_and_every_other_has_one(full):
    values = full["mimic-cxr-2.0.0-chexpert.csv.gz"][list(CHEXPERT_FINDINGS)]
    values = values[values.notna().any(axis=1)]
    found = values.drop(columns=["No Finding", "Support Devices"]).isin([1, -1]).any(axis=1)
    assert (found == values["No Finding"].isna()).all()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(root, tmp_path):
    mimic_tables.write_tables(tmp_path / "again", FRACTION)
    mimic_tables.write_tables(tmp_path / "other", FRACTION, seed=1)
    names = [path.name for path in root.iterdir() if "mimic" in path.name]
    assert len(names) == 5
    assert filecmp.cmpfiles(root, tmp_path / "again", names, shallow=False)[0] == names
    assert filecmp.cmpfiles(root, tmp_path / "other", names, shallow=False)[1] == names


def test_a_folder_with_files_of_others_is_left_alone(tmp_path, monkeypatch, capsys):
    (tmp_path / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(b"real")
    with pytest.raises(StudyError, match="is not empty and was not made by cxrscale"):
        mimic_tables.write_tables(tmp_path, FRACTION)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"real"]
    monkeypatch.setattr(sys, "argv", ["mimic_tables", str(tmp_path)])
    with pytest.raises(SystemExit):
        mimic_tables.main()
    assert "was not made by cxrscale" in capsys.readouterr().err


def test_the_command_line_makes_the_slice(root, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mimic_tables", str(tmp_path / "data"), "--fraction", str(FRACTION)])
    mimic_tables.main()
    name = "mimic-cxr-2.0.0-chexpert.csv.gz"
    assert filecmp.cmp(root / name, tmp_path / "data" / name, shallow=False)


@pytest.mark.parametrize("fraction", [0.0, 0.001, 1.1])
def test_a_fraction_that_cannot_be_is_refused(fraction):
    with pytest.raises(StudyError, match=f"fraction is {fraction}; expected 0.002 to 1"):
        mimic_tables.build(fraction)


def test_the_smallest_slice_can_be_made():
    assert all(len(frame) for frame in mimic_tables.build(mimic_tables.SMALLEST_FRACTION).values())


def test_the_index_of_a_slice_has_its_part_of_the_published_counts(images):
    assert abs(len(images) - 3771) <= 1
    assert images["study_id"].nunique() == 2228 + 18 + 33
    assert images["subject_id"].nunique() == 646 + 5 + 3
    assert images["official_split"].value_counts().to_dict() == {"train": 3690, "test": 52, "validate": 30}
    views = images["view"].value_counts()
    assert views["AP"] == pytest.approx(1472, abs=3)
    assert [views[v] for v in ("PA", "LATERAL", "LL")] == [962, 829, 351]
    assert images["view"].isna().sum() == 158
    assert images["path"].str.fullmatch(r"files/p1\d/p1\d{7}/s5\d{7}/([0-9a-f]{8}-){4}[0-9a-f]{8}\.jpg").all()
    assert images["shard"].nunique() == 256


def test_unlabelled_studies_drop_out_and_the_labels_of_a_slice_have_their_part(images, labels):
    missing = images[~images["image_id"].isin(labels["image_id"])]
    assert missing["study_id"].nunique() == 1  # of 8 in full: one at least
    assert not labels["study_id"].isin(missing["study_id"]).any()
    train = images.loc[images["official_split"] == "train", "study_id"]
    studies = labels.drop_duplicates("study_id")
    assert len(studies) == 2279 - 1
    assert studies.filter(like="label:").isna().all(axis=1).sum() == 24
    studies = studies[studies["study_id"].isin(train)]
    for finding, text in PUBLISHED.items():
        counts = [int(count) for count in text.split()]
        found = [int((studies[f"label:{finding}"] == value).sum()) for value in (1, 0, -1)]
        assert found == pytest.approx([count * FRACTION for count in counts], abs=0.5 + 1e-9), finding


def test_blank_rows_are_negative_throughout_under_the_papers_policy(images, labels):
    built = targets(labels, images, "kfold")
    blank = labels.loc[labels.filter(like="label:").isna().all(axis=1), "image_id"]
    rows = built[built["image_id"].isin(blank)]
    assert len(rows) == len(blank) >= 24
    assert (rows.filter(like="target:") == 0).all(axis=None)
    assert (built.filter(like="mask:") == 1).all(axis=None)
    for finding in CHEXPERT_FINDINGS:
        assert built[f"target:{finding}"].sum() == (labels[f"label:{finding}"] == 1).sum()


@pytest.mark.parametrize("method", ["kfold", "official"])
def test_no_patient_is_in_two_splits(images, labels, method):
    built = targets(labels, images, method)
    assert (built.groupby("subject_id")["split"].nunique() == 1).all()
    assert list(built["image_id"]) == list(labels["image_id"])
    patients = built.drop_duplicates("subject_id")["split"].value_counts(normalize=True)
    if method == "kfold":
        assert patients["test"] == pytest.approx(0.1, abs=0.002)
        assert patients["train"] == pytest.approx(0.72, abs=0.002)
    else:
        published = built["image_id"].map(images.set_index("image_id")["official_split"])
        assert pd.crosstab(published, built["split"]).loc["test"].to_dict() == {
            "combine": 0, "test": 52, "train": 0, "validate": 0}  # fmt: skip
