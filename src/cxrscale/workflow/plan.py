"""Why each stage will run, in words, and what its trainings will cost: said before anything starts.

Snakemake knows the reason of each job; `announce` has it told once the graph is made, in a dry run and in a real one.
What is asked of Snakemake's own objects stands in `steps_of` alone; the words are made of plain values. Imports
neither torch nor pandas nor Snakemake.
"""

import ast
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxrscale.common.places import CHECKPOINT
from cxrscale.workflow.schedule import expected_time
from cxrscale.workflow.training_costs import training_costs

TRAIN = "train"
#: Changed settings that are named; the others are counted.
MOST_NAMED = 3
#: Params that hold digests of files.
DIGESTS = {
    "code": "its code changed",
    "sources": "csv files of the data set changed",
    "boxes": "the csv file of cam.boxes changed",
    "subgroups": "the csv file of evaluation.subgroups changed",
}
#: Where the settings of a rule come from, for names that stand in several sections of the config.
SECTIONS = {
    "parse_labels": ("labels",),
    "check_inputs": ("report", "evaluation", "cam"),
    "build_targets": ("labels", "split"),
    "keep_together": ("split",),
    "check_pictures": ("comparison", "evaluation"),
    "train": ("training",),
    "evaluate": ("evaluation",),
    "compare": ("comparison", "evaluation"),
    "stack": ("stacking", "evaluation"),
    "erf": ("erf",),
    "cam": ("cam",),
    "localise": ("cam",),
    "compare_fields": ("evaluation",),
    "report": ("report", "evaluation"),
}
ABSENT = object()


@dataclass(frozen=True)
class Step:
    """A job that will run, and why.

    params: by name. old_params, new_params: the `repr` of those that only the last run had, and only this one has.
    missing: an output that is asked for is not there. updated: inputs with another content. remade_by: rules that make
    inputs again. forced: the user asks for it. interrupted: its last run did not end.
    """

    rule: str
    outputs: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    old_params: frozenset[str] = frozenset()
    new_params: frozenset[str] = frozenset()
    inputs_changed: bool = False
    environment_changed: bool = False
    missing: bool = False
    updated: tuple[str, ...] = ()
    remade_by: frozenset[str] = frozenset()
    forced: bool = False
    interrupted: bool = False
    gpus: int = 0


#: GPU-seconds of a training, by model, resolution and epochs, where no record tells.
Assumed = Callable[[str, int, int], float]


def announce(
    workflow: Any, logger: logging.Logger, config: Mapping[str, Any], refusal: type[Exception], assumed: Assumed
) -> None:
    """Have `logger`, Snakemake's, say why each stage will run, whenever it gives the statistics of a run.

    workflow: Snakemake's. config: all settings of the study, defaults too. refusal: the exception that stops Snakemake,
    raised where it would leave out a stage whose settings changed (see `overlooked`). assumed: what trainings cost.
    A nested Snakemake, which runs one job, gives no statistics and says nothing.
    """
    logger.addHandler(_Announcement(workflow, logger, config, refusal, assumed))


class _Announcement(logging.Handler):
    def __init__(
        self,
        workflow: Any,
        logger: logging.Logger,
        config: Mapping[str, Any],
        refusal: type[Exception],
        assumed: Assumed,
    ) -> None:
        super().__init__()
        self.workflow, self.log, self.config, self.refusal = workflow, logger, config, refusal
        self.assumed = assumed
        self.text: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(getattr(record, "event", None), "name", None) != "RUN_INFO":
            return
        if self.text is None:  # said again at the end of a dry run, when Snakemake counts its jobs as finished
            try:
                left_out, hiding = overlooked(self.workflow)
                steps, of_rule, rules = steps_of(self.workflow)
                submitted, gpus = submitted_jobs(self.workflow), gpus_given(self.workflow)
            except AttributeError as error:  # a Snakemake with other names inside
                self.log.debug("cannot say why each stage runs: %s", error)
                return
            if left_out:
                raise self.refusal(
                    f"the settings or code of {', '.join(left_out)} changed, but Snakemake would plan that only in the "
                    f"next run, since {', '.join(hiding)} before them will run again. Run the same command with "
                    f"`--until {' '.join(hiding)}` first, then without."
                )
            self.text = describe(steps, of_rule, rules, self.config, submitted, gpus, self.assumed)
        self.log.info(self.text)


def overlooked(workflow: Any) -> tuple[list[str], list[str]]:
    """The rules with a job that will not run although its params or its list of inputs changed, and the rules that hide
    them: those that will run and whose outputs others take as old (`ancient`).

    Snakemake does not look for changes in what comes after a job that will run. Where the way there leads through an
    `ancient` input, which passes no rerun on, a changed stage is left out, even with --forcerun, and old results taken.
    """
    dag, persistence = workflow.dag, workflow.persistence
    runs = set(dag.needrun_jobs())
    left = [job for job in dag.bfs(dag.depending, *runs) if job not in runs and not job.rule.norun]
    changed = [job for job in left if persistence.params_changed(job) or any(persistence.input_changed(job))]
    hiding = [before for job in left for before in dag.dependencies[job] if before in runs] if changed else []
    return _rules(changed), _rules(hiding)


