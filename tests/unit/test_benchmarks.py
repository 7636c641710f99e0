"""The benchmarks run; nothing is timed here."""

import argparse
import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from cxrscale.workflow.config import StudyConfig

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch):
    """A function that imports a benchmark as it sees itself, beside measure.py."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_results_are_judged_shown_and_written(benchmark_module, tmp_path, capsys):
    measure = benchmark_module("measure")
    results = [
        measure.Result("speed", 0.9, "ratio", ">= 0.8"),
        measure.Result("time", 31.0, "s", "<= 30"),
        measure.Result("size", 2.0, "MB"),
    ]
    assert [r.met for r in results] == [True, False, None]
    measure.report(results, tmp_path / "results" / "a.json")
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == ["met", "missed", "MB"]
    written = json.loads((tmp_path / "results" / "a.json").read_text())
    assert written[1] == {"what": "time", "value": 31.0, "unit": "s", "target": "<= 30"}
    with pytest.raises(ValueError, match="begins with >= or <="):
        _ = measure.Result("x", 1.0, "s", "= 3").met
    assert measure.arguments("what").parse_args(["--quick", "--json", "a"]) == argparse.Namespace(
        quick=True, json=Path("a")
    )


@pytest.mark.filterwarnings("ignore")  # webdataset's own
def test_loading_runs_on_tiny_pictures(benchmark_module, tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    loading = benchmark_module("loading")
    monkeypatch.setattr(loading, "LOAD_BYTES", 0)
    native = benchmark_module("pictures").native_files(tmp_path / "native", 4, rows_px=120, columns_px=100)
    stores = benchmark_module("pictures").make_stores(native, tmp_path / "stores", [32, 64])
    assert {size: store.shape for size, store in stores.items()} == {32: (32, 32), 64: (64, 64)}
    results = loading.measure(stores[32], tmp_path / "files", 0.0, 1)
    assert len(results) == 5
    assert all(r.value > 0 for r in results)


def test_a_store_is_made_both_ways_of_tiny_pictures(benchmark_module, tmp_path, monkeypatch):
    store = benchmark_module("store")
    native = benchmark_module("pictures").native_files(tmp_path / "native", 5, rows_px=120, columns_px=100)
    copies = benchmark_module("pictures").native_files(tmp_path / "copies", 5, pictures=tmp_path / "native")
    assert len({path.read_bytes() for path in native}) == 5
    assert len(copies) == 5
    monkeypatch.setattr(store, "BASE", 64)
    monkeypatch.setattr(store, "SMALLER", (32, 16))
    assert store.reads_per_file(native, tmp_path / "store") == 1
    store.usual_way(native, tmp_path / "usual")
    assert len(list((tmp_path / "usual").rglob("*.jpg"))) == 15
    ratio, ours, theirs = store.ratios(lambda: None, lambda: None, 2)
    assert min(ratio, ours, theirs) > 0


def test_training_is_measured_both_ways_on_tiny_pictures(benchmark_module, tmp_path):
    training = benchmark_module("training")
    training.make_pictures(tmp_path, [32], 18)
    job = training.Job("ours", "test_resnet", 32, str(tmp_path), 16, 0, 0.0, False, False, "cpu")
    ours, theirs = [training.Ours(job).turn()], [training.Theirs(job).turn()]
    assert (ours[0]["micro_batch_images"], theirs[0]["batch_images"]) == (16, 16)
    # Work grows with the area.
    small, large = (training.flops_per_image("test_resnet", size) for size in (32, 64))
    assert large == pytest.approx(4 * small, rel=0.05)
    rows = training.rows_of(job, ours, theirs, training.matmul_peak(training.torch.device("cpu")))
    values = {row.what.strip(): row.value for row in rows}
    assert values["ours / theirs"] == pytest.approx(ours[0]["images_per_second"] / theirs[0]["images_per_second"])
    assert values["share of the matmul peak"] > 0
    assert values["channels last / contiguous"] > 0
    assert values["groups of 8 / plain batch norm"] > 0
    assert values["groups of 8 / frozen statistics"] > 0
    assert "compiled / not" not in values
    assert training.directed(2.0, False) == 0.5
    assert not any(row.target for row in rows)
    gpu_job = training.replace(job, device="cuda", size_px=2048)
    on_gpu = training.rows_of(gpu_job, ours, [{"images_per_second": None}], 1e12)
    assert {row.target for row in on_gpu} == {"", "<= 0.05", ">= 8"}


def test_a_device_is_checked_before_it_is_timed(benchmark_module, tmp_path, monkeypatch):
    checks = benchmark_module("training_checks")
    pictures = benchmark_module("pictures")
    native = pictures.plain_files(tmp_path / "native", checks.NEEDED, 40)
    store = pictures.make_stores(native, tmp_path / "stores", [32], "lanczos")[32]
    cpu = checks.torch.device("cpu")
    results = checks.checked(store, tmp_path / "checks", ["test_resnet"], cpu)
    assert [(r.value, r.met) for r in results] == [(0.0, True), (0.0, True)]
    # A device whose losses are a hundredth too large.
    exact, factors = checks.losses, iter([1.01, 1.0])
    monkeypatch.setattr(checks, "losses", lambda *given: exact(*given) * next(factors))
    results = checks.check(store, tmp_path / "wrong", "test_resnet", cpu)
    assert [r.met for r in results] == [False, True]


def test_the_bootstrap_equals_the_usual_way_on_few_images(benchmark_module):
    evaluation = benchmark_module("evaluation")
    patient, target, logits = evaluation.made_up(600, 2)
    assert (len(patient), target.shape, logits.shape) == (600, (14, 600), (14, 2, 600))
    assert 2 < 600 / (patient.max() + 1) < 10
    results = {r.what: r for r in evaluation.measure(600, 2, 10, 3)}
    assert len(results) == 9
    differences = [r for what, r in results.items() if "largest difference" in what]
    assert [r.met for r in differences] == [True, True]
    assert not [r for r in results.values() if r.unit == "s" and r.target]  # no time is promised for a part


def test_costs_grow_as_documented(benchmark_module):
    costs, study = benchmark_module("costs"), StudyConfig()
    sizes = {r: 0.2 * r**2 for r in study.resolutions_px}
    work = {m.name: costs.work_of_an_image("test_resnet") for m in study.models}
    assert all(value > 0 for value in vars(work["densenet121"]).values())
    small, large = (costs.stages(study, images, sizes, work) for images in (1_000, 2_000))
    names = [s.stage for s in small]
    train, store = names.index("train"), names.index("store")
    assert large[train].gpu_hours == pytest.approx(2 * small[train].gpu_hours)
    assert large[store].disk_gb == pytest.approx(2 * small[store].disk_gb)
    several = costs.stages(replace(study, seeds=[0, 1, 2]), 1_000, sizes, work)
    assert several[train].gpu_hours == pytest.approx(3 * small[train].gpu_hours)
    assert several[store] == small[store]
    assert small[-1].steps == sum(s.steps for s in small[:-1])
    free = costs.Work(operations=1e9, kept=1e6, moved=1e7)
    assert costs.seconds_of_an_update(free, 256) == pytest.approx(4 * costs.seconds_of_an_update(free, 128))
    slow = replace(free, launches=9e5)  # by the host's time alone, of 64 images at once
    assert costs.seconds_of_an_update(slow, 128) == costs.seconds_of_an_update(slow, 256)
    one, all_groups = (costs.passed("test_resnet", 64, at_once) for at_once in (False, True))
    assert all_groups.launches < one.launches
