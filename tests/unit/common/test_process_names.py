import os
import subprocess
import sys

from cxrscale.common import process_names
from cxrscale.common.process_names import is_above, is_dead, own_name

SAY = "from cxrscale.common.process_names import own_name; print(own_name(), flush=True)"
ABOVE = "import sys; from cxrscale.common.process_names import is_above; print(*map(is_above, sys.argv[1:]))"


def started(program):
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_process_runs_until_it_has_ended_even_if_nobody_asks_for_its_status():
    with started(f"{SAY}; input()") as other:
        name = other.stdout.readline().strip()
        assert name.split("-")[2] == str(other.pid)
        assert not is_dead(name)
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # ended, and still in the table of processes
        assert is_dead(name)
    assert is_dead(name)


def test_a_process_that_has_the_id_by_now_is_another(monkeypatch):
    host, place, number, start = own_name().split("-")
    assert is_dead(own_name()) is False
    assert is_dead(f"{host}-{place}-{number}-{int(start) - 1}") is True


def test_processes_of_other_places_are_not_known():
    host, place, number, start = own_name().split("-")
    assert is_dead(f"{host}-00000000-{number}-{start}") is None  # another boot, container or host of that name
    assert is_dead(f"elsewhere-{place}-{number}-{start}") is None
    assert is_dead("no name") is None


def test_where_the_kernel_does_not_tell_no_process_is_taken_for_dead(monkeypatch, tmp_path):
    monkeypatch.setattr(process_names, "PROC", tmp_path / "none")
    process_names._place.cache_clear()
    try:
        assert is_dead(own_name()) is None
        assert is_above(own_name()) is True
    finally:
        process_names._place.cache_clear()


def test_those_above_are_parents_and_their_parents_that_run():
    with started(f"{SAY}; input()") as beside:
        name, mine = beside.stdout.readline().strip(), own_name()
        recycled = "-".join([*mine.split("-")[:3], "1"])
        found = subprocess.run(
            ["sh", "-c", '"$0" -c "$@"; :', sys.executable, ABOVE, mine, name, recycled, "no name"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert found.stdout.split() == ["True", "False", "False", "False"]
        beside.communicate("\n")
