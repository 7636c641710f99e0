"""Names of processes that no later process can have, and whether the one that bears a name still runs."""

import contextlib
import hashlib
import os
import platform
from functools import cache
from pathlib import Path

#: Runs jobs and makes no value of a result; raised when a fix here changes results (docs/reruns.md).
RESULT_VERSION = 1

PROC = Path("/proc")


@cache
def _place() -> str:
    """Host, boot and the space in which process ids are counted: where it is the same, an id says which process it is.

    Two hosts may have one name, and two containers of a host may count their processes each from 1. Ends in "-" where
    the kernel does not tell (other systems than Linux).
    """
    host = platform.node().replace("-", "_").replace("/", "_")
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        counted_in = str((PROC / "self/ns/pid").readlink())
    except OSError:
        return f"{host}-"
    return f"{host}-{hashlib.sha256(f'{boot} {counted_in}'.encode()).hexdigest()[:8]}"


def own_name() -> str:
    """The name of this process: host-place-id-start. No dot but those of the host's name, no slash."""
    return f"{_place()}-{os.getpid()}-{_start_and_parent(os.getpid())[0]}"


def is_dead(name: str) -> bool | None:
    """Whether the process of that name has ended; None where that can't be known here, as for another host's.

    A process id that another process has got since is no obstacle: the name holds when the process started.
    """
    place, number, start = _split(name)
    if place != _place() or place.endswith("-"):
        return None
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # there is one, of another user
        pass
    with contextlib.suppress(OSError):
        return _start_and_parent(number)[0] != start
    return None  # of another user, where /proc hides these


def is_above(name: str) -> bool:
    """Whether the process of that name runs and started this one, directly or through others.

    Where the kernel does not tell (other systems than Linux) one of this host is believed.
    """
    place, wanted, start = _split(name)
    if place.endswith("-"):
        return place == _place()
    number = os.getpid()
    with contextlib.suppress(OSError):
        while place == _place() and number > 1:
            number = int(_start_and_parent(number)[1])
            if number == wanted:
                return _start_and_parent(number)[0] == start
    return False


def _split(name: str) -> tuple[str, int, str]:
    """Place, process id and start of a name; a name that is none has a place that is nowhere."""
    parts = name.split("-")
    if len(parts) != 4 or not parts[2].isdecimal():
        return "", 0, ""
    return "-".join(parts[:2]), int(parts[2]), parts[3]


def _start_and_parent(number: int) -> tuple[str, str]:
    """When a process started, in clock ticks since boot, and its parent's id. Raises OSError where there is none.

    One that has ended and was not yet asked for its status (a zombie) has started never.
    """
    if not PROC.is_dir():
        return "0", "0"
    fields = (PROC / str(number) / "stat").read_text().rpartition(")")[2].split()  # a program's name may hold blanks
    return ("never" if fields[0] in "ZX" else fields[19]), fields[1]
