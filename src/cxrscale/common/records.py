"""Records with a stated meaning: small JSON files that say what something is, field by field, as `tables` does of rows.

`write` refuses values that break the declaration and `read` a file that does, each by the name of the field.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxrscale.common import atomic
from cxrscale.common.errors import StudyError, nearest
from cxrscale.common.tables import Column

#: Type of a field -> what JSON makes of it.
TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "int64": (int,),
    "float64": (float, int),
    "bool": (bool,),
    "list of text": (list, tuple),
    "mapping": (dict,),
}


@dataclass(frozen=True)
class Record:
    """The declaration of a JSON file. file: a pattern of `places`. of: what it is a record of. remedy: what the reader
    of a broken one should do. These two and made_by are words for readers.

    fields: a dot in a name stands for a mapping within, "origin.code" for {"origin": {"code": ...}}.
    """

    name: str
    file: str
    of: str
    fields: Sequence[Column]
    made_by: str = ""
    remedy: str = ""

    @property
    def file_name(self) -> str:
        """The last part of `file`."""
        return self.file.rpartition("/")[2]


def write(record: Record, values: Mapping[str, Any], path: str | Path) -> None:
    """Write a record, whole or not at all. Raises StudyError if it breaks the declaration."""
    check(record, values, str(path))
    atomic.write_json(path, values)


def read(record: Record, path: str | Path) -> dict[str, Any]:
    """Read what `write` wrote. Raises StudyError if the file is absent or breaks the declaration; another OSError, of a
    file system that does not answer, is passed on: it says nothing about the record."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise StudyError(f"{path}: there is no such file; {record.name} should be there. {record.remedy}") from None
    except ValueError as error:
        raise StudyError(f"{path}: {record.name} cannot be read as JSON: {error}. {record.remedy}") from error
    check(record, values, str(path))
    return values


def check(record: Record, values: Any, where: str) -> None:
    """Raise StudyError, which names the field, unless values are what the record declares."""
    if not isinstance(values, Mapping):
        raise StudyError(f"{where}: {record.name} is a {type(values).__name__}; expected a mapping. {record.remedy}")
    known = {field.name: field for field in record.fields}
    found = _flat(values, {name.partition(".")[0] for name in known if "." in name})
    if missing := [name for name in known if name not in found]:
        raise StudyError(f"{where}: {record.name} lacks {missing[0]!r}; it has {sorted(found)}. {record.remedy}")
    if extra := [name for name in found if name not in known]:
        raise StudyError(
            f"{where}: {record.name} knows no {extra[0]!r}{nearest(extra[0], known)}; it knows {sorted(known)}. "
            f"{record.remedy}"
        )
    for name, field in known.items():
        if found[name] is None and not field.null:
            raise StudyError(f"{where}: {record.name}: {name} is null, which it may not be. {record.remedy}")
        if found[name] is not None and not _fits(found[name], field.type):
            raise StudyError(
                f"{where}: {record.name}: {name} is {found[name]!r}; expected {field.type}. {record.remedy}"
            )


def _flat(values: Mapping[str, Any], within: set[str]) -> dict[str, Any]:
    """Values by their names, those of the mappings `within` as "mapping.name"."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name in within and isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": v for inner, v in value.items()}
        else:
            flat[str(name)] = value
    return flat


def _fits(value: Any, kind: str) -> bool:
    if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
        return False
    if isinstance(value, list | tuple):
        return all(isinstance(item, str) for item in value)
    return not isinstance(value, float) or math.isfinite(value)
