"""Accepting a change of code: what is listed, and what is refused."""

import pytest
import torch

from cxrscale.common import accepted
from cxrscale.common.accepted import Accepted
from cxrscale.common.errors import StudyError
from cxrscale.workflow import accept
from cxrscale.workflow.accept import Codes, rows_of

BECAUSE = "the sum is taken in another order"
STUDY = "results/s/accepted-changes.csv"
OLD, NOW = "0" * 16, "1" * 16


def found(*made_by):
    return {"train": {"code": NOW, "param": NOW, "made_by": list(made_by), "file": STUDY}}


def test_a_change_of_code_alone_is_listed():
    assert rows_of(found([OLD]), ["train"], f" {BECAUSE}\n", "date") == [
        (STUDY, Accepted("train", NOW, OLD, "date", BECAUSE))
    ]


@pytest.mark.parametrize(
    ("changed", "stages", "because", "said"),
    [
        (found([OLD]), ["train"], "", "say in a sentence why"),
        (found([OLD]), ["train"], "ok", "say in a sentence why"),
        (found([OLD]), ["training"], BECAUSE, "--stage training: there is no such stage; expected one of train"),
        (found(), ["train"], BECAUSE, "there are no results of it that other code made"),
        (found([NOW]), ["train"], BECAUSE, "there are no results of it that other code made"),
        (found([NOW], [OLD]), ["train"], BECAUSE, "made by several codes"),  # some would be made again
        (found([OLD], ["2" * 16]), ["train"], BECAUSE, "made by several codes"),
        (found([OLD, "2" * 16]), ["train"], BECAUSE, "other things changed too"),
        (found([]), ["train"], BECAUSE, "other things changed too"),
    ],
)
def test_what_is_not_clear_is_refused(changed, stages, because, said):
    with pytest.raises(StudyError, match=said):
        rows_of(changed, stages, because, "date")


def test_a_rule_gets_the_digest_that_its_results_are_filed_under(tmp_path):
    files = [str(tmp_path / "store.csv"), str(tmp_path / "study.csv")]
    (tmp_path / "train.py").write_text("print(1)\n")
    now = Codes(tmp_path, files)("train.py")(None)
    accepted.add([Accepted("train", now, OLD, "date", BECAUSE)], files[1])
    codes = Codes(tmp_path, files)
    of_rule = codes("train.py")
    assert codes.known == {}  # nothing is read for a rule without a job
    assert of_rule(None) == OLD
    assert codes.known == {OLD: ("train", now)}
    (tmp_path / "train.py").write_text("print(2)\n")  # a change that nobody looked at
    assert codes("train.py")(None) not in (OLD, now)


def test_code_that_began_a_training_is_known_by_its_checkpoint(tmp_path):
    """Though nothing of the stage is finished."""
    for number, code in enumerate((OLD, OLD)):
        path = tmp_path / f"learners/m/32px/fold0-seed{number}/checkpoint.pt"
        path.parent.mkdir(parents=True)
        torch.save({"identity": {"code": code}, "state": {}}, path)
    changed = {"train": {"code": NOW, "param": NOW, "made_by": [], "file": str(tmp_path / "accepted-changes.csv")}}
    accept.add_checkpoints(changed)
    assert changed["train"]["made_by"] == [[OLD]]


def test_a_checkpoint_of_a_finished_learner_counts_no_more_and_one_in_the_way_is_named(tmp_path):
    for number, code in enumerate((OLD, NOW)):
        path = tmp_path / f"learners/m/32px/fold0-seed{number}/checkpoint.pt"
        path.parent.mkdir(parents=True)
        torch.save({"identity": {"code": code}, "state": {}}, path)
    (path.parent / "weights.safetensors").touch()
    file = str(tmp_path / "accepted-changes.csv")
    changed = {"train": {"code": NOW, "param": NOW, "made_by": [["2" * 16]], "file": file}}
    accept.add_checkpoints(changed)
    assert changed["train"]["made_by"] == [["2" * 16], [OLD]]
    with pytest.raises(StudyError, match=rf"Not finished: .*fold0-seed0/checkpoint.pt by {OLD}"):
        rows_of(changed, ["train"], BECAUSE, "date")


def test_a_stage_that_is_refused_leaves_the_files_of_the_others_alone(tmp_path, monkeypatch, capsys):
    file = tmp_path / "accepted-changes.csv"
    changed = {"train": found([OLD])["train"] | {"file": str(file)}, "erf": found()["train"]}
    monkeypatch.setattr(accept, "ask_snakemake", lambda arguments: changed)
    with pytest.raises(SystemExit, match="--stage erf: there are no results"):
        accept.main(["--stage", "train", "erf", "--because", BECAUSE])
    assert not file.exists()
    accept.main(["--stage", "train", "--because", BECAUSE, "--", "--configfile", "x.yaml"])
    assert [(row.stage, row.code, row.same_as) for row in accepted.read([file])] == [("train", NOW, OLD)]
    assert f"train: code {NOW} stands for {OLD}" in capsys.readouterr().out
