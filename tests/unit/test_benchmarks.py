"""The benchmarks run; nothing is timed here."""

import argparse
import importlib
import json
from pathlib import Path

import pytest

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
    loading.draw_pictures(tmp_path / "drawn", 1, 120, 100)
    names = loading.turn_pictures(tmp_path / "drawn", tmp_path / "native", 3)
    assert len(names) == 4
    stores = loading.make_stores(tmp_path / "native", names, tmp_path / "stores", [32, 64])
    assert {size: store.shape for size, store in stores.items()} == {32: (32, 32), 64: (64, 64)}
    results = loading.measure(stores[32], tmp_path / "files", 0.0, 1)
    assert len(results) == 5
    assert all(r.value > 0 for r in results)
