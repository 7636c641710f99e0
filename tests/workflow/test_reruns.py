"""What reruns after a change: a meaning that changed, and nothing else."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from sklearn.metrics import roc_auc_score

from cxrscale.store.fingerprint import PICTURES

from .conftest import ROOT, TINY, dry_run, hashes, planned, snakemake

Edit = Callable[[str, str, str], None]
LEARNER = "results/tiny/learners/test_resnet/48px/fold0-seed0"
SPANNING = {"compare": 1, "compare_fields": 1, "stack": 1, "report": 1}
TARGETS = {"build_targets": 1, "keep_together": 1, "check_pictures": 1}
LEARNERS = dict.fromkeys(("train", "predict", "evaluate", "erf", "cam", "localise"), 4)


def test_finished_study_has_nothing_to_do_in_another_folder(study: Path) -> None:
    result = snakemake(study)
    assert result.returncode == 0
    assert "Nothing to be done" in result.stdout


def test_every_stage_left_its_files(finished: Path) -> None:
    results = finished / "results/tiny"
    learner = results / "learners/test_resnet/48px/fold0-seed0"
    made = ("weights.safetensors", "history.csv", "cost.json", "predictions.parquet", "metrics.csv")
    for name in (*made, "erf.csv", "erf.npz", "cam.npz", "localisation.csv"):
        assert (learner / name).stat().st_size > 0, name
    assert (results / "report/report.html").stat().st_size > 10_000
    assert set(pd.read_csv(learner / "erf.csv")["state"]) == {"random", "pretrained", "trained"}
    assert pd.read_csv(results / "comparison/field_effect.csv")["model"].tolist() == [
        "test_resnet",
        "test_efficientnet",
    ]
    metrics = pd.read_csv(learner / "metrics.csv")
    assert set(metrics["split"]) == {"validate", "combine", "test"}
    targets = pd.read_parquet(results / "targets/fold0.parquet")
    assert (targets.groupby("subject_id")["split"].nunique() == 1).all()
    weights = pd.read_csv(results / "stacking/scale_weights.csv")
    assert weights.groupby(["ensemble", "finding"])["weight"].sum().tolist() == pytest.approx([1.0] * 9)


def test_touching_every_file_reruns_nothing(study: Path) -> None:
    touched = 0
    for folder in ("src", "workflow", "envs", "profiles", "config", "results/tiny/targets", "results/data"):
        for file in (study / folder).rglob("*"):
            if file.is_file():
                file.touch()
                touched += 1
    for file in [
        "Snakefile",
        "config.yaml",
        *study.glob("results/tiny/*.parquet"),
        *study.glob("results/stores/*/*.parquet"),
    ]:
        (study / file).touch()
    assert touched > 60
    assert planned(study) == {}


def test_table_above_one_megabyte_may_be_touched(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    (tmp_path / "Snakefile").write_text(
        'rule copy:\n    input: "table"\n    output: "copy"\n    shell: "cp {input} {output}"\n'
    )
    (tmp_path / "table").write_bytes(bytes(3_000_000))
    assert snakemake(tmp_path, config=None).returncode == 0
    (tmp_path / "table").touch()
    assert "Nothing to be done" in snakemake(tmp_path, "-n", config=None).stdout
    (tmp_path / "table").write_bytes(bytes(2_999_999) + b"x")
    assert planned(tmp_path, config=None) == {"copy": 1}


def test_comments_and_docstrings_rerun_nothing(study: Path) -> None:
    modules = [*(study / "src").rglob("*.py"), *(study / "workflow/scripts").glob("*.py")]
    assert len(modules) > 30
    for module in modules:
        text = module.read_text()
        assert text.startswith('"""')
        module.write_text('"""Other words. ' + text[3:] + "\n# one more comment\n")
    assert planned(study) == {}


def test_words_of_tables_and_settings_and_what_writes_the_docs_rerun_nothing(study: Path, edit: Edit) -> None:
    """The wording of a column in each stage's contract, of a row, of a setting; a range; the writers of pages."""
    for stage in ("data", "store", "train", "evaluate", "explain", "combine"):
        file = study / f"src/cxrscale/{stage}/contracts.py"
        words = re.findall(r'(Column\("\w+", "\w+", ")(\w)', file.read_text())
        assert len(words) > 3
        text = re.sub(r'(Column\("\w+", "\w+", ")(\w)', r"\1Other words. \2", file.read_text())
        file.write_text(re.sub(r'(    row=f?")', r"\1Other words. ", text))
    edit("src/cxrscale/train/settings.py", '"""equal, fixed budget;', '"""a fixed budget;')
    edit("src/cxrscale/train/settings.py", "Range(ge=1e-9, le=10)", "Range(ge=1e-8, le=1)")
    edit("src/cxrscale/workflow/contracts_page.py", "# Contracts between stages", "# Contracts")
    edit("src/cxrscale/workflow/config_page.py", "COLUMN, WIDTH = 32, 120", "COLUMN, WIDTH = 40, 120")
    assert planned(study) == {}
    # While the type of a column counts, for those who write or read that table.
    edit("src/cxrscale/explain/contracts.py", 'Column("n_against", "int64"', 'Column("n_against", "int32"')
    assert planned(study) == {"localise": 4, "report": 1}
    edit("src/cxrscale/train/settings.py", "    epochs: Count = 30", "    epochs: Count = 31")
    assert planned(study) == LEARNERS | SPANNING


