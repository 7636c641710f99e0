from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold

from cxrscale.common.errors import StudyError
from cxrscale.data.settings import LabelPolicy, SplitSettings
from cxrscale.data.splits import (
    build_targets,
    combine_split,
    keep_together,
    notes_on_sources,
    official_split,
    split_patients,
)

PATIENTS = [f"p{i:02d}" for i in range(23)]


def study(patients=20, views=("PA", "LATERAL"), **labels):
    """Two images a patient, the first with every finding, the second without; labels: values instead."""
    rows = [(f"{p}-{v}", f"p{p:02d}", f"s{p:02d}", v) for p in range(patients) for v in views]
    images = pd.DataFrame(rows, columns=["image_id", "subject_id", "study_id", "view"])
    images["official_split"] = None
    table = images[["image_id", "subject_id", "study_id"]].assign(source="chexpert")
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
    with pytest.raises(StudyError, match=r"no image has the view 'AP'; the views are \['LATERAL', 'PA'\]"):
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
    with pytest.raises(StudyError, match=r"leave .* for validate and .* for combine; each needs one at least"):
        split_patients(PATIENTS[:4], SplitSettings(folds=2), 0)
    with pytest.raises(StudyError, match=r"3 patients cannot fill 10 folds .* Lower split.folds to 1 at most"):
        split_patients(PATIENTS[:3], SplitSettings(folds=10, validate_fraction=0.4), 9)


def test_a_view_filter_that_empties_test_is_refused():
    labels, images = study()
    images.loc[images["subject_id"].isin(["p00", "p01"]), "view"] = "AP"
    with pytest.raises(StudyError, match="none of Edema, Fracture has positives and negatives in both train and test"):
        build(labels, images, views=["PA", "LATERAL"])


@pytest.mark.parametrize(("views", "near"), [(["PA", "P A"], "PA"), (["pa"], "PA"), (["PA", "lateral"], "LATERAL")])
def test_each_view_that_is_asked_for_must_be_there(views, near):
    with pytest.raises(StudyError, match=f"no image has the view .* .did you mean '{near}'"):
        build(*study(), views=views)


def test_views_are_compared_in_one_spelling():
    assert len(build(*study(), views=["PA ", " LATERAL"])) == 40


@pytest.mark.parametrize(("patients", "folds"), [(12, 50), (12, 12), (12, 7), (3, 2)])
def test_a_fold_of_one_patient_to_test_is_refused(patients, folds):
    with pytest.raises(StudyError, match=f"{patients} patients cannot fill {folds} folds with 2 patients each"):
        split_patients(PATIENTS[:patients], SplitSettings(folds=folds), 0)


def test_a_published_test_split_of_one_patient_is_refused():
    labels, images = study()
    images["official_split"] = np.repeat(["train"] * 19 + ["test"], 2)
    with pytest.raises(StudyError, match="1 patient is in test; expected more"):
        build(labels, images, SplitSettings(method="official"))


def test_a_combine_fraction_that_comes_to_nobody_is_refused():
    with pytest.raises(StudyError, match=r"leave .* 0 for combine; each needs one at least"):
        split_patients(PATIENTS[:8], SplitSettings(folds=2, validate_fraction=0.3, combine_fraction=0.1), 0)


def read_by_a_radiologist(read, published=("train",) * 10 + ("validate",) * 2 + ("test",) * 8, **settings):
    """20 patients with a published split; `read`: patients whose studies a radiologist read."""
    labels, images = study()
    images["official_split"] = np.repeat(list(published), 2)
    labels.loc[labels["subject_id"].isin([f"p{p:02d}" for p in read]), "source"] = "radiologist"
    findings = ("Edema", "Fracture")
    policy = dict.fromkeys(findings, LabelPolicy())
    official = SplitSettings(method="official")
    return labels, build_targets(labels, images, findings, policy, None, official, 0, **settings)


def test_test_studies_without_a_radiologists_label_are_ignored_or_keep_theirs():
    labels, ignored = read_by_a_radiologist(range(12, 17))
    unread = ignored["subject_id"].isin(["p17", "p18", "p19"])
    assert (ignored.loc[unread, ["mask:Edema", "mask:Fracture", "target:Edema"]] == 0).all(axis=None)
    assert (ignored.loc[~unread, ["mask:Edema", "mask:Fracture"]] == 1).all(axis=None)
    _, kept = read_by_a_radiologist(range(12, 17), unread="keep")
    assert (kept[["mask:Edema", "mask:Fracture"]] == 1).all(axis=None)
    (note,) = notes_on_sources(labels, ignored, "ignore")
    assert (
        note.note == "5 of 8 examinations of test have a radiologist's labels; the other 3 are ignored (labels.unread)."
    )
    (note,) = notes_on_sources(labels, kept, "keep")
    assert "the other 3 keep the labels of chexpert" in note.note


