import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from cxrscale.common import provenance
from cxrscale.common.errors import StudyError

SCRIPT = """from cxrscale.direct import answer
import json
print(answer(json))
"""
CLOCK = count(1_700_000_000)


def put(path: Path, text: str) -> Path:
    """Write a file and give it a time stamp of its own, as an editor would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    second = next(CLOCK)
    os.utime(path, (second, second))
    return path


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A package: the script imports direct, which imports through relatively; far comes in through `sub`."""
    monkeypatch.setattr(provenance, "SOURCE_ROOT", tmp_path / "src")
    files = {
        "src/cxrscale/__init__.py": "",
        "src/cxrscale/direct.py": "from cxrscale.sub import near\ndef answer(x):\n    return near.twice(x)\n",
        "src/cxrscale/sub/__init__.py": "",
        "src/cxrscale/sub/near.py": "from . import far\nfrom ..top import ONE\ndef twice(x):\n    return far.same(x)\n",
        "src/cxrscale/sub/far.py": "def same(x):\n    return x\n",
        "src/cxrscale/top.py": "ONE = 1\n",
        "src/cxrscale/unused.py": "TWO = 2\n",
        "script.py": SCRIPT,
        "page.html": "<p>",
    }
    for name, text in files.items():
        put(tmp_path / name, text)
    return tmp_path


def code(tree: Path, **options) -> str:
    return provenance.code_digest(tree / "script.py", **options)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("script.py", '"""A docstring."""\n' + SCRIPT),
        ("script.py", "# why\n" + SCRIPT.replace("\n", "\n\n")),
        ("script.py", SCRIPT.replace("print(answer(json))", "print(\n    answer( json ),\n)")),
        (
            "src/cxrscale/sub/far.py",
            '"""Doc."""\ndef same(x):\n    """More.\n\n    And more."""\n    return x  # it\n',
        ),
        ("src/cxrscale/unused.py", "TWO = 3\n"),
    ],
    ids=["docstring", "comments and blank lines", "layout", "docstring of a far module", "module that is not imported"],
)
def test_what_has_no_meaning_changes_no_digest(tree, file, text):
    before = code(tree)
    put(tree / file, text)
    assert code(tree) == before


def test_touching_changes_no_digest(tree):
    before = code(tree)
    touched = [put(path, path.read_text()) for path in sorted(tree.rglob("*.py"))]
    assert len(touched) == 8
    assert code(tree) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("script.py", "answer(json)", "answer(None)"),
        ("src/cxrscale/direct.py", "near.twice(x)", "near.twice(-x)"),
        ("src/cxrscale/sub/near.py", "far.same(x)", "far.same(2 * x)"),
        ("src/cxrscale/sub/far.py", "return x", "return x + 1"),
        ("src/cxrscale/top.py", "ONE = 1", "ONE = True"),
        ("src/cxrscale/sub/__init__.py", "", "SIDE = 'effect'\n"),
    ],
    ids=["script", "imported", "imported through another", "from . import", "from ..top import", "package"],
)
def test_code_changes_the_digest(tree, file, old, new):
    before = code(tree)
    text = (tree / file).read_text()
    put(tree / file, text.replace(old, new, 1))
    assert code(tree) != before


def test_an_import_inside_a_function_counts(tree):
    put(tree / "script.py", "def late():\n    from cxrscale import unused\n    return unused\n")
    before = code(tree)
    put(tree / "src/cxrscale/unused.py", "TWO = 3\n")
    assert code(tree) != before


def test_a_module_that_only_runs_a_job_counts_by_its_declared_version_alone(tree):
    """Not at all while it is 1, so that such modules may be divided and added; what they import still counts."""
    module, imports = tree / "src/cxrscale/direct.py", "from cxrscale.sub import near\n"
    put(module, imports + "RESULT_VERSION = 1  # why\nPOLL_S = 2\n")
    before = code(tree)
    put(module, imports + "RESULT_VERSION = 1\nPOLL_S = 60\nimport time\n")
    assert code(tree) == before
    put(tree / "src/cxrscale/lock.py", "RESULT_VERSION = 1\n")
    put(module, imports + "RESULT_VERSION: int = 1\nfrom cxrscale import lock\n")
    assert code(tree) == before
    put(module, imports + "RESULT_VERSION = 2\n")
    raised = code(tree)
    assert raised != before
    put(module, imports + "RESULT_VERSION = 3\n")
    assert code(tree) not in (before, raised)
    put(module, imports + "RESULT_VERSION = 1\n")
    assert code(tree) == before
    put(tree / "src/cxrscale/sub/far.py", "def same(x):\n    return -x\n")
    assert code(tree) != before
    put(module, imports)
    assert code(tree) != before


