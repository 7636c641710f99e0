"""What reruns after a change: a meaning that changed, and nothing else."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

from .conftest import ROOT, planned, snakemake

Edit = Callable[[str, str, str], None]
LEARNER = "results/tiny/learners/test_resnet/48px/fold0-seed0"
SPANNING = {"compare": 1, "compare_fields": 1, "stack": 1, "report": 1}
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
    weights = pd.read_csv(results / "stacking/weights.csv")
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


def test_new_config_key_and_new_data_set_rerun_nothing(study: Path, edit: Edit) -> None:
    # One that says how a training runs, with a value of its own, and a setting of learners at its default.
    edit("src/cxrscale/config.py", "    gpus: Count = 1\n", "    gpus: Count = 1\n    brand_new: int = 7\n")
    edit("config.yaml", "  epochs: 30 ", "  brand_new: 8\n  epochs: 30 ")
    edit("src/cxrscale/config.py", "    epochs: Count = 30\n", "    epochs: Count = 30\n    newer: int = 7\n")
    edit(
        "src/cxrscale/config.py",
        'Literal["mimic-cxr-jpg", "manifest"]',
        'Literal["mimic-cxr-jpg", "manifest", "other"]',
    )
    shutil.copy(study / "src/cxrscale/datasets/manifest.py", study / "src/cxrscale/datasets/other.py")
    assert planned(study) == {}


def test_how_it_runs_reruns_nothing(study: Path) -> None:
    changes = (
        "training={workers: 1, micro_batch_images: 16, checkpoint_s: 5, gpus: 2, nodes: 2, recompute: true, "
        "compile: true, channels_last: false}"
    )
    assert planned(study, "--config", changes) == {}


def test_override_trains_the_learner_it_names(study: Path) -> None:
    override = "training={overrides: [{model: test_resnet, resolution_px: 48, settings: {learning_rate: 0.001}}]}"
    jobs = planned(study, "--config", override)
    assert jobs == dict.fromkeys(LEARNERS, 1) | SPANNING


def test_one_more_resolution_leaves_what_exists(study: Path) -> None:
    jobs = planned(study, "--config", "resolutions_px=[32, 40, 48]")
    new = {"downscale_shard": 2, "list_shards": 1, "measure_store": 1, **dict.fromkeys(LEARNERS, 2)}
    assert jobs == new | SPANNING


def test_changed_sources_are_found_and_only_their_shard_is_made_again(study: Path) -> None:
    """A native file replaced and another that is no longer named: found on request, with what depends on them."""
    (store,) = (study / "results/stores").glob("synthetic-tiny-*")
    images = pd.read_parquet(store / "images.parquet")
    assert set(images["shard"]) == {0, 1}
    assert "the store is of the data set as it is now" in snakemake(study, "check_sources").stdout
    assert planned(study) == {}
    other, replaced = images[images["shard"] == 1]["path"].iloc[:2]
    root = study / "results/data/synthetic-tiny"
    shutil.copy(root / other, root / replaced)
    assert planned(study) == {}  # native files count as fixed until they are checked
    before = {path.relative_to(store): path.read_bytes() for path in store.glob("*/shard-*.parquet")}
    result = snakemake(study, "check_sources")
    assert f"{replaced}, shard 1) has other bytes" in result.stdout
    assert "1 shards were moved to" in result.stdout
    jobs = planned(study)
    made = {"ingest_shard": 1, "collect_quarantine": 1, "downscale_together": 1, "list_shards": 2, "measure_store": 2}
    assert jobs == made | LEARNERS | SPANNING
    assert snakemake(study, "stores").returncode == 0
    for path, data in before.items():
        assert ((store / path).read_bytes() == data) == ("00000" in path.name), path


def test_another_list_of_images_stops_before_anything_is_trained(study: Path) -> None:
    table = study / "results/data/synthetic-tiny/mimic-cxr-2.0.0-metadata.csv.gz"
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    rows.iloc[1:].to_csv(table, index=False)
    jobs = planned(study)
    assert {"ingest_shard", "downscale_together", "list_shards"} & set(jobs) == set()
    assert jobs["index_images"] == jobs["collect_quarantine"] == 1
    result = snakemake(study)
    assert result.returncode != 0
    assert "1 in it are no longer named so" in result.stdout
    assert "snakemake --cores all check_sources" in result.stdout
    assert "rule train:" not in result.stdout
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


def test_label_policy_touches_no_image(study: Path) -> None:
    jobs = planned(study, "--config", "labels={uncertain: ones}")
    assert jobs == {"build_targets": 1} | LEARNERS | SPANNING


def test_code_of_training_retrains_and_code_of_stacking_does_not(study: Path, edit: Edit) -> None:
    edit("src/cxrscale/stacking/simplex.py", "LEAST = 1e-12", "LEAST = 1e-13")
    assert planned(study) == {"stack": 1, "report": 1}
    edit("src/cxrscale/checkpoint.py", 'SUPERSEDED = "superseded"', 'SUPERSEDED = "replaced"')
    jobs = planned(study)
    assert jobs["train"] == 4
    assert "ingest_shard" not in jobs
    assert "parse_labels" not in jobs


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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_stopped_training_goes_on_to_the_same_weights(finished: Path, tmp_path: Path, number: int, status: int) -> None:
    """To the bit, on a CPU, after kill -9 as after SIGTERM, which ends it with a status of its own."""
    settings = json.loads((finished / LEARNER / "cost.json").read_text())["identity"]["settings"] | {"epochs": 12}
    (store,) = (finished / "results/stores").glob("synthetic-tiny-*")

    def command(name: str) -> list[str]:
        given = {
            "folder": tmp_path / name, "log": tmp_path / f"{name}.log", "code": "x", "model": "test_resnet",
            "resolution-px": 48, "seed": 0, "settings": json.dumps(settings), "accelerator": "cpu",
            "targets": finished / "results/tiny/targets/fold0.parquet", "manifest": store / "base/manifest.parquet",
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
    code = f"from cxrscale.joblog import job\nwith job('x.log', {str(script)!r}): pass"
    environment = os.environ | {"PYTHONPATH": str(study / "src")}
    run = subprocess.run([sys.executable, "-c", code], cwd=study, env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    assert str(finished) in run.stderr
    assert str(study / "src") in run.stderr
    assert "Traceback" not in run.stderr
