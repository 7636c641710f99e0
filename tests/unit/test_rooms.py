"""The plan of the house: what may import what (docs/design.md draws it)."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"

#: From the ground up. A module imports from its own room and from those before it, never from one behind it.
ROOMS = ("common", "data", "store", "train", "evaluate", "explain", "combine", "results", "report", "workflow", "truth")
STAGES = ("data", "store", "train", "evaluate", "explain", "combine", "report")


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the package."""
    found = {}
    for path in (SOURCE / "cxrscale").rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """The package's modules that a file imports, anywhere in it."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else str(node.module) for name in inner}
    return found & known.keys()


def room(module: str) -> str:
    return module.split(".")[1]


GRAPH = {name: imports(path) - {name, "cxrscale"} for name, path in modules().items() if name != "cxrscale"}


def test_every_module_is_in_a_room():
    assert {room(name) for name in GRAPH} == set(ROOMS)


@pytest.mark.parametrize("name", ROOMS)
def test_no_arrow_runs_back_up(name):
    allowed = ROOMS[: ROOMS.index(name) + 1]
    up = [(m, other) for m in GRAPH if room(m) == name for other in GRAPH[m] if room(other) not in allowed]
    assert up == []


def test_there_is_no_circle():
    list(graphlib.TopologicalSorter(GRAPH).static_order())  # raises CycleError that names one


@pytest.mark.parametrize("name", [m for m in GRAPH if m.endswith(".contracts")])
def test_declarations_of_tables_import_the_ground_floor_alone(name):
    assert {room(other) for other in GRAPH[name]} <= {"common"}


def test_a_stage_bears_one_name_everywhere():
    assert sorted(p.stem for p in (ROOT / "workflow/rules").glob("*.smk")) == sorted(STAGES)
    for stage in STAGES:
        assert (SOURCE / "cxrscale" / stage / "__init__.py").is_file()
        assert (ROOT / "tests/unit" / stage).is_dir()


def test_tests_lie_where_what_they_test_lies():
    known = {".".join(name.split(".")[1:]) for name in modules()}
    for path in (ROOT / "tests/unit").rglob("test_*.py"):
        *folders, name = path.relative_to(ROOT / "tests/unit").with_suffix("").parts
        if folders:
            tested = ".".join([*folders, name.removeprefix("test_")])
            assert tested in known or name in ABOUT_A_ROOM, f"{path}: there is no module {tested}"


#: Tests of a whole room, or of what is no module.
ABOUT_A_ROOM = ("test_formats", "test_kills", "test_loader_page", "test_pretended_gpu")


def every_import(module: str) -> set[str]:
    """What is imported once a module is."""
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("module", ["cxrscale.workflow.start", "cxrscale.workflow.protocol", "cxrscale.results"])
def test_what_the_snakefile_needs_is_light(module):
    assert not {"torch", "timm", "torchvision", "matplotlib", "scipy"} & every_import(module)


@pytest.mark.parametrize("module", ["cxrscale.train.training", "cxrscale.evaluate.metrics", "cxrscale.combine.stack"])
def test_what_jobs_run_imports_no_pydantic(module):
    assert "pydantic" not in every_import(module)
