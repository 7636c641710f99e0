"""One spelling for one thing: ids of images, examinations and patients, and the values of groups such as the view.

A csv file that went through a spreadsheet or was put together from several may spell one patient in two ways; taken
for two patients, they end up in two splits. So texts are brought to one spelling where there is no doubt:

- Unicode's composed form (NFC), so that an accent is one character;
- no blanks at either end, one between words, none that cannot be seen;
- a whole number without a fraction: 10000032.0 becomes 10000032;
- a text that says that there is no value (nan, NA, None, ...) is none.

Where two spellings may or may not be the same thing (P0 and p0, 00012 and 12), nobody but the user knows, and reading
stops. With `dataset.ids: exact` ids are taken as they stand and none of this is done to them.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cxrscale.common.errors import StudyError
from cxrscale.common.notes import Note, examples

#: Columns of ids, as the data sets' files and ours call them.
IDS = ("image_id", "dicom_id", "study_id", "subject_id")

#: Texts that say that there is no value, in any case.
NOTHING = frozenset(
    ("nan", "na", "n/a", "n.a.", "#n/a", "<na>", "none", "null", "nil", "nat", "missing", "unknown", "-", "--", "?")
)

_BLANKS = re.compile(r"[\s\u200b-\u200d\u2060\ufeff]+")
_WHOLE = re.compile(r"([+-]?\d+)\.0*")
_PLAIN = re.compile(r"[!-~]*[!-,/-~]")  # one word of ASCII that ends neither in a full stop nor in a hyphen
_SHORTENED = re.compile(r"\d(?:[.,]\d+)?[eE]\+\d+")  # 1.00E+07, as spreadsheets write long numbers
_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


@dataclass
class Reading:
    """How csv files are read, and what was found on the way.

    exact_ids: ids are taken as they stand. notes: for the report, in the order they were found.
    """

    exact_ids: bool = False
    notes: list[Note] = field(default_factory=list)

    def note(self, about: str, text: str, named: str | None = None) -> None:
        """Keep a note; the same file may be read several times, and what it says is kept once. named: examples."""
        note = Note(about, text, named)
        if note not in self.notes:
            self.notes.append(note)


def one_spelling(text: str) -> str:
    """The text as the module's rules spell it; "" where it says that there is no value."""
    if not (_PLAIN.fullmatch(text) and "." not in text):
        text = _BLANKS.sub(" ", unicodedata.normalize("NFC", text)).strip()
        if whole := _WHOLE.fullmatch(text):
            text = whole.group(1)
    return "" if text.casefold() in NOTHING else text


def loosely(text: str) -> str:
    """The same for texts that may be the same thing: case, leading zeros, blanks within and compatible characters
    (full-width digits, say) do not count."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _ZEROS.sub("", "".join(text.casefold().split()))


def spelled(values: pd.Series, path: Path, reading: Reading, line: Callable[[int], int], id_: bool = True) -> pd.Series:
    """A column of texts in one spelling, null where there is no value.

    values: named as the column. path: the file it is of. line: the line of the file on which a row stands. id_: whether
    these are ids: a text that stands for nothing, or for a number that was shortened, then stops the reading, and
    `Reading.exact_ids` leaves them as they are. Raises StudyError if two spellings that are left may be the same.
    """
    where = f"{path}: {values.name}"

    def line_with(text: str) -> int:
        return line(int((values == text).to_numpy().argmax()))

    if id_ and reading.exact_ids:
        return values.mask(values.astype("str").str.strip() == "")
    codes, distinct = pd.factorize(values)
    texts: list[str] = distinct.astype(str).tolist()
    new = list(map(one_spelling, texts))
    changed = {old: now for old, now in zip(texts, new, strict=True) if old != now and _BLANKS.sub("", old)}
    if id_ and (nothing := next((old for old, now in changed.items() if not now), None)):
        raise StudyError(
            f"{where} is {nothing!r} on line {line_with(nothing)}, which says that there is none; every row needs one. "
            f"Correct the row, or set dataset.ids to exact if this is an id."
        )
    if id_ and (shortened := next(filter(_SHORTENED.fullmatch, texts), None)):
        raise StudyError(
            f"{where} is {shortened!r} on line {line_with(shortened)}, as spreadsheets shorten long numbers, so that "
            f"several may have become one. Export the file with this column as text, or set dataset.ids to exact if "
            f"this is an id."
        )
    if alike := _alike(new):
        lines = [line_with(texts[new.index(name)]) for name in alike]
        remedy = "or, if ids are exact, set dataset.ids to exact" if id_ else "in the file"
        raise StudyError(
            f"{where} is {alike[0]!r} on line {lines[0]} and {alike[1]!r} on line {lines[1]}, which may be the same; "
            f"expected one spelling of each. Give them one spelling, {remedy}."
        )
    if changed:
        rows = int(values.isin(list(changed)).sum())
        shown = examples(f"{old!r} as {now!r}" if now else f"{old!r} as not recorded" for old, now in changed.items())
        # The file without its folder: where the data lie is no part of what was found.
        said = f"{path.name}: {values.name} is read in another spelling on {rows:,} rows."
        reading.note("ids" if id_ else "groups", said, shown)
    taken = pd.Series([now or None for now in new] + [None], dtype="str").to_numpy()[codes]  # code -1, null, the last
    return pd.Series(taken, index=values.index, name=values.name, dtype="str")


def _alike(texts: list[str]) -> tuple[str, str] | None:
    """The first two texts that differ and may be the same thing; None if there are none."""
    names = list(dict.fromkeys(filter(None, texts)))
    keys = list(map(loosely, names))
    if len(set(keys)) == len(names):
        return None
    seen: dict[str, str] = {}
    return next((seen[key], name) for key, name in zip(keys, names, strict=True) if seen.setdefault(key, name) != name)


def check_same_spelling(given: pd.Series, known: pd.Series, where: str, elsewhere: str, reading: Reading) -> None:
    """Raise StudyError if an id that is not among the known ones may be one of them in another spelling.

    given, known: ids, each as `spelled` returns them; where, elsewhere: file and column of the two. Exact ids pass.
    """
    if reading.exact_ids:
        return
    texts = set(known.dropna().tolist())  # a set is several times as fast as pandas' isin on texts
    missing = [text for text in dict.fromkeys(given.dropna().tolist()) if text not in texts]
    if not missing:
        return
    others = {loosely(text): text for text in texts}
    for text in missing:
        if (other := others.get(loosely(text))) is not None:
            raise StudyError(
                f"{where} holds {text!r}, {elsewhere} holds {other!r}, which may be the same; expected one spelling in "
                f"both. Give them one spelling, or, if ids are exact, set dataset.ids to exact."
            )