@pytest.mark.parametrize("value", ["0", "True", "'1'", "1.0", "None", "first()"])
def test_a_declared_version_is_a_whole_number(tree, value):
    put(tree / "src/cxrscale/direct.py", f"\nRESULT_VERSION = {value}\n")
    with pytest.raises(StudyError, match=r"direct.py line 2: RESULT_VERSION must be a whole number, 1 or more"):
        code(tree)


#: All that may declare one: modules that only run jobs.
ONLY_RUN_JOBS = {
    "common": {"atomic", "devices", "errors", "joblog", "process_names", "provenance", "sole_writer", "wording"},
    "store": {"staging"},
    "train": {"checkpoint", "distributed", "interruption", "launch", "memory", "micro_batch", "needs", "watch"},
}


def test_what_makes_values_declares_no_version():
    """A loss, a loader or a normalisation that counted by a number could change under results that stay."""
    source = provenance.SOURCE_ROOT / "cxrscale"
    declare = {str(p.relative_to(source)) for p in source.rglob("*.py") if "\nRESULT_VERSION" in p.read_text()}
    allowed = {f"{room}/{name}.py" for room, names in ONLY_RUN_JOBS.items() for name in names}
    assert declare - allowed == set(), "these count by their code; or they only run jobs: then name them here"
    assert {name for name in allowed - declare if (source / name).is_file()} == set(), "these declare none"
    makes = (
        "loader",
        "augmentation",
        "normalisation",
        "statistics",
        "optimisation",
        "models",
        "update",
        "batches",
        "training",
        "learner",
    )
    assert not {f"train/{name}.py" for name in makes} & allowed


def test_modules_and_files_named_by_the_rule_count(tree):
    options = {"modules": ["cxrscale.unused"], "files": [tree / "page.html"]}
    before = code(tree, **options)
    assert before != code(tree)
    put(tree / "src/cxrscale/unused.py", "TWO = 3\n")
    between = code(tree, **options)
    assert between != before
    put(tree / "page.html", "<b>")
    assert code(tree, **options) != between
    with pytest.raises(StudyError, match=r"there is no module cxrscale.absent"):
        code(tree, modules=["cxrscale.absent"])


GOLDEN_SOURCE = '''"""Doc."""
from __future__ import annotations
import asyncio as aio

class A(dict, metaclass=type):
    """Doc."""
    x: int = 1

    @property
    def name(self, *args, key: str | None = None, **rest) -> str:
        return f"{self.x!r:>{3 + 1}}" + "é" + 'a' "b"

async def work(items, /, n=1e-5, *, flag=False):
    """Doc only."""
    async with aio.Lock() as lock:
        found = [y for x in items if (y := x ** 2) not in {1, 2}]
    match found:
        case [1, *others] if flag:
            return others, ..., None, b"x", 3j, -0.0
        case {"a": 1, **more}:
            pass
    try:
        return lambda q: q[1:2, ...]
    except (ValueError, OSError) as error:
        raise RuntimeError from error
    finally:
        del lock
'''
#: Taken with Python 3.11.7, 3.12.1 and 3.13.0. Another number would retrain every learner of every study.
GOLDEN = "997855f297fb9198de1343203a800357da2944c3bb1b6949b197e9eaef439348"


def test_the_digest_is_the_same_on_every_version_of_python(tmp_path):
    path = tmp_path / "golden.py"
    path.write_text(GOLDEN_SOURCE, encoding="utf-8")
    assert provenance.canonical_code(path) == GOLDEN


def test_digest_of_values_ignores_the_order_of_keys_only():
    assert provenance.digest({"a": 1, "b": [1, 2]}) == provenance.digest({"b": [1, 2], "a": 1})
    assert provenance.digest([1, 2]) != provenance.digest([2, 1])
    assert provenance.digest(1) != provenance.digest(1.0)
    assert len(provenance.digest(None)) == 16


