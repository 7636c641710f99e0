"""What the user gave to Snakemake, looked at for settings that stand twice: Snakemake takes the last and says nothing.

For the Snakefile alone, in the process that the user started; no job imports it.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from cxrscale.common.errors import StudyError

#: Options of Snakemake that forget what the same option gave before, by their spellings.
OPTIONS = (("--configfile", "--configfiles"), ("--config", "-C"))
#: The tag of `<<`, which brings the keys of another mapping: a key beside it replaces one of them on purpose.
MERGE = "tag:yaml.org,2002:merge"

Keys = tuple[str, ...]


def check(files: Iterable[str | Path], config_arguments: Sequence[str], command: Sequence[str]) -> None:
    """Raise StudyError if a setting is given twice where the last alone would count.

    files: the configuration files. config_arguments: the values of `--config`. command: the command line, as sys.argv.
    That one file, or `--config`, replaces what another says is what they are for, and no mistake.
    """
    check_command(command)
    for file in dict.fromkeys(map(str, files)):
        if Path(file).is_file():
            check_file(Path(file))
    check_config_arguments(config_arguments)


def check_command(command: Sequence[str]) -> None:
    """Raise StudyError if a command line of Snakemake holds an option of `OPTIONS` twice."""
    program, *arguments = command or [""]
    if Path(program).name != "snakemake" and Path(program).parts[-2:] != ("snakemake", "__main__.py"):
        return
    if "--" in arguments:
        arguments = arguments[: arguments.index("--")]
    for spellings in OPTIONS:
        short = tuple(s for s in spellings if not s.startswith("--"))
        given = [a for a in arguments if a.split("=")[0] in spellings or (short and a.startswith(short))]
        if len(given) > 1:
            raise StudyError(
                f"the command line holds {spellings[0]} {len(given)} times, of which Snakemake takes the last alone; "
                f"expected it once. Write all its values after one: {spellings[0]} A B"
            )


def check_file(path: Path) -> None:
    """Raise StudyError if a mapping in a YAML or JSON file holds a key twice; what is neither is left to others."""
    text = path.read_text(encoding="utf-8")
    try:
        json.loads(text)
    except ValueError:
        pass
    else:
        text = text.replace("\t", " ")  # JSON may be indented by tabs, and has none within texts; YAML may not
    try:
        _check_text(text, f"{path}: ")
    except yaml.YAMLError:
        return


def check_config_arguments(arguments: Sequence[str]) -> None:
    """Raise StudyError if `--config` gives a setting twice: within a value, or by two values.

    Snakemake lays the values over each other: "labels={source: negbio}" and "labels={missing: ignore}" go together.
    """
    seen: dict[Keys, str] = {}
    for argument in map(str, arguments):
        value: Any
        key, _, text = argument.partition("=")
        try:
            _check_text(text, "--config: ", (key,))
            value = yaml.load(text, Loader=yaml.BaseLoader)
        except yaml.YAMLError:
            value = text  # as Snakemake does
        for path in _leaves(value, (key,)):
            # The same setting, or a whole section and a part of it.
            other = next((o for o in seen if all(a == b for a, b in zip(o, path, strict=False))), None)
            if other is not None:
                raise StudyError(
                    f"--config: {'.'.join(path[: len(other)])} is given twice, by {seen[other]!r} and "
                    f"{argument!r}, and the first would be lost; expected it once. Remove one"
                )
        seen |= dict.fromkeys(_leaves(value, (key,)), argument)


def _check_text(text: str, where: str, above: Keys = ()) -> None:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None:
        return
    for path, first, again in _repeated(node, above, set()):
        lines = f"in lines {first.start_mark.line + 1} and {again.start_mark.line + 1}" if not above else repr(text)
        raise StudyError(
            f"{where}{'.'.join(path)} stands twice, {lines}, and the first would be lost; expected each key once. "
            "Remove one, or write both as one"
        )


def _repeated(node: yaml.Node, above: Keys, seen: set[int]) -> Iterator[tuple[Keys, yaml.Node, yaml.Node]]:
    """Keys that stand twice in a mapping, at any depth: where, the key, the key again."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for place, item in enumerate(node.value):
            yield from _repeated(item, (*above, str(place)), seen)
    elif isinstance(node, yaml.MappingNode):
        keys: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value)
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if name in keys:
                    yield (*above, name), keys[name], key
                keys[name] = key
            yield from _repeated(value, (*above, name), seen)


def _leaves(value: Any, above: Keys) -> Iterator[Keys]:
    """Where a nested value says something."""
    if not isinstance(value, dict):
        yield above
        return
    for key, item in value.items():
        yield from _leaves(item, (*above, str(key)))