def _rules(jobs: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(job.rule.name for job in jobs))


def _planned(workflow: Any) -> list[Any]:
    """Snakemake's jobs that will run, without rules that only name targets."""
    return [job for job in workflow.dag.needrun_jobs() if not job.rule.norun]


def steps_of(workflow: Any) -> tuple[list[Step], Counter[str], list[str]]:
    """The jobs that will run, how many jobs each rule has with those that will not, and the rules in their order.

    Raises AttributeError if this Snakemake's objects have other names than those of 9.27.
    """
    dag, jobs = workflow.dag, _planned(workflow)
    made_by = {str(output): job.rule.name for job in jobs for output in job.output}
    asked = set(map(str, workflow.dag_settings.forcerun))
    if workflow.dag_settings.forcetargets:
        asked |= set(map(str, dag.targetfiles))
    steps = []
    for job in jobs:
        reason, outputs = dag.reason(job), tuple(map(str, job.output))
        # Snakemake forces what was interrupted, as it does what the user names.
        forced = bool(reason.forced) and (job.rule in dag.forcerules or not asked.isdisjoint(outputs))
        steps.append(
            Step(
                rule=job.rule.name,
                outputs=outputs,
                params=dict(job.params.items()),
                old_params=frozenset(reason.params_changed.only_old),
                new_params=frozenset(reason.params_changed.only_new),
                inputs_changed=bool(reason.input_changed),
                environment_changed=bool(reason.software_stack_changed),
                missing=bool(reason.missing_output),
                updated=tuple(sorted(map(str, reason.updated_input - reason.updated_input_run))),
                remade_by=frozenset(made_by[str(f)] for f in reason.updated_input_run if str(f) in made_by),
                forced=forced,
                interrupted=bool(reason.forced) and not forced,
                gpus=int(job.resources.get("gpu", 0)),
            )
        )
    return steps, Counter(job.rule.name for job in dag.jobs), [rule.name for rule in workflow.rules]


def submitted_jobs(workflow: Any) -> int | None:
    """How many jobs a cluster is given, a group being one and local rules none; None where nothing is in a group."""
    dag, jobs = workflow.dag, _planned(workflow)
    if (workflow.local_exec and not workflow.dryrun) or not any(job.group for job in jobs):
        return None
    remote = [job for job in jobs if job.group or job.rule.name not in workflow._localrules]
    return len({dag.get_job_group(job) or job for job in remote})


def gpus_given(workflow: Any) -> int | None:
    """GPUs that jobs may use at once (--resources gpu=8); None where no limit is set."""
    given = workflow.global_resources.get("gpu")
    return None if given is None or given.value is None else int(given.value)


def describe(
    steps: Sequence[Step],
    of_rule: Mapping[str, int],
    rules: Sequence[str],
    config: Mapping[str, Any],
    submitted: int | None = None,
    gpus: int | None = None,
    assumed: Assumed = lambda *_: 0.0,
) -> str:
    """One line a stage, in the order of `rules`: how many of its jobs will run and why; then what trainings cost, and
    when they are done on so many GPUs."""
    width = max((len(step.rule) for step in steps), default=0)
    lines = ["Why each stage runs:"]
    for rule in rules:
        mine = [step for step in steps if step.rule == rule]
        if not mine:
            continue
        reasons = Counter(reason_of(step, config, rules) for step in mine).most_common(MOST_NAMED)
        total = of_rule[rule]
        parts = [f"{count} of {total}: {reason}" for reason, count in reasons]
        left = len(mine) - sum(count for _, count in reasons)
        lines.append(f"    {rule:<{width}}  {'; '.join(parts)}{f'; {left} of {total}: other reasons' if left else ''}")
    trained = [step for step in steps if step.rule == TRAIN]
    folders = [Path(step.outputs[0]).parent for step in trained]
    settings = [_readable("settings", step.params.get("settings")) for step in trained]
    lines += training_costs(list(zip(folders, settings, strict=True)))
    wanted = [step.gpus for step in trained]
    lines += expected_time(list(zip(folders, settings, wanted, strict=True)), gpus, assumed)
    if submitted is not None:
        lines.append(f"{len(steps)} steps in {submitted} jobs of the cluster")
    return "\n".join(lines) + "\n"


