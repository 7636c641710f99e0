from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold

from cxrscale.errors import StudyError
from cxrscale.findings import LabelPolicy
from cxrscale.splits import SplitSettings, build_targets, combine_split, official_split, split_patients

PATIENTS = [f"p{i:02d}" for i in range(23)]


def study(patients=20, views=("PA", "LATERAL"), **labels):
    """Two images a patient, the first with every finding, the second without; labels: values instead."""
    rows = [(f"{p}-{v}", f"p{p:02d}", f"s{p:02d}", v) for p in range(patients) for v in views]
    images = pd.DataFrame(rows, columns=["image_id", "subject_id", "study_id", "view"])
    images["official_split"] = None
    table = images[["image_id", "subject_id", "study_id"]].copy()
    for finding in ("Edema", "Fracture"):
        table[f"label:{finding}"] = pd.array(labels.get(finding, [1, 0] * patients), dtype="Int8")
    return table, images


def build(labels, images, settings=SplitSettings(), fold=0, views=None, findings=("Edema", "Fracture")):  # noqa: B008
    return build_targets(labels, images, findings, dict.fromkeys(findings, LabelPolicy()), views, settings, fold)


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_test_folds_are_those_of_scikit_learn(folds):
    expected = [[PATIENTS[i] for i in test] for _, test in KFold(folds).split(PATIENTS)]
    settings = SplitSettings(folds=folds)
    got = [[p for p in PATIENTS if split_patients(PATIENTS, settings, fold)[p] == "test"] for fold in range(folds)]
    assert got == expected
    assert sorted(p for fold in got for p in fold) == PATIENTS  # each patient is tested once


def test_the_rest_is_divided_by_hand():
    """Twenty patients, ten folds: two to test; a tenth of the other 18 is 1.8, so two each to validate and combine."""
    patients = PATIENTS[:20]
    split = split_patients(patients, SplitSettings(), fold=1)
    expected = ["train"] * 2 + ["test"] * 2 + ["train"] * 12 + ["combine"] * 2 + ["validate"] * 2
    assert [split[p] for p in patients] == expected


def test_shuffling_is_a_function_of_the_seed_and_tests_each_patient_once():
    settings = SplitSettings(folds=4, order="shuffled", seed=3)
    folds = [split_patients(PATIENTS, settings, k) for k in range(4)]
    tested = Counter(p for split in folds for p in split if split[p] == "test")
    assert tested == dict.fromkeys(PATIENTS, 1)
    assert folds[0] == split_patients(PATIENTS, settings, 0)
    assert folds[0] != split_patients(PATIENTS, SplitSettings(folds=4, order="shuffled", seed=4), 0)
    assert folds[0] != split_patients(PATIENTS, SplitSettings(folds=4), 0)


@pytest.mark.parametrize("settings", [SplitSettings(), SplitSettings(order="shuffled"), SplitSettings(folds=3)])
def test_no_patient_is_in_two_splits(settings):
    targets = build(*study(40), settings)
    per_patient = targets.groupby("subject_id")["split"].nunique()
    assert len(per_patient) == 40
    assert (per_patient == 1).all()
    assert set(targets["split"]) == {"train", "validate", "combine", "test"}


def test_without_a_combine_fraction_validate_serves_as_both():
    targets = build(*study(), SplitSettings(combine_fraction=0.0))
    assert set(targets["split"]) == {"train", "validate", "test"}
    assert combine_split(targets) == "validate"
    assert combine_split(build(*study())) == "combine"


