import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest

from cxrscale.workflow import plan
from cxrscale.workflow.plan import Step

CONFIG = {
    "labels": {"uncertain": "ones", "missing": "zeros", "per_finding": {"Edema": {"uncertain": "ignore"}}},
    "split": {"folds": 10, "use_folds": [0, 1], "seed": 7},
    "training": {"epochs": 30, "learning_rate": 0.1, "batch_images": 32, "weight_decay": 0.5, "clip_grad_norm": 1.0},
    "evaluation": {"seed": 7, "replicates": 500},
    "findings": ["Edema"],
    "report": {"findings": ["Edema"]},
}


def changed(rule: str, new: dict[str, object], *old: object) -> str:
    """The reason of a step whose params are `new`, all of them changed, where the last run had the values `old`."""
    news, olds = frozenset(map(repr, new.values())), frozenset(map(repr, old))
    return plan.reason_of(Step(rule, params=new, new_params=news, old_params=olds), CONFIG)


def test_changed_settings_have_the_names_of_the_config_and_both_values() -> None:
    def policy(default: str, edema: str) -> dict[str, object]:
        return {"default": {"uncertain": default, "missing": "zeros"}, "per_finding": {"Edema": {"uncertain": edema}}}

    words = changed("build_targets", {"policy": policy("ones", "ignore")}, policy("zeros", "ignore"))
    assert words == 'labels.uncertain changed from "zeros" to "ones"'
    words = changed("build_targets", {"policy": policy("ones", "ignore")}, policy("ones", "zeros"))
    assert words == 'labels.per_finding.Edema.uncertain changed from "zeros" to "ignore"'
    # split.seed and evaluation.seed are both 7.
    assert changed("evaluate", {"settings": {"seed": 7}}, {"seed": 1}) == "evaluation.seed changed from 1 to 7"
    split = {"split": {"seed": 7, "folds": 10}}
    assert changed("build_targets", split, {"seed": 7, "folds": 5}) == "split.folds changed from 5 to 10"
    # An override: the section itself has another value.
    override = changed("train", {"settings": '{"learning_rate": 0.2}'}, "{}")
    assert override == "training.learning_rate changed from its default to 0.2"
    report = {"settings": {"settings": [["training.epochs", 30, 30]]}}
    old = {"settings": [["training.epochs", 2, 30]]}
    assert changed("report", report, old) == "training.epochs changed from 2 to 30"


def test_several_changed_params_find_their_old_values() -> None:
    new = {
        "code": "0123456789abcdef",
        "settings": json.dumps({"learning_rate": 0.1}),
        "learners": [["m", 32, 0, 0], ["m", 64, 0, 0]],
    }
    old = ("fedcba9876543210", json.dumps({"learning_rate": 0.1, "epochs": 5}), [["m", 32, 0, 0], ["n", 32, 0, 0]])
    words = changed("train", new, *old)
    assert words == "its code changed, training.epochs changed from 5 to its default, learners: 1 more, 1 fewer"


def test_many_changes_are_counted() -> None:
    new = {"epochs": 30, "learning_rate": 0.1, "batch_images": 32, "weight_decay": 0.5, "clip_grad_norm": 1.0}
    words = changed("train", {"settings": json.dumps(new)}, json.dumps(dict.fromkeys(new, 9)))
    assert words.startswith("training.epochs changed from 9 to 30, training.learning_rate changed from 9 to 0.1, ")
    assert words.endswith("training.batch_images changed from 9 to 32, 2 more settings changed")


def test_what_cannot_be_named_is_said_in_general() -> None:
    # The new value is another param's too, so Snakemake tells only that one is gone.
    assert plan.reason_of(Step("erf", old_params=frozenset({"8"})), CONFIG) == "its settings changed"
    assert changed("parse_labels", {"sources": {"labels": "ab"}}, {"labels": "cd"}) == (
        "csv files of the data set changed"
    )
    # A name that the config lacks is the param's own.
    assert changed("cam", {"native_at_least_px": 512}, 0) == "native_at_least_px changed from 0 to 512"


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Step("a", forced=True, missing=True), "asked for by --force"),
        (Step("a", interrupted=True), "interrupted before"),
        (Step("a", inputs_changed=True), "the list of its inputs changed"),
        (Step("a", updated=("results/x/fold0.parquet",)), "fold0.parquet changed"),
        (Step("a", updated=("x", "y")), "input files changed"),
        (Step("a", environment_changed=True), "its software environment changed"),
        (Step("a", remade_by=frozenset({"d", "b"})), "comes after b, d"),
        (Step("a", remade_by=frozenset("bcdef")), "comes after b, c, d, 2 more"),
    ],
)
def test_other_reasons(step: Step, words: str) -> None:
    assert plan.reason_of(step, CONFIG, rules=["b", "c", "d", "e", "f"]) == words


def test_missing_outputs_are_new_or_lost_or_not_finished(tmp_path: Path) -> None:
    step = Step(plan.TRAIN, outputs=(str(tmp_path / "weights"), str(tmp_path / "history")), missing=True)
    assert plan.reason_of(step, CONFIG) == "not made yet"
    (tmp_path / "history").touch()
    assert plan.reason_of(step, CONFIG) == "some of its files are missing"
    (tmp_path / "checkpoint.pt").touch()
    assert plan.reason_of(step, CONFIG) == "not finished, there is a checkpoint"


def test_jobs_of_a_stage_are_counted_by_reason() -> None:
    new = [Step("b", missing=True)] * 2
    steps = [*new, Step("a", forced=True), Step("b", inputs_changed=True)]
    text = plan.describe(steps, {"a": 1, "b": 6}, ["a", "b", "c"], CONFIG, submitted=3)
    assert text.splitlines() == [
        "Why each stage runs:",
        "    a  1 of 1: asked for by --force",
        "    b  2 of 6: not made yet; 1 of 6: the list of its inputs changed",
        "4 steps in 3 jobs of the cluster",
    ]
    various = [Step("b", updated=(f"shard-{i}",)) for i in range(5)]
    (line,) = plan.describe(various, {"b": 6}, ["b"], CONFIG).splitlines()[1:]
    assert line.endswith("1 of 6: shard-2 changed; 2 of 6: other reasons")


def test_another_snakemake_is_not_a_reason_to_fail(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("of a workflow")
    event = {"event": SimpleNamespace(name="RUN_INFO")}
    try:
        plan.announce(SimpleNamespace(dag=SimpleNamespace()), logger, CONFIG, RuntimeError, lambda *_: 0.0)
        with caplog.at_level(logging.INFO, logger.name):
            logger.info("Job stats", extra=event)
        assert [record.getMessage() for record in caplog.records] == ["Job stats"]
    finally:
        logger.handlers.clear()
