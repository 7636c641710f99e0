"""The registry: a format is one module, and nothing else names it."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cxrscale.common.errors import StudyError
from cxrscale.data import formats
from cxrscale.data.formats.__main__ import listing
from cxrscale.data.spelling import Reading
from cxrscale.data.subgroups import read_format_groups

ROOT = Path(__file__).parents[4]


def test_every_module_is_a_format_that_says_what_it_reads():
    folder = ROOT / "src/cxrscale/data/formats"
    modules = {f"cxrscale.data.formats.{p.stem}" for p in folder.glob("*.py") if not p.stem.startswith("_")}
    assert {f.module for f in formats.formats().values()} == modules
    for name, format_ in formats.formats().items():
        assert format_.name == name
        assert format_.test_sources[0] == "same"
        assert set(format_.image_roles) | set(format_.label_roles)
        assert bool(format_.groups) == (format_.read_groups is not None)
        assert format_.options() == format_.options()


def test_an_unknown_format_names_those_there_are():
    with pytest.raises(StudyError, match=r"no format 'mimic-cxr' \(did you mean 'mimic-cxr-jpg'\?\); expected one of"):
        formats.named("mimic-cxr")


def test_no_other_module_names_a_format():
    """But config.yaml's default, and what is about one data set."""
    about_one = {"random_mimic.py", "synthetic.py", "settings.py"}
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow").rglob("*"), ROOT / "Snakefile"]:
        if path.is_file() and path.suffix != ".pyc" and path.parent.name != "formats" and path.name not in about_one:
            text = path.read_text()
            assert [n for n in formats.formats() if f'"{n}"' in text or f"'{n}'" in text] == [], path


def test_all_formats_are_listed():
    said = subprocess.run(
        [sys.executable, "-m", "cxrscale.data.formats"], capture_output=True, text=True, check=True
    ).stdout
    assert said.strip() == listing()
    for name, format_ in formats.formats().items():
        assert f"{name}: " in said
        assert all(option in said for option in format_.option_names)


def test_columns_of_a_data_set_become_groups():
    def read_groups(sources, reading):
        return pd.DataFrame({"image_id": ["a", "b"], "sex": ["F", None], "age": ["60s", "70s"]})

    toy = formats.Format("toy", None, (), (), None, None, groups=("sex", "age"), read_groups=read_groups)
    found = read_format_groups(toy, {}, ["sex"], Reading())
    assert list(found.columns) == ["image_id", "sex"]