def test_file_digest_is_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert provenance.file_digest(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    )


def test_a_script_of_another_checkout_is_refused(tmp_path):
    script = put(tmp_path / "other" / "workflow" / "scripts" / "train.py", "")
    put(tmp_path / "other" / "src" / "cxrscale" / "__init__.py", "")
    with pytest.raises(StudyError) as error:
        provenance.require_checkout(script)
    assert f"belongs to {tmp_path / 'other'}" in str(error.value)
    assert f"imports cxrscale from {provenance.SOURCE_ROOT}" in str(error.value)


def test_a_script_of_this_checkout_and_one_outside_any_are_accepted(tmp_path):
    own = provenance.SOURCE_ROOT.parent / "Snakefile"
    provenance.require_checkout(own)
    provenance.require_checkout(put(tmp_path / "notebook.py", ""))


@pytest.mark.parametrize(
    "module",
    ["cxrscale.workflow.config", "cxrscale.common.provenance", "cxrscale.common.devices", "cxrscale.workflow.layout"],
)
def test_importing_is_light(module):
    program = f"import sys, {module}; print(sorted({{'torch', 'timm', 'torchvision'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


DECLARED = """from typing import Annotated
from cxrscale.common.tables import Column, Table
WHO = (Column("id", "text", "who"),)
A = Table(name="a", file="a.csv", row="a row", columns=(*WHO, Column("x", "int8", f"a {WHO} number", null="none")))
B = Table(name="b", file="b.csv", row="b", columns=(Column("y", "int8", "flag"),))
"""
SETTINGS = """from typing import Annotated
from dataclasses import dataclass
@dataclass
class Settings:
    \"\"\"What matters.\"\"\"
    epochs: Annotated[int, Range(ge=1)] = 3
    \"\"\"how long\"\"\"
    def check(self): return self.epochs > 0
class Other: pass
"""


@pytest.fixture
def declared(tree):
    """The script reads table A and a setting."""
    put(tree / "src/cxrscale/contracts.py", DECLARED)
    put(tree / "src/cxrscale/settings.py", SETTINGS)
    imports = "from cxrscale.contracts import A\nfrom cxrscale.settings import Settings\n"
    put(tree / "script.py", imports + SCRIPT + "print(Settings().epochs)\n")
    return tree


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("contracts", '"who"', '"whoever"'),
        ("contracts", '"a row"', '"a line"'),
        ("contracts", "a {WHO} number", "a {B} figure"),
        ("contracts", 'null="none"', 'null="unknown"'),
        ("contracts", 'row="a row"', 'row="a row", shown=True'),
        ("contracts", 'Column("y", "int8"', 'Column("y", "int32"'),  # another table
        ("settings", '"""how long"""', '"""how many"""'),
        ("settings", "Range(ge=1)", "Range(ge=2, le=9)"),
        ("settings", "    def check", "    newer: int = 7\n    def check"),  # no code reads it
        ("settings", "class Other: pass", "class Other:\n    x: int = 1"),
    ],
)
def test_words_ranges_and_what_is_not_imported_do_not_count(declared, file, old, new):
    before, path = code(declared), declared / f"src/cxrscale/{file}.py"
    assert old in path.read_text()
    put(path, path.read_text().replace(old, new))
    assert code(declared) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("contracts", '"id", "text"', '"id", "int64"'),
        ("contracts", 'Column("x"', 'Column("z"'),
        ("contracts", ', null="none"', ""),
        ("contracts", '"a.csv"', '"c.csv"'),
        ("settings", " = 3", " = 4"),
        ("settings", "self.epochs > 0", "self.epochs > 1"),
        ("settings", "    def check", "    answer: int = 7\n    def check"),  # the code reads an attribute so called
    ],
)
def test_names_types_keys_and_defaults_count(declared, file, old, new):
    put(declared / "script.py", (declared / "script.py").read_text() + "print(json.answer)\n")
    before, path = code(declared), declared / f"src/cxrscale/{file}.py"
    assert old in path.read_text()
    put(path, path.read_text().replace(old, new))
    assert code(declared) != before