def test_new_config_key_and_new_data_set_rerun_nothing(study: Path, edit: Edit) -> None:
    # One that says how a training runs, with a value of its own, and a setting of learners at its default.
    settings = "src/cxrscale/train/settings.py"
    edit(settings, "    compile: bool = False\n", "    compile: bool = False\n    brand_new: Count = 7\n")
    edit("config.yaml", "  epochs: 30 ", "  brand_new: 8\n  epochs: 30 ")
    edit(settings, "    epochs: Count = 30\n", "    epochs: Count = 30\n    newer: Count = 7\n")
    formats = study / "src/cxrscale/data/formats"
    other = (formats / "manifest.py").read_text().replace('name="manifest"', 'name="other"')
    (formats / "other.py").write_text(other)
    assert planned(study) == {}


STORE = {
    "list_images": 1,
    "fingerprint_pictures": 1,
    "ingest_shard": 2,
    "collect_quarantine": 1,
    "index_shards": 2,
    "measure_store": 2,
}
RECORD = {"record_study": 1}  # where the study's learners and its store are
AFTER_IMAGES = RECORD | STORE | {"downscale_together": 2, "check_inputs": 1} | TARGETS | LEARNERS | SPANNING
RUNS_OTHERWISE = (
    "training={workers: 1, micro_batch_images: 16, checkpoint_s: 5, gpus: 2, nodes: 2, activation_checkpointing: true, "
    "compile: true, channels_last: false}"
)
ONE_OVERRIDE = "training={overrides: [{model: test_resnet, resolution_px: 48, settings: {learning_rate: 0.001}}]}"
WEIGHTS = "weights: {file: data/test_resnet.safetensors}"
ONE_MORE_MODEL = f"models=[{{name: test_resnet, {WEIGHTS}}}, {{name: test_efficientnet}}, {{name: test_vit}}]"


@pytest.mark.parametrize(
    ("change", "jobs", "why"),
    [
        (["--config", RUNS_OTHERWISE], {}, {}),
        (["--workflow-profile", "profiles/slurm"], {}, {}),
        (
            ["--config", ONE_OVERRIDE],
            dict.fromkeys(LEARNERS, 1) | SPANNING,
            {"train": "1 of 4: training.learning_rate changed from its default to 0.001"},
        ),
        (
            ["--config", "resolutions_px=[32, 40, 48]"],
            {"downscale_shard": 2, "index_shards": 1, "measure_store": 1}
            | dict.fromkeys(LEARNERS, 2)
            | SPANNING
            | RECORD,
            {"train": "2 of 6: not made yet", "compare": "1 of 1: learners: 2 more"},
        ),
        (
            ["--config", ONE_MORE_MODEL],
            dict.fromkeys(LEARNERS, 2) | SPANNING | RECORD,
            {"predict": "2 of 6: not made yet", "stack": "1 of 1: learners: 2 more"},
        ),
        (
            ["--config", "seeds=[0, 1]"],
            LEARNERS | SPANNING | RECORD,
            {"train": "4 of 8: not made yet", "compare_fields": "1 of 1: comes after compare, erf"},
        ),
        (
            ["--config", "split={use_folds: [0, 1]}"],
            TARGETS | LEARNERS | SPANNING | RECORD,
            {"build_targets": "1 of 2: not made yet", "stack": "1 of 1: learners: 4 more, folds: 1 more"},
        ),
        (
            ["--config", "labels={uncertain: ones}"],
            TARGETS | LEARNERS | SPANNING,
            {
                "build_targets": '1 of 1: labels.uncertain changed from "zeros" to "ones"',
                "train": "4 of 4: comes after keep_together",
            },
        ),
        (["--config", "store={jpeg_quality: 80}"], AFTER_IMAGES, {"ingest_shard": "2 of 2: not made yet"}),
        (["--config", "store={geometry: pad}"], AFTER_IMAGES, {"ingest_shard": "2 of 2: not made yet"}),
        (
            ["--config", "stacking={tolerance: 1.0e-7}"],
            {"stack": 1, "report": 1},
            {"stack": "1 of 1: stacking.tolerance changed from 1e-08 to 1e-07", "report": "1 of 1: comes after stack"},
        ),
        (
            ["--config", "comparison={margin_auroc: 0.02}"],
            {"compare": 1, "compare_fields": 1, "report": 1},
            {"compare": "1 of 1: comparison.margin_auroc changed from 0.01 to 0.02"},
        ),
        (
            ["--config", "erf={images: 4}"],
            {"erf": 4, "compare_fields": 1, "report": 1},
            {"erf": "4 of 4: erf.images changed from 8 to 4"},
        ),
        (
            ["--config", "cam={images_per_finding: 2}"],
            {"cam": 4, "report": 1},
            {"cam": "4 of 4: cam.images_per_finding changed from 1 to 2"},
        ),
        (
            ["--config", "report={findings: [Fracture]}"],
            {"check_inputs": 1, "report": 1},
            {
                "check_inputs": '1 of 1: report.findings changed from null to ["Fracture"]',
                "report": "1 of 1: comes after check_inputs",
            },
        ),
        (
            ["--forcerun", "erf"],
            {"erf": 4, "compare_fields": 1, "report": 1},
            {"erf": "4 of 4: asked for by --force", "report": "1 of 1: comes after erf, compare_fields"},
        ),
    ],
)
def test_a_setting_runs_what_depends_on_it_and_says_why(
    finished: Path, change: list[str], jobs: dict[str, int], why: dict[str, str]
) -> None:
    plan = dry_run(finished, *change)
    assert plan.jobs == jobs
    assert set(plan.why) == set(jobs)
    assert {rule: plan.why[rule] for rule in why} == why


