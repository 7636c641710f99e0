"""Formats of data sets. A format is one module of this package, which declares itself as FORMAT; nothing else names it.

`named("mimic-cxr-jpg")` finds it: every module here is looked at. How to add one: docs/extending.md.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from cxrscale.common.errors import StudyError, nearest
from cxrscale.common.provenance import file_digest
from cxrscale.data.spelling import Reading

Sources = dict[str, Path]


@dataclass(frozen=True)
class NoOptions:
    """The options of a format that has none."""


@dataclass(frozen=True)
class Chosen:
    """What a study chose of a format: its options, and whose labels (`Format.label_sources`, `test_sources`)."""

    options: Any
    label_source: str
    test_source: str


@dataclass(frozen=True)
class Format:
    """A format of a data set.

    name: in dataset.format. read_images: the columns of `contracts.IMAGES` without shard and order, in file order.
    read_labels: the columns of `contracts.LABELS`, in the order in which patients are split; its findings are those it
    is given, or with None all that the data set has. sources: the csv files by role, under a root; raises StudyError if
    one is missing. image_roles, label_roles: which of them the two read; the images' first lists an image a row.

    options: a dataclass of what dataset.options may hold. findings: that every such data set has; None: its files say.
    label_sources: whose labels there are, the default first (labels.source). test_sources: whose test has, "same" first
    (labels.test_source); what is not "same" needs split.method official. official_split: whether images have a
    published split: "always", "sometimes" or "never". groups, read_groups: columns that subgroups may be made of
    (evaluation.groups), and what reads them: image_id and those columns, as text. boxes: name of a csv file of boxes
    below the root that such a data set may have. synthetic: synthetic data sets are written in this format.
    """

    name: str
    sources: Callable[[Path, Chosen], Sources]
    image_roles: Sequence[str]
    label_roles: Sequence[str]
    read_images: Callable[[Sources, Reading], pd.DataFrame]
    read_labels: Callable[[Sources, Sequence[str] | None, Reading], pd.DataFrame]
    options: type = NoOptions
    findings: Sequence[str] | None = None
    label_sources: Sequence[str] = ("labels",)
    test_sources: Sequence[str] = ("same",)
    official_split: Literal["always", "sometimes", "never"] = "never"
    groups: Sequence[str] = ()
    read_groups: Callable[[Sources, Reading], pd.DataFrame] | None = None
    boxes: str | None = None
    synthetic: bool = False
    #: The module that declares it, set when it is found.
    module: str = field(default="", compare=False)

    @property
    def option_names(self) -> list[str]:
        return [f.name for f in fields(self.options)]

    def digests(self, root: Path, chosen: Chosen) -> dict[str, dict[str, str]]:
        """SHA-256 of the csv files that labels and images are made from, by role: {"labels": {...}, "images": {...}}.

        They go into the rules' params, so that a rerun follows the content of the csv files, not where they lie or when
        they were copied. Raises StudyError if one is missing.
        """
        files = self.sources(root, chosen)
        return {
            what: {role: file_digest(path) for role, path in files.items() if role in roles}
            for what, roles in (("labels", self.label_roles), ("images", self.image_roles))
        }


@cache
def formats() -> Mapping[str, Format]:
    """Every format by its name."""
    found: dict[str, Format] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        if module.name.rpartition(".")[2].startswith("_"):
            continue
        declared = importlib.import_module(module.name).FORMAT
        object.__setattr__(declared, "module", module.name)
        if declared.name in found:
            raise StudyError(f"{module.name} and {found[declared.name].module} are both format {declared.name!r}.")
        found[declared.name] = declared
    return found


def named(name: str) -> Format:
    """The format of a name. A rule that uses it names `Format.module` in its code digest. Raises StudyError."""
    if name not in formats():
        raise StudyError(f"there is no format {name!r}{nearest(name, formats())}; expected one of {list(formats())}.")
    return formats()[name]