def test_without_a_radiologist_nothing_is_ignored_or_noted():
    labels, targets = read_by_a_radiologist([])
    assert (targets[["mask:Edema", "mask:Fracture"]] == 1).all(axis=None)
    assert notes_on_sources(labels, targets, "ignore") == []


@pytest.mark.parametrize("outside", [0, 9, 10])
def test_a_radiologists_label_outside_test_is_refused(outside):
    with pytest.raises(
        StudyError, match=f"1 examinations that the radiologist read are not in test .first: s{outside:02d}"
    ):
        read_by_a_radiologist([outside, 12, 13])


def shared(*groups):
    """A row an image; each group of image ids has one file."""
    rows = [(image, f"{image}.png", f"sha{n}") for n, group in enumerate(groups) for image in group]
    return pd.DataFrame(rows, columns=["image_id", "path", "sha256"])


@pytest.mark.parametrize("fold", range(4))
def test_patients_who_share_a_picture_are_in_one_split(fold):
    targets = build(*study(), SplitSettings(folds=4), fold=fold)
    # Two chains: 1, 9 and 17 by two pictures, 3 and 12 by one that 12 has twice.
    found, notes = keep_together(
        targets, shared(["1-PA", "9-PA"], ["9-LATERAL", "17-PA"], ["3-PA", "12-PA", "12-LATERAL"]), most_patients=5
    )
    before, after = (frame.groupby("subject_id")["split"].first() for frame in (targets, found))
    assert (found.groupby("subject_id")["split"].nunique() == 1).all()
    assert after["p01"] == after["p09"] == after["p17"] == before["p01"]
    assert after["p03"] == after["p12"] == before["p03"]
    others = ~before.index.isin(["p01", "p09", "p17", "p03", "p12"])
    assert after[others].equals(before[others])
    moved = int((before != after).sum())
    (note,) = notes
    assert note.note == (
        f"5 patients share 3 pictures, the same files byte by byte; they are kept in one split, for which {moved} of "
        "them were moved."
    )
    assert note.examples.startswith("1-PA.png of p01, p09")
    assert found.drop(columns="split").equals(targets.drop(columns="split"))


def test_each_patient_is_tested_once_although_some_are_kept_together():
    tested = Counter()
    for fold in range(4):
        targets, _ = keep_together(build(*study(), SplitSettings(folds=4), fold=fold), shared(["1-PA", "19-PA"]), 10)
        tested.update(targets.loc[targets["split"] == "test", "subject_id"].unique())
    assert tested == dict.fromkeys([f"p{p:02d}" for p in range(20)], 1)


def test_more_patients_than_a_few_who_share_pictures_stop_the_study():
    targets = build(*study())
    everyone = shared([f"{p}-PA" for p in range(12)])
    with pytest.raises(StudyError, match=r"12 patients share 1 pictures, .* than split.most_sharing_patients = 10"):
        keep_together(targets, everyone, most_patients=10)
    found, _ = keep_together(targets, everyone, most_patients=12)
    assert found.loc[found["subject_id"].isin([f"p{p:02d}" for p in range(12)]), "split"].nunique() == 1


def test_one_split_of_all_patients_is_refused():
    with pytest.raises(StudyError, match="which leaves none in train"):
        keep_together(build(*study()), shared([f"{p}-PA" for p in range(20)]), most_patients=20)


def test_a_picture_twice_of_one_patient_is_noted_alone():
    targets = build(*study())
    found, notes = keep_together(targets, shared(["1-PA", "1-LATERAL"]), most_patients=0)
    assert found.equals(targets)
    assert [note.note for note in notes] == ["1 images repeat a picture of the same patient, byte by byte."]


def test_pictures_of_images_that_the_fold_does_not_use_do_not_count():
    targets = build(*study(Edema=[1, 1, 0, 0] * 10), views=["PA"], findings=["Edema"])
    found, notes = keep_together(targets, shared(["1-LATERAL", "19-LATERAL"]), most_patients=0)
    assert found.equals(targets)
    assert notes == []