CODE = [
    ("combine/simplex.py", "LEAST = 1e-12", "LEAST = 1e-13", {"stack": 1, "report": 1}),
    (
        "evaluate/comparison.py",
        "from dataclasses import",
        "NEW = 1\nfrom dataclasses import",
        {"compare": 1, "compare_fields": 1, "report": 1},
    ),
    ("explain/field_size.py", "RING = 1 / 16", "RING = 1 / 8", {"erf": 4, "compare_fields": 1, "report": 1}),
    ("explain/field_effect.py", "LEAST_FINDINGS = 5", "LEAST_FINDINGS = 6", {"compare_fields": 1, "report": 1}),
    ("explain/cam.py", "PIXELS = 8 * 512**2", "PIXELS = 9 * 512**2", {"cam": 4, "localise": 4, "report": 1}),
    ("explain/localisation.py", "GRID = 256", "GRID = 128", {"localise": 4, "report": 1}),
    ("report/drawing.py", "DRAWN_PX = 256", "DRAWN_PX = 128", {"report": 1}),
    ("train/optimisation.py", "POS_WEIGHT_BOUNDS = (0.01", "POS_WEIGHT_BOUNDS = (0.02", LEARNERS | SPANNING),
    ("train/checkpoint.py", "RESULT_VERSION = 1", "RESULT_VERSION = 2", LEARNERS | SPANNING),
]


def test_code_runs_the_stage_that_runs_it_and_what_reads_that(study: Path, edit: Edit) -> None:
    for module, old, new, jobs in CODE:
        file = f"src/cxrscale/{module}"
        edit(file, old, new)
        plan = dry_run(study)
        assert plan.jobs == jobs, module
        assert plan.why[next(iter(jobs))].endswith("its code changed"), module
        edit(file, new, old)
    assert planned(study) == {}


def test_how_training_runs_and_what_it_says_rerun_nothing_and_its_loss_does(study: Path, edit: Edit) -> None:
    """A log message of the loop, how often GPUs and processes are looked at, a checkpoint's name; then the loss."""
    edit("src/cxrscale/train/training.py", "going on from epoch", "continuing from epoch")
    edit("src/cxrscale/common/devices.py", "poll_s: float = 0.5", "poll_s: float = 30.0")
    edit("src/cxrscale/train/launch.py", "running.wait(0.5)", "running.wait(2)")
    edit("src/cxrscale/train/checkpoint.py", 'SUPERSEDED = "superseded"', 'SUPERSEDED = "replaced"')
    assert "Nothing to be done" in dry_run(study).text
    loss = "F.binary_cross_entropy_with_logits("
    edit("src/cxrscale/train/optimisation.py", loss, f"2 * {loss}")
    plan = dry_run(study)
    assert plan.jobs == LEARNERS | SPANNING
    assert plan.why["train"] == "4 of 4: its code changed"


