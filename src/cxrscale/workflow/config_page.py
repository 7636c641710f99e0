"""Writes config.yaml, docs/config.md and config/schema.json from the settings: python -m cxrscale.workflow.config_page

A setting is declared once, in the `settings` module of its stage, with its type, range and default, and a string below
it that says what it means. No job imports this module.
"""

import ast
import inspect
import json
import textwrap
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from cxrscale.common.settings import Range
from cxrscale.train.settings import RunSettings
from cxrscale.workflow.config import StudyConfig
from cxrscale.workflow.validation import adapter

HEAD = """\
# The study: every scientific choice. The defaults are the paper's protocol on MIMIC-CXR-JPG (Haque et al. 2023),
# controlled so that resolution is the only thing that differs between two learners (docs/protocol.md).
# A smaller study is laid over this one: snakemake --configfile config/demo.yaml; single keys: --config seeds='[0,1,2]'.
# Unknown keys are errors, as are keys that stand twice, values that repeat in a list, and settings without effect.
# Changing a key reruns only the stages whose results depend on it. Types and ranges: docs/config.md.
# Written by `python -m cxrscale.workflow.config_page` from the settings of the stages: change a default there.
"""

PAGE = """\
# Settings

Every key of the configuration. `config.yaml` holds the defaults; a smaller study is laid over it
(`snakemake --configfile config/demo.yaml`). An editor that knows JSON schemas checks a file that begins with
`# yaml-language-server: $schema=schema.json` against `config/schema.json`. This page is written from the code
(`python -m cxrscale.workflow.config_page`). What `dataset.format`, `dataset.options`, `labels.source` and
`labels.test_source` may be depends on the formats that there are: `python -m cxrscale.data.formats` lists them.
"""

#: Column of the comments in config.yaml, and its width.
COLUMN, WIDTH = 32, 120


@cache
def meanings(cls: type) -> dict[str, str]:
    """What each setting of a section means: the string that stands below it, of its bases too."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not is_dataclass(base):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for statement, after in zip(tree.body, tree.body[1:], strict=False):
            words = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and words:
                found[statement.target.id] = " ".join(str(words).split())
    return found


def summary(cls: Any) -> str:
    """The first sentences of a section's docstring, without the key that it begins with."""
    text = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
    key, colon, rest = text.partition(": ")
    return (rest if colon and key.isidentifier() else text).rstrip(".")


def declared_in(cls: type, name: str) -> type:
    """The class that declares a setting."""
    return next(base for base in cls.__mro__ if name in getattr(base, "__annotations__", {}))


def default_of(f: Field[Any]) -> Any:
    value = f.default if f.default_factory is MISSING else f.default_factory()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, list):
        return [asdict(v) if is_dataclass(v) and not isinstance(v, type) else v for v in value]
    return value


def as_yaml(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, float):
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa}e{int(exponent)}" if 0 < abs(value) < 1e-3 else repr(value)
    if value is None:
        return "null"
    return (
        str(yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False)).removesuffix("...\n").strip()
    )


def commented(line: str, comment: str) -> list[str]:
    """A line with a comment beside it, which goes on below in its own column."""
    first, *rest = _wrapped(comment, WIDTH - max(len(line) + 2, COLUMN) - 2)
    below = _wrapped(" ".join(rest), WIDTH - COLUMN - 2) if rest else []
    gap = " " * max(COLUMN - len(line), 2)
    return [f"{line}{gap}# {first}", *(f"{'':{COLUMN}}# {words}" for words in below)]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


def config_yaml() -> str:
    """config.yaml: every key with its default and meaning."""
    lines = [HEAD.rstrip()]
    hints, before = get_type_hints(StudyConfig), "block"
    for f in fields(StudyConfig):
        section, value = hints[f.name], default_of(f)
        block = is_dataclass(section) or (isinstance(value, list) and (len(value) > 4 or isinstance(value[0], dict)))
        if block or before == "block":
            lines.append("")
        before = "block" if block else "line"
        if is_dataclass(section):
            lines += [*commented(f"{f.name}:", summary(section)), *_section_lines(section)]
        elif block:
            lines += commented(f"{f.name}:", meanings(StudyConfig)[f.name])
            lines += [f"  - {as_yaml(v)}" for v in value]
        else:
            lines += commented(f"{f.name}: {as_yaml(value)}", meanings(StudyConfig)[f.name])
    return "\n".join(lines) + "\n"


