"""The types that settings are made of. A setting is one field of a dataclass: its type, range and default, and a string
below it that says what it means, with its unit.

The dataclasses are plain: what trains imports no pydantic. Where a configuration is read (`workflow.config`), pydantic
checks it by the marks that stand in the types here. Ranges and meanings are no part of a digest of code (`provenance`):
values count.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from typing import Annotated, Any


class Section:
    """A section of the configuration; its subclasses are frozen dataclasses.

    Unknown keys are errors, and so are numbers that are infinite ("1e400", ".inf") or none.
    """

    __pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # noqa: RUF012 (pydantic reads a plain dict)


class Check:
    """A mark: a value must pass a function, which returns it or raises ValueError. before: before its type is known."""

    def __init__(self, function: Callable[[Any], Any], before: bool = False) -> None:
        self.function, self.before = function, before

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        wrap = (
            core_schema.no_info_before_validator_function
            if self.before
            else core_schema.no_info_after_validator_function
        )
        return wrap(self.function, handler(source))


class Range:
    """A mark: the range of a number (ge, gt, le, lt, multiple_of), of a text (pattern, max_length) or of the number of
    items (min_length, max_length), called as in JSON schema's libraries."""

    def __init__(self, **bounds: Any) -> None:
        self.bounds = bounds

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        schema = handler(source)
        inner = schema
        while inner["type"].startswith("function-"):
            inner = inner["schema"]
        inner.update(self.bounds)
        return schema


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"is {str(value).lower()} (YAML reads yes, no, on and off so); expected a number")
    return value


def _spelling(value: Any) -> Any:
    """What two spellings of one value have in common: texts differ neither by case nor by blanks around them."""
    return unicodedata.normalize("NFC", value).strip().casefold() if isinstance(value, str) else value


def _shown(item: Any) -> Any:
    """What an item of a list is known by: its name where it has one."""
    if not is_dataclass(item) or isinstance(item, type):
        return item
    return getattr(item, "name", None) or str({k: v for k, v in asdict(item).items() if v is not None})


def _distinct(values: Any) -> Any:
    """A list, or a mapping by its keys, that holds no value twice, however it is spelled."""
    seen: dict[Any, Any] = {}
    for value in map(_shown, values):
        key = _spelling(value)
        if key in seen and seen[key] == value:
            raise ValueError(f"holds {value!r} twice; remove one")
        if key in seen:
            raise ValueError(f"holds {seen[key]!r} and {value!r}, two spellings of one value; remove one")
        seen[key] = value
    return values


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError(f"is blank ({value!r}); write a text, or leave the key out")
    if not value.isprintable():
        raise ValueError(f"holds a character that cannot be printed: {value!r}; remove it")
    return value


def _trimmed(value: str) -> str:
    if value != value.strip():
        raise ValueError(f"{value!r} begins or ends with a blank; expected {value.strip()!r}")
    return value


def _no_wildcards(value: str) -> str:
    if "{" in value or "}" in value:
        raise ValueError(f"is {value!r}; Snakemake would take braces for a wildcard: rename what is called so")
    return value


# Every number and every list of the settings is made of these. A test holds it to that.
Whole = Annotated[int, Check(_no_truth_value, before=True)]
Real = Annotated[float, Check(_no_truth_value, before=True)]
Distinct = Check(_distinct)

Fraction = Annotated[Real, Range(ge=0, le=1)]
OpenFraction = Annotated[Real, Range(gt=0, lt=1)]
Pixels = Annotated[Whole, Range(ge=8, le=16_384)]
Count = Annotated[Whole, Range(ge=1, le=1_000_000)]
Seed = Annotated[Whole, Range(ge=0, le=2**31 - 1)]
Confidence = Annotated[Real, Range(gt=0.5, lt=1)]
Name = Annotated[str, Range(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Text = Annotated[str, Check(_text)]
Path = Annotated[Text, Check(_no_wildcards)]
Trimmed = Annotated[str, Check(_trimmed)]
ColumnName = Annotated[Text, Check(_trimmed)]
Sha256 = Annotated[str, Range(pattern=r"^[0-9a-f]{64}$")]


def not_empty(otherwise: str) -> Check:
    """A mark: a list that is given is not empty. otherwise: what an empty one would do, and what is expected."""

    def check(values: Any) -> Any:
        if not values:
            raise ValueError(f"is empty, {otherwise}")
        return values

    return Check(check)


def chosen(settings: Any, *names: str) -> dict[str, Any]:
    """These settings of a section as plain values: what a stage depends on."""
    return {name: _plain(getattr(settings, name)) for name in names}


def names_of(cls: type) -> list[str]:
    """The names of a section's settings, in order."""
    return [f.name for f in fields(cls)]


def not_default(settings: Any, cls: Any = None) -> dict[str, Any]:
    """The settings of a section that are not at their default, so that one that comes later changes nothing that
    exists. cls: only those of this section, which `settings` extends."""
    default = (cls or type(settings))()
    return {
        name: value
        for name, value in chosen(settings, *names_of(type(default))).items()
        if value != _plain(getattr(default, name))
    }


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value