def test_a_view_filter_moves_no_patient():
    labels, images = study(30)
    settings = SplitSettings(order="shuffled", folds=3)
    images.loc[3, "view"] = None
    whole = build(labels, images, settings).set_index("image_id")["split"]
    labels["label:Edema"] = pd.array(np.arange(60) // 2 % 2, dtype="Int8")  # both classes in each view
    some = build(labels, images, settings, views=["PA", ""], findings=["Edema"]).set_index("image_id")["split"]
    assert len(some) == 31
    assert some.equals(whole[some.index])


def test_targets_keep_the_order_of_the_labels_and_drop_images_without_row():
    labels, images = study()
    targets = build(labels.iloc[::-1], images.drop(index=0))
    assert list(targets["image_id"]) == [i for i in labels["image_id"][::-1] if i != "0-PA"]


def test_published_splits_are_kept_and_combine_is_cut_from_train():
    labels, images = study()
    published = ["train"] * 10 + ["validate"] * 4 + ["test"] * 6
    images["official_split"] = np.repeat(published, 2)
    split = build(labels, images, SplitSettings(method="official")).groupby("subject_id")["split"].first()
    assert list(split) == ["train"] * 9 + ["combine"] + ["validate"] * 4 + ["test"] * 6


def test_a_published_split_without_validate_takes_both_from_train():
    _, images = study()
    images["official_split"] = np.repeat(["train"] * 14 + ["test"] * 6, 2)
    assert Counter(official_split(images, SplitSettings(method="official", validate_fraction=0.2)).values()) == {
        "train": 10, "combine": 1, "validate": 3, "test": 6,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({0: "test"}, "patient p00 is in the splits test and train; a patient may be in one only"),
        ({2: None}, "image 1-PA has no published split. Use kfold"),
        (dict.fromkeys(range(28, 40), "train"), "no patient is in test. Use kfold"),
    ],
)
def test_a_published_split_that_cannot_be_used_is_refused(change, said):
    labels, images = study()
    images["official_split"] = np.repeat(["train"] * 14 + ["test"] * 6, 2).astype(object)
    for row, value in change.items():
        images.loc[row, "official_split"] = value
    with pytest.raises(StudyError) as error:
        build(labels, images, SplitSettings(method="official"))
    assert said in str(error.value)


def test_an_unknown_finding_lists_the_known():
    with pytest.raises(StudyError, match="'Edemma' is not in the labels; they hold Edema, Fracture"):
        build(*study(), findings=["Edemma"])


def test_a_view_that_no_image_has_lists_the_views():
    with pytest.raises(StudyError, match=r"no image has a view in \['AP'\]; the views are \['LATERAL', 'PA'\]"):
        build(*study(), views=["AP"])


def test_no_usable_finding_is_an_error():
    with pytest.raises(StudyError, match="none of Edema, Fracture has positives and negatives in both train and test"):
        build(*study(Edema=[0] * 40, Fracture=[1] * 40))


@pytest.mark.parametrize(
    ("split", "fallback"),
    [
        ("train", "it is trained all the same, learns nothing, and its metrics say so"),
        ("validate", "it has no part in the choice of the epoch"),
        ("combine", "its stacking weights stay equal"),
        ("test", "its metrics are left empty"),
    ],
)
def test_a_finding_without_positives_in_a_split_warns_with_what_happens_instead(caplog, split, fallback):
    labels, images = study()
    of = split_patients([f"p{i:02d}" for i in range(20)], SplitSettings(), 0)
    labels.loc[labels["subject_id"].map(of) == split, "label:Fracture"] = 0
    build(labels, images)
    assert [r.getMessage() for r in caplog.records] == [f"Fracture has no positive image in {split}: {fallback}."]


def test_too_few_patients_are_refused():
    with pytest.raises(StudyError, match=r"leave .* for validate; each needs one at least"):
        split_patients(PATIENTS[:4], SplitSettings(folds=2), 0)
    with pytest.raises(StudyError, match=r"3 patients .* 10 folds"):
        split_patients(PATIENTS[:3], SplitSettings(folds=10, validate_fraction=0.4), 9)


def test_a_view_filter_that_empties_test_is_refused():
    labels, images = study()
    images.loc[images["subject_id"].isin(["p00", "p01"]), "view"] = "AP"
    with pytest.raises(StudyError, match="none of Edema, Fracture has positives and negatives in both train and test"):
        build(labels, images, views=["PA", "LATERAL"])