def accept(study: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Accept a change of the study's code, in its checkout."""
    command = [sys.executable, "-m", "cxrscale.workflow.accept", *arguments, "--", "--configfile", TINY]
    environment = os.environ | {"PYTHONPATH": str(study / "src")}
    return subprocess.run(command, cwd=study, env=environment, capture_output=True, text=True)


def test_an_accepted_change_of_code_makes_nothing_again_and_rewrites_nothing(study: Path, edit: Edit) -> None:
    """Of training, and of a part of the store; refused without a reason or a change; the next change counts again."""
    why = ("--because", "the two terms are added in another order")
    unchanged = accept(study, "--stage", "train", *why)
    assert unchanged.returncode == 1
    assert "Nothing to accept" in unchanged.stderr
    before = hashes(study)
    edit("src/cxrscale/train/optimisation.py", "+ smoothing / 2 if", "+ 0.5 * smoothing if")
    edit("src/cxrscale/store/fidelity.py", "import pandas as pd", "import pandas as pd\n\nEXAMINED = 1")
    assert planned(study)["train"] == 4
    done = accept(study, "--stage", "train", "measure_store", *why)
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in dry_run(study).text
    (store,) = (study / "results/stores").glob("synthetic-tiny-*")
    listed = [pd.read_csv(folder / "accepted-changes.csv") for folder in (study / "results/tiny", store)]
    assert [frame["stage"].tolist() for frame in listed] == [["train"], ["measure_store"]]
    after = hashes(study)
    assert {name for name in after if before.get(name) != after[name]} == {
        "tiny/accepted-changes.csv", f"stores/{store.name}/accepted-changes.csv",
    }  # fmt: skip

    # One that is trained is filed under the old name, and says what trained it.
    learner = study / LEARNER
    made_by = json.loads((learner / "learner.json").read_text())["origin"]["code"]
    shutil.rmtree(learner / "kept")
    again = snakemake(study, f"{LEARNER}/weights.safetensors", "--force")
    assert again.returncode == 0, again.stdout
    record = json.loads((learner / "learner.json").read_text())
    assert f"{LEARNER.removeprefix('results/')}/kept/{record['digest']}/learner.json" in before
    assert record["origin"]["code"] == listed[0]["code"].item() != made_by

    edit("src/cxrscale/train/optimisation.py", "+ 0.5 * smoothing if", "+ 0.6 * smoothing if")
    assert planned(study)["train"] == 4


def test_a_changed_stage_that_snakemake_would_leave_out_stops_with_what_to_do(study: Path, edit: Edit) -> None:
    """A new list of images reads no native file again; the code that reads them changed at the same time."""
    table = study / "results/data/synthetic-tiny/mimic-cxr-2.0.0-metadata.csv.gz"
    pd.read_csv(table, dtype=str, keep_default_na=False).assign(StudyTime="1.0").to_csv(table, index=False)
    assert "ingest_shard" not in planned(study)
    edit("src/cxrscale/store/pixels.py", "PAD_FILL = 0", "PAD_FILL = 1")
    result = snakemake(study, "-n")
    assert result.returncode != 0
    assert re.search("the settings or code of .*ingest_shard.* changed, but Snakemake would plan that", result.stdout)
    assert "`--until list_images` first, then without" in result.stdout
    assert snakemake(study, "--until", "list_images").returncode == 0
    plan = planned(study)
    assert plan["ingest_shard"] == 2
    assert plan["train"] == 4


def test_training_again_is_announced_with_its_cost(study: Path, edit: Edit) -> None:
    """Before it starts, from the last records; of a GPU in GPU-hours, scaled to the epochs that are asked for."""
    edit("src/cxrscale/train/optimisation.py", "POS_WEIGHT_BOUNDS = (0.01", "POS_WEIGHT_BOUNDS = (0.02")
    assert "To be trained again: 4, less than 0.01 hours of training on a CPU" in dry_run(study).text
    for i, path in enumerate(sorted((study / "results/tiny/learners").glob("*/*/*/cost.json"))):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"seconds": 3600, "gpu_seconds": 7200 * (1 + i), "device": "Big GPU"}))
    assert "To be trained again: 4, about 20 GPU-hours (Big GPU) by their last records" in dry_run(study).text
    on_gpus = dry_run(study, "--resources", "gpu=8", "--config", "accelerator=cuda").text
    assert "All trainings on 8 GPUs: about 8 h, by records" in on_gpus
    assert "4, about 60 GPU-hours" in dry_run(study, "--config", "training={epochs: 6}").text
    more = dry_run(study, "--config", "seeds=[0, 1]", "resolutions_px=[32, 40, 48]").text
    assert "To be trained for the first time: 4, about 20 GPU-hours (Big GPU) by records of the same model" in more
    assert "; 4, unknown how long, no such learner was trained yet." in more
    # A real run says it too, once, before the first job; the processes of its jobs do not.
    targets = [f"results/tiny/learners/test_resnet/{r}px/fold0-seed0/weights.safetensors" for r in (32, 48)]
    result = snakemake(study, *targets)
    assert result.returncode == 0, result.stdout
    said = "To be trained again: 2, about 14 GPU-hours (Big GPU)"
    assert result.stdout.count("Why each stage runs:") == result.stdout.count(said) == 1
    assert result.stdout.index(said) < result.stdout.index("Training test_resnet at")
    # What was there is kept, and tells its cost again where the record itself is gone.
    learner = (study / targets[0]).parent
    assert list((learner / "superseded").glob("*/weights.safetensors"))
    (learner / "cost.json").unlink()
    (learner / "cost.json").with_name("weights.safetensors").unlink()
    again = dry_run(study, targets[0])
    assert again.why == {"train": "1 of 1: some of its files are missing"}
    assert "To be trained again: 1, less than 0.01 hours of training on a CPU" in again.text


