"""The one error that a user is meant to read, and the hint that it may give."""

import difflib
from collections.abc import Iterable
from typing import Any


class StudyError(Exception):
    """Something the user gave cannot work: the message says what, where, got, expected and what to do.

    Jobs print it without a traceback; any other exception is a bug and keeps its traceback.
    """


def nearest(word: Any, choices: Iterable[Any]) -> str:
    """ " (did you mean ...?)" with the choice that looks most like a word, or nothing."""
    near = difflib.get_close_matches(str(word), [str(c) for c in choices], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
