"""Holding what a user gave against the sections of the configuration, and saying what is wrong with it."""

from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from cxrscale.common.errors import nearest
from cxrscale.train.settings import RENAMED as RENAMED_TRAINING

#: Keys of before -> what they are called now.
RENAMED = {
    "dataset.manifest": "dataset.options.file",
    "stacking.weight_replicates": "stacking.scale_weight_replicates",
    **{f"training.{old}": f"training.{new}" for old, new in RENAMED_TRAINING.items()},
}


@cache
def adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def with_nulls(value: Any) -> Any:
    """The same value with the text "null", as `--config` gives it, turned into None."""
    if isinstance(value, dict):
        return {key: with_nulls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_nulls(item) for item in value]
    return None if value == "null" else value


def explain(error: ValidationError, section: Any) -> list[str]:
    """A line for each mistake. section: of which the configuration was wrong."""
    lines = []
    for problem in error.errors():
        # Pydantic names the members of a union by the functions that check them, and says that a key is wrong.
        where = [p for p in map(str, problem["loc"]) if not p.startswith("function-") and p != "[key]"]
        key = ".".join(where)
        if problem["type"] == "unexpected_keyword_argument":
            choices = keys_at(section, where[:-1])
            expected = f"; expected one of {', '.join(choices)}" if choices else ""
            now = f"; it is now called {RENAMED[key]}" if key in RENAMED else nearest(where[-1], choices)
            lines.append(f"  {key}: unknown key{now}{'' if key in RENAMED else expected}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            got = "" if problem["type"] in ("value_error", "missing") else f" (got {problem['input']!r})"
            lines.append(f"  {key}: {message}{got}" if key else f"  {message}{got}")
    return lines


def keys_at(section: Any, where: list[str]) -> list[str]:
    """The keys that a section may hold below a path of keys; [] where there is no section."""
    place_follows = False
    for part in where:
        if place_follows:  # the place in a list, or the name in a mapping
            place_follows = False
            continue
        hints = get_type_hints(section) if is_dataclass(section) else {}
        if part not in hints:
            return []
        annotation = hints[part]
        inner = [annotation, *get_args(annotation)]
        place_follows = any(get_origin(kind) in (list, dict) for kind in inner)
        deeper = [part for kind in inner for part in get_args(kind)]
        section = next((kind for kind in (*inner, *deeper) if is_dataclass(kind)), None)
    return [f.name for f in fields(section)] if is_dataclass(section) else []
