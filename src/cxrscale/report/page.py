"""The report: one page that leads with the answer, a summary for the terminal, and a local page with pictures.

What a section says, shows and draws is decided in its module, from frames and plain settings; their order here; how
they look, in templates/. A table is read by its name, `results["metrics"]`: docs/contracts.md says under that name what
each column means and which function makes it. Neither Snakemake nor the study's configuration is known here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cxrscale.common.atomic import replacing
from cxrscale.common.notes import NAMED
from cxrscale.report import (
    answer,
    caveats,
    combining,
    costs,
    data,
    fields,
    maps,
    performance,
    planted,
    protocol,
)
from cxrscale.report.caveats import notes_of, scope_sentence, warnings_of
from cxrscale.report.cells import DASH, PageTable, join, text_or
from cxrscale.report.combining import gains_sentence
from cxrscale.report.inputs import ReportSettings, Results
from cxrscale.report.sections import Bullets, Drawn, Paragraph, Section, single
from cxrscale.report.sufficient import answer_sentence, answers_of

TEMPLATES = Path(__file__).parent / "templates"

#: The page from top to bottom. A section that has nothing to show is None.
SECTIONS: tuple[Callable[[Results, ReportSettings], Section | None], ...] = (
    caveats.notes_section,
    answer.section,
    performance.section,
    combining.section,
    costs.section,
    planted.section,
    fields.section,
    maps.section,
    data.section,
    protocol.section,
    caveats.section,
    protocol.provenance_section,
)


@dataclass(frozen=True)
class Page:
    """sections: with what is private."""

    results: Results
    settings: ReportSettings
    sections: Sequence[Section]

    @property
    def figures(self) -> list[Drawn]:
        return [b for section in self.sections for b in single(section.blocks) if isinstance(b, Drawn)]

    def save_figures(self, folder: str | Path, private_folder: str | Path) -> None:
        """Write each figure as NAME.png: to private_folder those that show pictures of patients."""
        for drawn in self.figures:
            with replacing(Path(private_folder if drawn.private else folder) / f"{drawn.name}.png") as temporary:
                temporary.write_bytes(drawn.png)


def build(results: Results, settings: ReportSettings) -> Page:
    made = (make(results, settings) for make in SECTIONS)
    return Page(results, settings, [section for section in made if section is not None])


def environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def _rendered(template: str, settings: ReportSettings, sections: Sequence[Section]) -> str:
    shown = [section for section in sections if section.blocks]
    return environment().get_template(template).render(settings=settings, sections=shown)


def render_report(page: Page) -> str:
    """The shareable page: without what is private, unless the settings allow pictures."""
    sections = page.sections if page.settings.patient_pictures else [s.shared() for s in page.sections]
    return _rendered("report.html.j2", page.settings, sections)


def render_local(page: Page) -> str:
    """The page with pictures and ids, which stays where the data may be."""
    notes = notes_of(page.results, with_examples=True)
    lost = [
        [text_or(r.image_id, DASH), text_or(r.path, DASH), text_or(r.reason, DASH)]
        for r in page.results["quarantine"].itertuples()
    ]
    quarantined = PageTable("Images that could not be used.", ["image_id", "File", "Reason"], lost, private=True)
    nothing = Paragraph("None.")
    sections = [
        *(section.private() for section in page.sections),
        Section("notes", "Notes of the stages", [Bullets(notes) if notes else nothing]),
        Section("quarantined", "Quarantined images", [quarantined if lost else nothing]),
    ]
    return _rendered("local.html.j2", page.settings, sections)


def summary_lines(results: Results, settings: ReportSettings, report_path: str) -> list[str]:
    """Five to ten plain lines for the terminal."""
    answers = answers_of(results, settings)
    levels = results.learners
    lines = [
        f"{settings.title} ({settings.study}): {len(levels)} learners, {len(results.models)} "
        f"model{'s' if len(results.models) > 1 else ''}, {join(sorted(set(levels['resolution_px'])))} px, "
        f"{len(results.findings)} finding{'s' if len(results.findings) > 1 else ''}.",
        f"Sufficient: AUROC not lower than at {settings.reference_px} px by more than {settings.margin_auroc:g}, "
        f"with {settings.confidence:.0%} confidence.",
    ]
    models = list(answers.items())
    most = 4
    lines += [f"{model}: {answer_sentence(found, settings)}" for model, found in models[:most]]
    if len(models) > most:
        lines.append(f"{len(models) - most} more models: see the report.")
    lines.append(gains_sentence(results, settings))
    lines.append(scope_sentence(results))
    notes = notes_of(results, with_examples=False)
    lines += [f"Note: {note}" for note in notes[:NAMED]]
    if len(notes) > NAMED:
        lines.append(f"{len(notes) - NAMED} more notes: see the report's first lines.")
    warned = len(warnings_of(results, settings))
    lines += [f"Warnings in the report: {warned}.", f"Report: {report_path}"]
    return lines
