"""What the benchmarks share: arguments, results, a table and its JSON."""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """One figure. target: ">= 0.8" or "<= 30" in the value's unit, or "" where none is set."""

    what: str
    value: float
    unit: str
    target: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one. Raises ValueError for a target of another form."""
        if not self.target:
            return None
        sign, limit = self.target.split()
        if sign not in (">=", "<="):
            raise ValueError(f"{self.target!r}: a target begins with >= or <=")
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)


def arguments(doc: str) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark takes: --json and --quick."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there too")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller: under a minute, and less certain")
    return parser


def report(results: Sequence[Result], json_path: Path | None = None) -> None:
    """Print a table; with json_path write a list of objects with the keys what, value, unit, target too."""
    width = max((len(r.what) for r in results), default=0)
    for r in results:
        verdict = {True: "met", False: "missed", None: ""}[r.met]
        print(f"{r.what:<{width}}  {r.value:10.4g} {r.unit:<10} {r.target:<10} {verdict}".rstrip())
    if json_path:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps([asdict(r) for r in results], indent=2) + "\n")


class Process:
    """A configuration in a process of its own, so that neither memory nor caches are shared; waits between turns."""

    def __init__(self, script: str, job: dict[str, Any]) -> None:
        command = [sys.executable, script, "--job", json.dumps(job)]
        self.running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def turn(self) -> dict[str, Any]:
        """Raises RuntimeError if the process ended; standard error, which is this one's, says why."""
        assert self.running.stdin is not None
        assert self.running.stdout is not None
        try:
            self.running.stdin.write("turn\n")
            self.running.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.running.stdout.readline()
        if not line:
            raise RuntimeError(f"a process ended with {self.running.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        self.running.kill()
        self.running.communicate()
