"""A study's tables by their names."""

import importlib
import json
import re

import numpy as np
import pandas as pd
import pytest

from cxrscale.common import records, tables
from cxrscale.common.errors import StudyError
from cxrscale.explain.contracts import ERF
from cxrscale.results import RECORDS, TABLES, Study, StudyRecord, declared
from cxrscale.train.contracts import COST

#: A value of each type of a record's fields.
ANY = {"text": "x", "int64": 1, "float64": 1.5, "bool": True, "mapping": {}, "list of text": []}
LEARNERS = [["m", 32, 0, 0], ["m", 64, 0, 0], ["n", 64, 0, 0]]


@pytest.fixture
def study(tmp_path):
    """Three learners at two resolutions, with their fields, two targets and the store's summaries."""
    record = StudyRecord(store="d-1", learners=LEARNERS, folds=[0, 3], resolutions_px=[32, 64], base_px=64)
    record.write(tmp_path / "results/s/study.json")
    found = Study.open(tmp_path / "results/s")
    for number, (_, path) in enumerate(found.paths("erf")):
        rows = pd.DataFrame([{"state": "trained", "finding": f, "n_images": number} for f in "AB"], columns=ERF.names)
        tables.write(ERF, rows, path)
        cost = {"seconds": 10 * number, "gpu_seconds": None, "versions": {}, "identity": {}}
        for column in COST.fields:
            above, _, name = column.name.rpartition(".")
            (cost[above] if above else cost).setdefault(name, ANY[column.type])
        records.write(COST, cost, path.parent / "cost.json")
    summary = dict.fromkeys(TABLES["summary"].names, 1)
    for of, path in found.paths("summary"):
        tables.write(TABLES["summary"], pd.DataFrame([summary | {"resolution_px": of["resolution_px"]}]), path)
    for fold in (0, 3):
        frame = pd.DataFrame({"image_id": ["i"], "subject_id": ["p"], "study_id": ["e"], "view": None, "split": "test"})
        frame["target:A"], frame["mask:A"] = np.int8(1), np.int8(1)
        tables.write(TABLES["targets"], frame, tmp_path / f"results/s/targets/fold{fold}.parquet")
    return found


def test_a_table_of_learners_says_of_which_a_row_is(study):
    frame = study.table("erf")
    assert list(frame.columns) == [*ERF.names, "model", "resolution_px", "fold", "seed"]
    assert frame[["model", "resolution_px", "fold", "seed"]].drop_duplicates().to_numpy().tolist() == LEARNERS
    assert frame["n_images"].tolist() == [0, 0, 1, 1, 2, 2]
    assert study.table("erf", model="m", resolution_px=64)["n_images"].tolist() == [1, 1]
    assert study.learners.to_numpy().tolist() == LEARNERS
    assert study.costs()["seconds"].tolist() == [0, 10, 20]
    assert study.costs()["resolution_px"].tolist() == [32, 64, 64]


def test_records_are_found_and_a_broken_one_is_refused(study):
    assert set(RECORDS) == {"learner", "cost"}
    path = next(path for _, path in study.files_of_learners("cost.json"))
    path.write_text(json.dumps({"seconds": 3}))
    with pytest.raises(StudyError, match=r"cost.json: cost lacks 'gpu_seconds'"):
        study.costs()


def test_tables_of_folds_and_resolutions_say_so_too(study, tmp_path):
    assert study.table("targets")["fold"].tolist() == [0, 3]
    assert [of for of, _ in study.parts("targets")] == [{"fold": 0}, {"fold": 3}]
    assert study.table("summary")["resolution_px"].tolist() == [32, 64]
    places = [path.relative_to(tmp_path).as_posix() for _, path in study.paths("summary")]
    assert places == ["results/stores/d-1/32/summary.csv", "results/stores/d-1/base/summary.csv"]
    assert [path.name for _, path in study.paths("notes")][:3] == ["notes.csv", "labels.csv", "inputs.csv"]
    assert list(study.table("targets", ["image_id"]).columns) == ["image_id", "fold"]


def test_what_is_not_there_is_said(study, tmp_path):
    with pytest.raises(
        StudyError, match=r"no table 'auroc_' \(did you mean 'auroc'\?\); expected one of notes, images"
    ):
        study.table("auroc_")
    with pytest.raises(StudyError, match=r"gains.csv: there is no such file; gains should be there"):
        study.table("gains")
    with pytest.raises(StudyError, match=r"erf: .* has no such learner, fold or resolution as \{'model': 'z'\}"):
        study.table("erf", model="z")
    for text in (None, "[", "{}", '{"store": 1, "more": 2}'):
        folder = tmp_path / "none"
        folder.mkdir(exist_ok=True)
        if text is not None:
            (folder / "study.json").write_text(text)
        with pytest.raises(StudyError, match=r"none/study.json: is no record of a study .* `snakemake record_study`"):
            Study.open(folder)


def test_every_contract_is_in_the_registry_under_its_own_name():
    assert all(declared(name).name == name for name in TABLES)
    files = [pattern for table in TABLES.values() for pattern in table.files if pattern]
    assert len(files) == len(set(files)) > 25


def made_by(text):
    """What a table's `made_by` names, below cxrscale."""
    return [name for name in re.findall(r"`([\w.]+)`", text) if "." in name]


@pytest.mark.parametrize("table", [t for t in TABLES.values() if any(t.files)], ids=lambda table: table.name)
def test_what_a_table_is_made_by_is_there(table):
    named = made_by(table.made_by)
    assert named
    for name in named:
        module, _, inside = name.rpartition(".")
        try:
            importlib.import_module(f"cxrscale.{name}")
        except ModuleNotFoundError:
            assert callable(getattr(importlib.import_module(f"cxrscale.{module}"), inside)), name
