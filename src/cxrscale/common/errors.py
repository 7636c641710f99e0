"""The one error that a user is meant to read, and the hint that it may give."""

import difflib
import errno
from collections.abc import Iterable
from typing import Any

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1


class StudyError(Exception):
    """Something the user gave cannot work: the message says what, where, got, expected and what to do.

    Jobs print it without a traceback; any other exception is a bug and keeps its traceback.
    """


#: Of the file that was named. Any other error of the system may pass: a network file system that is away (ESTALE, EIO),
#: a ticket that ran out (EACCES), too many open files.
_OF_THE_FILE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)


def may_pass(error: OSError) -> bool:
    """Whether the next attempt may succeed: nothing may then be moved, left out or made again for it."""
    return error.errno is not None and error.errno not in _OF_THE_FILE


def nearest(word: Any, choices: Iterable[Any]) -> str:
    """ " (did you mean ...?)" with the choice that looks most like a word, or nothing."""
    near = difflib.get_close_matches(str(word), [str(c) for c in choices], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