def test_groups_count_as_one_job(finished: Path) -> None:
    """Four predictions with their evaluations, and the four stages that span learners."""
    groups = ["--groups", "predict=learner", "evaluate=learner"]
    assert "12 steps in 8 jobs of the cluster" in dry_run(finished, "-R", "predict", *groups).text
    two = dry_run(finished, "-R", "predict", *groups, "--group-components", "learner=2")
    assert "12 steps in 6 jobs of the cluster" in two.text
    assert "jobs of the cluster" not in dry_run(finished, "-R", "predict").text


def test_what_a_change_leaves_is_left_to_the_byte(study: Path) -> None:
    """One more resolution, one more fold, another label policy, other JPEGs: the stages before learners, for real."""
    before = hashes(study)
    fold, labels = "tiny/targets/drawn/fold0.parquet", "tiny/labels.parquet"

    def run(*arguments: str) -> dict[str, str]:
        result = snakemake(study, *arguments)
        assert result.returncode == 0, result.stdout
        return hashes(study)

    def changed(after: dict[str, str]) -> set[str]:
        return {name for name, value in before.items() if after.get(name) != value}

    more = run("stores", "targets", "--config", "resolutions_px=[32, 40, 48]", "split={use_folds: [0, 1]}")
    assert changed(more) == set()
    assert {name.split("/")[2] for name in more.keys() - before.keys()} == {"40", "drawn", "targets-fold1.csv"}
    other_jpegs = run("stores", "targets", "--config", "store={jpeg_quality: 80}")
    assert changed(other_jpegs) == set()  # labels and targets, made of the same rows, are the same too
    assert len({name.split("/")[1] for name in other_jpegs if name.startswith("stores/")}) == 2
    policy = run("targets", "--config", "labels={uncertain: ones}")
    assert changed(policy) == {fold}
    assert labels in before


def test_settings_of_late_stages_change_no_file_of_others(study: Path) -> None:
    before = hashes(study)
    settings = ("stacking={tolerance: 1.0e-7}", "comparison={margin_auroc: 0.02}", "report={findings: [Fracture]}")
    result = snakemake(study, "--config", *settings)
    assert result.returncode == 0, result.stdout
    assert "Training test_" not in result.stdout
    after = hashes(study)
    assert after.keys() == before.keys()
    changed = {name.split("/")[1] for name, value in before.items() if after[name] != value}
    assert changed == {"comparison", "stacking", "report"}


