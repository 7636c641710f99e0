"""Run every benchmark and show their results in one table: make bench

Ends with status 1 if a benchmark did not run to its end. A target that is missed is shown as such and is no error: the
quick figures are less certain.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import Result, report

HERE = Path(__file__).parent
#: In the order of the stages that they measure.
BENCHMARKS = ("parsing", "store", "loading", "training", "evaluation", "costs")


def main(given: argparse.Namespace) -> int:
    results: list[Result] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="cxrscale-bench-") as folder:
        for name in given.only or BENCHMARKS:
            began, written = time.monotonic(), Path(folder) / f"{name}.json"
            command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(written)]
            done = subprocess.run(
                [*command, *(["--quick"] if given.quick else [])],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            print(f"{name}: {'done' if done.returncode == 0 else 'failed'} after {time.monotonic() - began:.0f} s")
            if done.returncode:
                failed.append(name)
                print(done.stdout)
            else:
                results += [Result(**{**r, "what": f"{name}: {r['what']}"}) for r in json.loads(written.read_text())]
    report(results)
    if failed:
        print(f"did not run to the end: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller, and less certain")
    parser.add_argument("only", nargs="*", metavar="NAME", help=f"these alone, of {', '.join(BENCHMARKS)}")
    sys.exit(main(parser.parse_args()))
