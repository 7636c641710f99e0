"""Accept a change of code: it does not change the results of a stage, so nothing is made again.

    python -m cxrscale.workflow.accept --stage train --because "the loss is computed in another order" \\
        -- --configfile config/demo.yaml

What follows `--` is given to Snakemake, as in a run of the study. A dry run says by which code the results were made
and which code there is now; that the one stands for the other is then written, with the date and the reason, into
`accepted-changes.csv` of the study, or of the store for a stage that makes a part of it. No result is touched. The
report lists what was accepted when it is next made. Another change of that code is a change again.
"""

import argparse
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from cxrscale.common import accepted
from cxrscale.common.accepted import Accepted
from cxrscale.common.atomic import is_there
from cxrscale.common.errors import StudyError
from cxrscale.common.places import CHECKPOINT, LEARNER_WEIGHTS
from cxrscale.common.provenance import code_digest_of

#: Environment variable: the file into which a dry run writes what changed.
ASKED = "CXRSCALE_CHANGED_CODE"
#: The stage whose jobs leave a CHECKPOINT behind before they are finished.
TRAIN = "train"


class Codes:
    """Digests of code for the rules. scripts: the folder of scripts; files: where accepted changes are listed."""

    def __init__(self, scripts: Path, files: Sequence[str]) -> None:
        self._digest = partial(code_digest_of, scripts)
        self.files, self.changes = list(files), accepted.read(files)
        #: param of a rule -> its stage, as its script is called, and the digest of its code as it is
        self.known: dict[str, tuple[str, str]] = {}

    def __call__(self, script: str, **options: Any) -> Callable[[Any], str]:
        """The param of a rule: a function that gives the digest under which results of this code are filed, which is
        taken once the rule has a job: a job on a cluster reads the code of its own rule alone. options: of
        `code_digest`."""

        @cache
        def known() -> str:
            stage, now = Path(script).stem, self._digest(script, **options)
            param = accepted.stands_for(self.changes, stage, now)
            self.known[param] = stage, now
            return param

        return lambda wildcards: known()


def listen(workflow: Any, logger: logging.Logger, codes: Codes) -> None:
    """Have a dry run that the command started tell it what changed. workflow: Snakemake's."""
    if ASKED in os.environ:
        logger.addHandler(_Listener(workflow, codes, Path(os.environ[ASKED])))


class _Listener(logging.Handler):
    def __init__(self, workflow: Any, codes: Codes, path: Path) -> None:
        super().__init__()
        self.workflow, self.codes, self.path = workflow, codes, path

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(getattr(record, "event", None), "name", None) == "RUN_INFO":
            self.path.write_text(json.dumps(changed_codes(self.workflow, self.codes)), encoding="utf-8")


def changed_codes(workflow: Any, codes: Codes) -> dict[str, dict[str, Any]]:
    """What there are results of, by stage.

    code: digest of its code as it is. param: the digest that this stands for. made_by: for each code that made results
    which are there, the digests by which it may be known: more than one where other params changed too. file: where a
    change is to be listed.
    """
    persistence, (store, study) = workflow.persistence, codes.files
    found: dict[str, dict[str, Any]] = {}
    for job in workflow.dag.jobs:
        param = getattr(job.params, "code", None)
        if param not in codes.known:
            continue
        stage, now = codes.known[param]
        file = store if str(job.output[0]).startswith(f"{Path(store).parent}/") else study
        entry = found.setdefault(stage, {"code": now, "param": param, "made_by": [], "file": file})
        for output in job.output:
            if not Path(output).exists() or persistence.params(output) is None:
                continue
            made_by, changes = [param], persistence.params_changed(job, file=output)
            if changes and repr(param) in changes.only_new:
                made_by = [text.strip("'") for text in sorted(changes.only_old) if re.fullmatch("'[0-9a-f]{16}'", text)]
            if made_by not in entry["made_by"]:
                entry["made_by"].append(made_by)
    return found


def add_checkpoints(found: Mapping[str, dict[str, Any]]) -> None:
    """Add to `found` by which code trainings were begun that are not finished: no record of Snakemake's says it."""
    import torch  # takes seconds

    train = found[TRAIN]
    for path in sorted(Path(train["file"]).parent.glob(f"learners/*/*/*/{CHECKPOINT}")):
        if is_there(path.parent / LEARNER_WEIGHTS):  # finished, and the checkpoint is of another code that was given up
            continue
        checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        code = [checkpoint["identity"]["code"]]
        if code not in train["made_by"]:
            train["made_by"].append(code)
            train.setdefault("checkpoints", []).append(f"{path} by {code[0]}")


def rows_of(
    found: Mapping[str, Mapping[str, Any]], stages: Sequence[str], because: str, date: str
) -> list[tuple[str, Accepted]]:
    """What is to be listed, each with its file. found: as `changed_codes` gives it. Raises StudyError where there is
    nothing to accept or it is not clear what."""
    if len(because.split()) < 3:
        raise StudyError(f"--because is {because!r}; say in a sentence why the results stay the same.")
    rows = []
    for stage in stages:
        if stage not in found:
            raise StudyError(f"--stage {stage}: there is no such stage; expected one of {', '.join(sorted(found))}.")
        entry = found[stage]
        if entry["made_by"] in ([], [[entry["param"]]]):
            raise StudyError(f"--stage {stage}: there are no results of it that other code made; nothing to accept.")
        if len(entry["made_by"]) > 1 or len(entry["made_by"][0]) != 1:
            raise StudyError(
                f"--stage {stage}: its results were made by several codes, or other things changed too "
                f"({entry['made_by']}). A change can be accepted where code alone changed, from one digest: make what "
                f"is older again first, or undo the other change."
                + "".join(f" Not finished: {checkpoint}." for checkpoint in entry.get("checkpoints", []))
            )
        row = Accepted(stage, entry["code"], entry["made_by"][0][0], date, " ".join(because.split()))
        rows.append((str(entry["file"]), row))
    return rows


def ask_snakemake(arguments: Sequence[str]) -> dict[str, Any]:
    """`changed_codes` of the study that Snakemake is given. Raises StudyError if it cannot plan it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "changed.json"
        command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", *arguments]
        environment = os.environ | {ASKED: str(path)}
        run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if run.returncode:
            raise StudyError(f"{' '.join(command[2:])} failed:\n{run.stdout}")
        if not path.is_file():
            raise StudyError("nothing is to be done: no code changed of which there are results. Nothing to accept.")
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    own = given[: given.index("--")] if "--" in given else given
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", nargs="+", required=True, help="what a dry run says has other code")
    parser.add_argument("--because", required=True, help="why their results are the same")
    options, snakemakes = parser.parse_args(own), given[len(own) + 1 :]
    try:
        date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
        found = ask_snakemake(snakemakes)
        if TRAIN in options.stage and TRAIN in found:
            add_checkpoints(found)
        rows = rows_of(found, options.stage, options.because, date)
    except StudyError as error:
        sys.exit(str(error))
    for path, row in rows:
        accepted.add([row], path)
        print(f"{row.stage}: code {row.code} stands for {row.same_as}; written to {path}")
    print("The report lists it when it is next made; snakemake --forcerun report makes it now.")


if __name__ == "__main__":
    main()