def test_a_moved_data_root_reruns_nothing_and_a_corrected_row_does(study: Path) -> None:
    """The synthetic pictures read as MIMIC-CXR-JPG's, with a learner and its boxes."""
    shutil.copytree(study / "results/data/synthetic-tiny", study / "here/root")
    given = yaml.safe_load((study / TINY).read_text()) | {"study": "moved", "cam": {"boxes": "boxes.csv"}}
    given["dataset"] = {"name": "real", "root": "here/root"}
    (study / "moved.yaml").write_text(yaml.safe_dump(given))
    target = "results/moved/learners/test_resnet/32px/fold0-seed0/localisation.csv"
    result = snakemake(study, target, config="moved.yaml")
    assert result.returncode == 0, result.stdout
    everything = planned(study, config="moved.yaml")
    assert everything["train"] == 3
    (study / "there").mkdir()
    (study / "here/root").rename(study / "there/other")
    given["dataset"]["root"] = "there/other"
    (study / "moved.yaml").write_text(yaml.safe_dump(given))
    for file in (study / "there/other").glob("*.csv*"):
        file.touch()
    assert planned(study, target, config="moved.yaml") == {}
    assert planned(study, config="moved.yaml") == everything

    # Other pictures under the same names are no moved root, however the csv files look.
    shutil.copytree(study / "there/other", study / "inverted")
    for file in (study / "inverted").rglob("*.jpg"):
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file, quality=95)
    (study / "inverted.yaml").write_text(yaml.safe_dump(given | {"dataset": {"name": "real", "root": "inverted"}}))
    other = snakemake(study, "-n", target, config="inverted.yaml")
    assert other.returncode != 0
    assert "was made of other pictures than lie in inverted" in other.stdout
    assert "Traceback" not in other.stdout

    table = study / "there/other/mimic-cxr-2.0.0-chexpert.csv.gz"
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    rows.loc[0, "Fracture"] = "0.0" if rows.loc[0, "Fracture"] == "1.0" else "1.0"
    rows.to_csv(table, index=False)
    plan = dry_run(study, target, config="moved.yaml")
    again = ("parse_labels", "build_targets", "keep_together", "train", "localise")
    assert plan.jobs == dict.fromkeys(again, 1)
    assert plan.why["parse_labels"] == "1 of 1: csv files of the data set changed"


def test_changed_sources_are_found_and_only_their_shard_is_made_again(study: Path) -> None:
    """A native file replaced and another that is no longer named: found on request, with what depends on them."""
    (store,) = (study / "results/stores").glob("synthetic-tiny-*")
    images = pd.read_parquet(store / "images.parquet")
    assert set(images["shard"]) == {0, 1}
    assert "the store is of the data set as it is now" in snakemake(study, "check_sources").stdout
    assert planned(study) == {}
    # Not among the pictures whose checksums are taken again at each start.
    unseen = images.sort_values("order").iloc[PICTURES:]
    other, replaced = unseen[unseen["shard"] == 1]["path"].iloc[:2]
    root = study / "results/data/synthetic-tiny"
    shutil.copy(root / other, root / replaced)
    assert planned(study) == {}  # native files count as fixed until they are checked
    before = {path.relative_to(store): path.read_bytes() for path in store.glob("*/shard-*.parquet")}
    result = snakemake(study, "check_sources")
    assert f"{replaced}, shard 1) has other bytes" in result.stdout
    assert "1 shards were moved to" in result.stdout
    jobs = planned(study)
    made = {"ingest_shard": 1, "collect_quarantine": 1, "downscale_together": 1, "index_shards": 2, "measure_store": 2}
    assert jobs == made | {"keep_together": 1, "check_pictures": 1} | LEARNERS | SPANNING
    assert snakemake(study, "stores").returncode == 0

    # One of the pictures whose checksums are taken is seen at once.
    seen = images.sort_values("order")["path"].iloc[0]
    original = (root / seen).read_bytes()
    shutil.copy(root / other, root / seen)
    stopped = snakemake(study, "-n")
    assert stopped.returncode != 0
    assert "of the 64 compared, 1 have other bytes" in stopped.stdout
    (root / seen).write_bytes(original)
    for path, data in before.items():
        assert ((store / path).read_bytes() == data) == ("00000" in path.name), path


def test_another_list_of_images_stops_before_anything_is_trained(study: Path) -> None:
    table = study / "results/data/synthetic-tiny/mimic-cxr-2.0.0-metadata.csv.gz"
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    rows.iloc[1:].to_csv(table, index=False)
    jobs = planned(study)
    assert {"ingest_shard", "downscale_together", "index_shards"} & set(jobs) == set()
    assert jobs["list_images"] == jobs["collect_quarantine"] == 1
    result = snakemake(study)
    assert result.returncode != 0
    assert "1 in it are no longer named so" in result.stdout
    assert "snakemake --cores all check_sources" in result.stdout
    assert "Training test_" not in result.stdout
    assert "is no longer in the csv files" in snakemake(study, "check_sources").stdout
    assert planned(study)["ingest_shard"] == 1


def test_damaged_shard_is_set_aside_and_made_again(study: Path) -> None:
    (store,) = (study / "results/stores").glob("synthetic-tiny-*")
    shard = store / "32/shard-00001.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    result = snakemake(study, str(store.relative_to(study) / "32/psnr.csv"), "--force")
    assert result.returncode != 0
    assert "--set-aside" in result.stdout
    command = [sys.executable, "-m", "cxrscale.store.verify", str(store), "--set-aside"]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(study / "src")}, check=False)
    assert planned(study, "stores")["downscale_together"] == 1
    assert snakemake(study, "stores").returncode == 0
    assert shard.read_bytes() == whole