def reason_of(step: Step, config: Mapping[str, Any], rules: Sequence[str] = ()) -> str:
    """Why a step runs, without what differs from one job of the stage to the next."""
    if step.interrupted:
        return "interrupted before"
    if step.forced:
        return "asked for by --force"
    if step.missing:
        if step.rule == TRAIN and step.outputs and (Path(step.outputs[0]).parent / CHECKPOINT).is_file():
            return "not finished, there is a checkpoint"
        there = any(Path(output).exists() for output in step.outputs)
        return "some of its files are missing" if there else "not made yet"
    found = changed_params(step, config)
    if step.inputs_changed and not [words for words in found if words not in DIGESTS.values()]:
        found.append("the list of its inputs changed")
    if step.environment_changed:
        found.append("its software environment changed")
    if step.updated:
        found.append(f"{Path(step.updated[0]).name} changed" if len(step.updated) == 1 else "input files changed")
    if found:
        return ", ".join(found)
    before = sorted(step.remade_by, key=lambda rule: rules.index(rule) if rule in rules else len(rules))
    if len(before) > MOST_NAMED:
        before = [*before[:MOST_NAMED], f"{len(before) - MOST_NAMED} more"]
    return f"comes after {', '.join(before)}" if before else "a later stage needs it"


def changed_params(step: Step, config: Mapping[str, Any]) -> list[str]:
    """The params that changed, in words: code and files first, then settings by the names they have in the config."""
    files, settings = [], []
    old = {text: _parsed(text) for text in sorted(step.old_params)}
    for name, value in step.params.items():
        if repr(value) not in step.new_params:
            continue
        new = _readable(name, value)
        # Snakemake keeps no names: what was there before is the value that fits best.
        fits = {text: _alike(_readable(name, value), new) for text, value in old.items()}
        best = max(fits, key=lambda text: fits[text], default=None)
        before = _readable(name, old.pop(best)) if best is not None and fits[best] else ABSENT
        if name in DIGESTS:
            files.append(DIGESTS[name])
        else:
            settings += [_words(step.rule, path, a, b, config) for path, a, b in differences((name,), before, new)]
    if len(settings) > MOST_NAMED:
        settings = [*settings[:MOST_NAMED], f"{len(settings) - MOST_NAMED} more settings changed"]
    return [*files, *settings] or (["its settings changed"] if step.old_params or step.new_params else [])


def differences(path: tuple[str, ...], old: Any, new: Any) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Where two nested values differ, as (path, old, new); ABSENT for what one of them lacks."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*new, *old]):
            yield from differences((*path, str(key)), old.get(key, ABSENT), new.get(key, ABSENT))
    elif old is ABSENT or new is ABSENT or old != new:
        yield path, old, new


def _parsed(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _readable(name: str, value: Any) -> Any:
    """JSON text as what it says; the report's [name, value, default] as a dict; else the value."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    rows = value.get("settings") if name == "settings" and isinstance(value, dict) else None
    if isinstance(rows, list) and all(isinstance(row, list) and len(row) > 1 for row in rows):
        return value | {"settings": {str(row[0]): row[1] for row in rows}}
    return value


def _alike(a: Any, b: Any) -> float:
    """How well a value of the last run fits one of now as the same param: 0, it cannot be; shared keys count most."""
    if isinstance(a, dict) and isinstance(b, dict):
        return 1 + len(a.keys() & b.keys())
    if a is None or b is None:
        return 0.5
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return 1 + sum(x in b for x in a)
    return float(type(a) is type(b))


def _words(rule: str, path: tuple[str, ...], old: Any, new: Any, config: Mapping[str, Any]) -> str:
    name = config_name(rule, path, new, config)
    if old is ABSENT and len(path) == 1:
        return f"{name} changed to {_shown(new)}"
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        more, fewer = sum(x not in old for x in new), sum(x not in new for x in old)
        changes = [f"{n} {word}" for n, word in ((more, "more"), (fewer, "fewer")) if n]
        return f"{name}: {', '.join(changes) or 'another order'}"
    return f"{name} changed from {_shown(old)} to {_shown(new)}"


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "its default"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def config_name(rule: str, path: tuple[str, ...], value: Any, config: Mapping[str, Any]) -> str:
    """The dotted name that a setting has in the config; that of the param where the config has none so called.

    path: of the setting within the params of `rule`. value: what it is now, which the config then holds; or ABSENT.
    """
    if path[:2] == ("settings", "settings"):
        return ".".join(path[2:])
    sections = SECTIONS.get(rule, ())
    for end in range(len(path), 0, -1):
        held = value if end == len(path) else ABSENT
        named = [(p, v) for p, v in _paths(config) if p[-1] == path[end - 1]]
        # An override has another value than its section.
        found = [p for p, v in named if held in (ABSENT, v)] or [p for p, _ in named if p[0] in sections]
        if found:
            best = min(
                found,
                key=lambda other: (
                    -_same_end(other, path[:end]),
                    sections.index(other[0]) if other[0] in sections else len(sections),
                    len(other),
                ),
            )
            return ".".join([*best, *path[end:]])
    return ".".join(part for part in path if part != "settings")


def _paths(config: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in config.items():
        yield (*above, str(key)), value
        if isinstance(value, Mapping):
            yield from _paths(value, (*above, str(key)))


def _same_end(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    count = 0
    for x, y in zip(reversed(a), reversed(b), strict=False):
        if x != y:
            break
        count += 1
    return count
