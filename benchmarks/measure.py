"""What all benchmarks share: one result, the table of them, and the command line."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """What was measured, its value, the unit and, if there is one, the target: "<= 30" or ">= 100"."""

    what: str
    value: float
    unit: str
    target: str = ""


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A command line with --json and --quick; doc: the benchmark's docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there too")
    parser.add_argument("--quick", action="store_true", help="a small run, within a minute")
    return parser


def report(results: Sequence[Result], json_path: Path | None) -> None:
    """Print a table and write it as a list of objects if a path is given."""
    width = max(len(r.what) for r in results)
    for r in results:
        print(f"{r.what:{width}}  {r.value:>10.4g} {r.unit:8} {r.target}".rstrip())
    if json_path:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps([asdict(r) for r in results], indent=2) + "\n")