def test_two_studies_with_the_same_store_settings_share_one_store(study: Path) -> None:
    jobs = planned(study, "stores", "--config", "study=another", "training={epochs: 3}")
    assert jobs == {}


def test_what_one_resolution_overrides_holds_for_its_predictions_too(study: Path) -> None:
    """Mean, deviation and precision of one resolution: what training validated is what predictions score."""
    settings = "{mean: 0.0, standard_deviation: 1.0, precision: float32}"
    override = f"training={{overrides: [{{resolution_px: 48, settings: {settings}}}]}}"
    learners = [f"results/tiny/learners/{model}/48px/fold0-seed0" for model in ("test_resnet", "test_efficientnet")]
    result = snakemake(study, *(f"{folder}/predictions.parquet" for folder in learners), "--config", override)
    assert result.returncode == 0, result.stdout
    targets = pd.read_parquet(study / "results/tiny/targets/fold0.parquet")
    for folder in learners:
        record = json.loads((study / folder / "learner.json").read_text())
        assert (record["mean"], record["standard_deviation"], record["precision"]) == (0.0, 1.0, "float32")
        rows = pd.read_parquet(study / folder / "predictions.parquet")
        rows = rows[rows["split"] == "validate"]
        assert len(rows) == (targets["split"] == "validate").sum()
        scores = [
            roc_auc_score(counted[f"target:{finding}"].astype(int), counted[f"logit:{finding}"])
            for finding in ("Cardiomegaly", "Fracture", "Pleural Other")
            for counted in [rows[rows[f"target:{finding}"].notna()]]
            if counted[f"target:{finding}"].nunique() == 2
        ]
        trained = pd.read_csv(study / folder / "history.csv")["validation_auroc"].max()
        assert sum(scores) / len(scores) == pytest.approx(trained, abs=1e-9)


def test_replaced_learner_is_moved_aside_and_comes_back(study: Path) -> None:
    learner = study / "results/tiny/learners/test_resnet/32px/fold0-seed0"
    target = f"{learner.relative_to(study)}/weights.safetensors"
    first = (learner / "weights.safetensors").read_bytes()
    assert snakemake(study, target, "--config", "training={learning_rate: 0.001}").returncode == 0
    assert (learner / "weights.safetensors").read_bytes() != first
    kept = list((learner / "superseded").glob("*/weights.safetensors"))
    assert [k.read_bytes() for k in kept] == [first]
    result = snakemake(study, target)
    assert result.returncode == 0, result.stdout
    assert (learner / "weights.safetensors").read_bytes() == first


