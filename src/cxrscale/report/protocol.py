"""The settings of the study beside the default protocol, and what its results were made of."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cxrscale.report.cells import Cell, PageTable
from cxrscale.report.inputs import ReportSettings, Results
from cxrscale.report.sections import Paragraph, Section


def section(results: Results, settings: ReportSettings) -> Section:
    said = (
        "Resolution is the only thing that differs between two learners of a model, fold and seed: same images, split, "
        "updates, batch, schedule and augmentation. Patients, not images, are the unit of every interval; folds are "
        "never pooled, and that they share training images is not accounted for. Each interval holds by itself, not "
        "all together. What the default protocol controls beyond the paper that it follows is in docs/protocol.md."
    )
    table = protocol_table(settings)
    return Section("protocol", "Protocol and deviations", [Paragraph(said), table], link="Protocol")


def provenance_section(results: Results, settings: ReportSettings) -> Section:
    return Section("provenance", "Provenance", provenance_tables(results), link="Provenance")


def protocol_table(settings: ReportSettings) -> PageTable:
    rows: list[list[Cell | str]] = [
        [str(name), shown(value), "as here" if value == default else shown(default)]
        for name, value, default in settings.settings
    ]
    marked = frozenset(i for i, (_, value, default) in enumerate(settings.settings) if value != default)
    return PageTable(
        f"The study's settings. {len(marked)} of {len(rows)} deviate from the default protocol; these are marked.",
        ["Setting", "This study", "Default protocol"], rows, marked,
    )  # fmt: skip


def shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {shown(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "none"
    return str(value)


def installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "run from its checkout, not installed"


def provenance_tables(results: Results) -> list[PageTable]:
    rows: list[list[Cell | str]] = []
    made_with = []
    for cost in results.costs.to_dict("records"):
        where = f"fold {cost['fold']}, seed {cost['seed']}"
        rows.append([str(cost["model"]), f"{cost['resolution_px']} px", where, str(cost["identity"]["inputs"])])
        made_with.append(shown(cost["versions"]))
    packages = ("cxrscale", "numpy", "pandas", "matplotlib", "jinja2")
    here = ", ".join(
        [f"python: {platform.python_version()}", *(f"{name}: {installed_version(name)}" for name in packages)]
    )
    accepted: list[list[Cell | str]] = [list(change) for change in results.accepted]
    changes = PageTable(
        f"Changes of code that were examined and found not to change results: {len(accepted)}. Results of these stages "
        f"stay filed under the digest of the code that they are the same as.",
        ["Stage", "Code now", "Same as", "Accepted (UTC)", "Because"], accepted,
    )  # fmt: skip
    versions: list[list[Cell | str]] = [["learners", v] for v in dict.fromkeys(made_with)]
    return [
        PageTable("Versions.", ["Made by", "With"], [*versions, ["this report", here]]),
        PageTable(
            "Learners. The digest names code, targets, images and initial weights together: learners of "
            "one model, resolution and seed that have equal digests had equal inputs.",
            ["Model", "Resolution", "Learner", "Digest of code and data"],
            rows,
        ),
        *([changes] if accepted else []),
    ]