def _section_lines(section: Any) -> list[str]:
    lines: list[str] = []
    for f in fields(section):
        if declared_in(section, f.name) is RunSettings and f.name == fields(RunSettings)[0].name:
            lines.append(f"  # {summary(RunSettings)}")
        lines += commented(f"  {f.name}: {as_yaml(default_of(f))}", meanings(section)[f.name])
    return lines


def described(hint: Any) -> str:
    """A type and its range in words."""
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        bounds = [b for mark in marks if isinstance(mark, Range) for b in _bounds(mark.bounds)]
        return ", ".join([described(inner), *bounds])
    if get_origin(hint) in (Union, UnionType):
        parts = [described(part) for part in get_args(hint) if part is not NoneType]
        return " or ".join([*parts, *(["null"] if NoneType in get_args(hint) else [])])
    if get_origin(hint) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(hint))
    if get_origin(hint) is list:
        return f"list ({described(get_args(hint)[0])})"
    if get_origin(hint) is dict:
        return f"mapping, name: {described(get_args(hint)[1])}"
    if is_dataclass(hint):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"  # type: ignore[union-attr]
    return {int: "whole number", float: "number", str: "text", bool: "true or false"}.get(hint, "any")


def _bounds(bounds: dict[str, Any]) -> list[str]:
    words = {
        "ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}", "multiple_of": "a multiple of {}",
        "pattern": "as `{}`", "min_length": "at least {} of them", "max_length": "length at most {}",
    }  # fmt: skip
    return [words[name].format(f"{value:,}" if isinstance(value, int) else value) for name, value in bounds.items()]


def page() -> str:
    """docs/config.md."""
    lines = [PAGE, "## Top level", ""]
    hints = get_type_hints(StudyConfig, include_extras=True)
    plain = [f for f in fields(StudyConfig) if not is_dataclass(hints[f.name])]
    lines += _table(StudyConfig, [f.name for f in plain])
    for f in fields(StudyConfig):
        if is_dataclass(section := hints[f.name]):
            lines += [
                f"## {f.name}",
                "",
                f"{summary(section)}.",
                "",
                *_table(section, [x.name for x in fields(section)]),
            ]
    lines += ["# Within settings", ""]
    for section in sections_within(StudyConfig):
        if section not in hints.values():
            names = [x.name for x in fields(section)]
            lines += [f"## {section.__name__}", "", f"{summary(section)}.", "", *_table(section, names)]
    return "\n".join(lines).rstrip() + "\n"


def sections_within(section: Any) -> list[Any]:
    """All sections below one, in the order in which they come."""
    found: list[Any] = []
    for hint in get_type_hints(section).values():
        for part in _parts(hint):
            if is_dataclass(part) and part not in found:
                found += [part, *(s for s in sections_within(part) if s not in found)]
    return found


def _parts(hint: Any) -> list[Any]:
    """A type and all in it."""
    inner = [] if get_origin(hint) is Literal else get_args(hint)
    return [hint, *(deeper for part in inner for deeper in _parts(part))]


def _table(section: Any, names: list[str]) -> list[str]:
    hints = get_type_hints(section, include_extras=True)
    by_name = {f.name: f for f in fields(section)}
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name in names:
        f = by_name[name]
        needed = f.default is MISSING and f.default_factory is MISSING
        default = "needed" if needed else f"`{as_yaml(default_of(f))}`"
        cells = [f"`{name}`", described(hints[name]), default, meanings(section)[name]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def schema() -> str:
    """config/schema.json, with the meanings as descriptions."""
    found = adapter(StudyConfig).json_schema()
    for section in (StudyConfig, *sections_within(StudyConfig)):
        properties = (found if section is StudyConfig else found["$defs"][section.__name__])["properties"]
        for name, meaning in meanings(section).items():
            properties[name]["description"] = meaning
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(found, indent=1) + "\n"


FILES = {"config.yaml": config_yaml, "docs/config.md": page, "config/schema.json": schema}


def main() -> None:
    """Write the files into the checkout that this module lies in."""
    root = Path(__file__).parents[3]
    for name, text in FILES.items():
        (root / name).write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