def test_no_run_deletes_a_finished_learner(study: Path) -> None:
    """A training that fails, or is killed with all of Snakemake; then --forceall, and predictions made again."""
    learner = study / "results/tiny/learners/test_resnet/32px/fold0-seed0"
    target = f"{learner.relative_to(study)}/weights.safetensors"
    names = ("weights.safetensors", "learner.json", "history.csv", "cost.json")
    finished = {name: (learner / name).read_bytes() for name in names}

    def kept() -> list[dict[str, bytes]]:
        return [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in (learner / "kept").iterdir()]

    failed = snakemake(study, target, "--config", "training={batch_images: 4096}")
    assert failed.returncode != 0
    assert "too few" in failed.stdout
    assert kept() == [finished]

    command = [sys.executable, "-m", "snakemake", target, "--cores", "2", "--configfile", TINY, "--config"]
    command.append("training={learning_rate: 0.001, epochs: 5000}")
    with subprocess.Popen(command, cwd=study, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        while not (learner / "checkpoint.pt").is_file():
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (learner / "weights.safetensors").exists()
    assert kept() == [finished]
    assert snakemake(study, "--unlock").returncode == 0
    assert dry_run(study, target).why == {"train": "1 of 1: not finished, there is a checkpoint"}

    forced = snakemake(study, target, "--forceall")
    assert forced.returncode == 0, forced.stdout
    assert re.search("train +1 of 1: asked for by --force", forced.stdout)
    assert {name: (learner / name).read_bytes() for name in finished} == finished
    assert kept() == [finished]
    again = snakemake(study, f"{learner.relative_to(study)}/predictions.parquet", "--force")
    assert again.returncode == 0, again.stdout
    assert {name: (learner / name).read_bytes() for name in finished} == finished
    assert planned(study) == {}


def test_what_ended_without_a_head_is_compared_with_what_it_was_made_from(study: Path) -> None:
    """Its head was killed: Snakemake has no record of the training, and takes it for new whatever the settings are."""
    changed = ("--config", "training={learning_rate: 0.001}")
    trained = [f"{LEARNER}/{name}" for name in ("weights.safetensors", "learner.json", "history.csv", "cost.json")]
    cleaned = snakemake(study, "--cleanup-metadata", *trained)
    assert cleaned.returncode == 0, cleaned.stdout
    said = snakemake(study, "-n").stdout
    assert "Nothing to be done" in said
    assert "Rules with missing metadata: train" in said
    assert planned(study, *changed)["train"] == 3  # one of the four is stale, and would pass for new
    # As docs/cluster.md says.
    rows = [row.split("\t") for row in snakemake(study, "--summary").stdout.splitlines() if row.count("\t") == 5]
    unrecorded = [file for file, made, _, log, _, _ in rows if made != "-" and log == "-"]
    assert sorted(unrecorded) == sorted(trained)
    assert planned(study, *changed, "--forcerun", *unrecorded)["train"] == 4
    before = hashes(study)
    ran = snakemake(study, "--until", "train", "--forcerun", *unrecorded)
    assert ran.returncode == 0, ran.stdout
    assert "it was brought back" in (study / "results/tiny/logs/train/test_resnet-48px-fold0-seed0.log").read_text()
    assert hashes(study) == before
    said = snakemake(study, "-n").stdout
    assert "Nothing to be done" in said
    assert "missing metadata" not in said


def test_an_interrupted_job_is_run_again_and_says_so(study: Path) -> None:
    """The mark that Snakemake leaves of a job which was running when it was killed."""
    output = "results/tiny/comparison/auroc.csv"
    marks = study / ".snakemake/incomplete"
    marks.mkdir(exist_ok=True)
    (marks / base64.urlsafe_b64encode(output.encode()).decode()).write_text('{"external_jobid": null}')
    plan = dry_run(study)
    assert plan.why == {
        "compare": "1 of 1: interrupted before",
        "compare_fields": "1 of 1: comes after compare",
        "report": "1 of 1: comes after compare, compare_fields",
    }


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_stopped_training_goes_on_to_the_same_weights(finished: Path, tmp_path: Path, number: int, status: int) -> None:
    """To the bit, on a CPU, after kill -9 as after SIGTERM, which ends it with a status of its own."""
    settings = json.loads((finished / LEARNER / "cost.json").read_text())["identity"]["settings"] | {"epochs": 12}
    (store,) = (finished / "results/stores").glob("synthetic-tiny-*")

    def command(name: str) -> list[str]:
        given = {
            "folder": tmp_path / name, "log": tmp_path / f"{name}.log", "code": "x", "model": "test_resnet",
            "geometry": "stretch", "resolution-px": 48, "seed": 0, "settings": json.dumps(settings),
            "accelerator": "cpu", "targets": finished / "results/tiny/targets/fold0.parquet",
            "index": store / "base/index.parquet",
            "run": json.dumps({"workers": 0}),
        }  # fmt: skip
        script = str(finished / "workflow/scripts/train.py")
        return [sys.executable, script, *(part for key, value in given.items() for part in (f"--{key}", str(value)))]

    environment = os.environ | {"PYTHONPATH": str(finished / "src")}
    subprocess.run(command("whole"), env=environment, check=True, capture_output=True)
    with subprocess.Popen(command("stopped"), env=environment, stderr=subprocess.DEVNULL) as process:
        while not (tmp_path / "stopped/checkpoint.pt").is_file():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
    assert process.returncode == status
    assert not (tmp_path / "stopped/weights.safetensors").exists()
    subprocess.run(command("stopped"), env=environment, check=True, capture_output=True)
    assert "going on from epoch" in (tmp_path / "stopped.log").read_text()
    whole, stopped = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped


def test_profiles_repeat_the_rerun_settings() -> None:
    loaded = [yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text()) for name in ("default", "slurm")]
    for key in ("rerun-triggers", "max-checksum-file-size", "rerun-incomplete"):
        assert loaded[0][key] == loaded[1][key], key


def test_another_checkouts_package_is_refused(study: Path, finished: Path) -> None:
    script = finished / "workflow/scripts/train.py"
    code = f"from cxrscale.common.joblog import job\nwith job('x.log', {str(script)!r}): pass"
    environment = os.environ | {"PYTHONPATH": str(study / "src")}
    run = subprocess.run([sys.executable, "-c", code], cwd=study, env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    assert str(finished) in run.stderr
    assert str(study / "src") in run.stderr
    assert "Traceback" not in run.stderr
