"""Synthetic data: whether the planted answer was found, at each resolution."""

from collections.abc import Mapping, Sequence
from typing import Any

from cxrscale.combine.methods import BEST_SINGLE, PRIMARY
from cxrscale.report.answer import difference_cell
from cxrscale.report.cells import DASH, Cell, PageTable, first_row, measure, missing, number, text_or
from cxrscale.report.inputs import ReportSettings, Results, shown_findings
from cxrscale.report.sections import Paragraph, Section
from cxrscale.report.sufficient import answer, answer_cell

AS_PLANTED = "as planted"
NOT_AS_PLANTED = "not as planted"
UNDECIDED = "undecided"

#: What a resolution is expected to lack of the reference.
A_GAIN = "a gain"
NO_GAIN = "no gain"
NO_GAIN_OR_LOSS = "no gain, or a loss"
AT_NEITHER = "visible at neither"


def section(results: Results, settings: ReportSettings) -> Section | None:
    """Nothing where nothing was planted."""
    if results.planted is None:
        return None
    said = (
        "The data set is synthetic: each finding was drawn with a pattern of known scale, so that the answer is known, "
        "at every resolution. “Undecided” says that the study, its pictures or its training, is too small to tell."
    )
    if settings.geometry == "pad":
        said += " Pixels needed are counted across the picture itself, without its borders."
    table = planted_table(results, settings)
    return Section("planted", "Against the planted truth", [Paragraph(said), table], link="Planted truth")


def planted_table(results: Results, settings: ReportSettings) -> PageTable:
    """What was drawn against what was found: a row a finding and model, a column a resolution up to the reference."""
    assert results.planted is not None
    reference = settings.reference_px
    smaller = sorted({r for model in results.models for r in results.resolutions(model) if r < reference})
    labels = shown_findings(results, settings)
    rows = [
        planted_row(results, settings, model, {str(k): v for k, v in planted.items()}, smaller)
        for planted in results.planted.to_dict("records")
        if str(planted["finding"]) in labels
        for model in results.models
    ]
    head = [
        "Finding", "Model", "Pattern", *(f"{r} px minus {reference} px" for r in smaller), f"AUROC at {reference} px",
        "Smallest sufficient: planted", "Found", "Overall",
    ]  # fmt: skip
    caption = (
        f"What was drawn and what was found. Stripes of wavelength w (a fraction of the width) need more than 2 / w "
        f"pixels across the picture; real filters and networks need some more. A resolution that cannot hold them is "
        f"expected to lose against {reference} px, one that holds them to lose nothing and to show the finding; coarse "
        f"patterns are visible at every resolution. Each resolution is held against that by the "
        f"{settings.confidence:.0%} intervals of its difference from {reference} px and of its AUROC; overall is as "
        f"planted only if every resolution is. Pattern none: no signal, expected at AUROC 0.5. Pattern any: present "
        f"where one of other findings is, which may need different resolutions; expected is a gain of combining them. "
        f"Pattern relation: two places far apart, which a larger picture may take out of the receptive field."
    )
    return PageTable(caption, head, rows)


def planted_row(
    results: Results, settings: ReportSettings, model: str, planted: Mapping[str, Any], smaller: Sequence[int]
) -> list[Cell | str]:
    """planted: finding, pattern, wavelength. smaller: resolutions below the reference, a column each."""
    reference = settings.reference_px
    finding, pattern, wavelength = str(planted["finding"]), str(planted["pattern"]), float(planted["wavelength"])
    needed = 2 / wavelength if pattern in ("grating", "line") else None
    drawn = Cell(pattern, f"wavelength {number(wavelength)}: more than {needed:.0f} px" if needed else "")
    row: list[Cell | str] = [finding, model, drawn]
    found = answer(results, settings, model, finding)
    planted_px = None
    if pattern in ("none", "any"):
        row += [difference_cell(results, settings, model, finding, r) for r in smaller]
        top = first_row(results["averages"], model=model, finding=finding, resolution_px=reference)
        row.append(measure(top, "value", "lower", "upper") if top else Cell(DASH, "not trained"))
        none = pattern == "none"
        said = _chance(results, model, finding, settings) if none else _gained(results, model, finding)
    else:
        tested = [_below(results, settings, model, finding, r, pattern, needed) for r in smaller]
        tested.append(_reference(results, model, finding, needed, reference))
        row += [cell for cell, _ in tested]
        held = [r for r in results.resolutions(model) if needed is None or needed < r]
        planted_px = min(held, default=None)
        same = found.px == planted_px or planted_px is None or planted_px > reference
        words = [word for _, word in tested]
        said = overall(words, same) if smaller else Cell(DASH, "no smaller resolution was tried")
    return [*row, f"{planted_px} px" if planted_px else DASH, answer_cell(found, settings), said]


def expected_gain(pattern: str, needed: float | None, resolution: int, reference: int) -> str:
    """What sampling theory says about the gain from a resolution to the reference, of a pattern that has a scale."""
    if pattern == "relation":
        return NO_GAIN_OR_LOSS
    if needed is None or needed < resolution:
        return NO_GAIN
    return A_GAIN if needed < reference else AT_NEITHER


def agreement(expected: str, difference: Mapping[str, Any] | None, margin: float, seen: bool) -> Cell:
    """Whether the difference of a resolution from the reference agrees with what was expected; the note says why not.

    seen: whether the AUROC at the resolution is shown to be above 0.5; where nothing was learned, "no gain" is no
    agreement.
    """
    if difference is None or missing(difference["lower"]):
        return Cell(DASH, text_or(difference and difference["reason"], "no difference was computed"))
    lower, upper = difference["lower"], difference["upper"]
    if expected == A_GAIN:
        if lower > -margin:
            return Cell(NOT_AS_PLANTED, "a gain was planted")
        return Cell(AS_PLANTED) if upper < 0 else Cell(UNDECIDED, "a gain was planted")
    if upper < -margin:
        return Cell(NOT_AS_PLANTED, f"{expected} was planted")
    if lower > margin and expected != NO_GAIN_OR_LOSS:
        return Cell(NOT_AS_PLANTED, "no loss was planted" if expected == NO_GAIN else f"{expected} was planted")
    if expected != AT_NEITHER and not seen:
        return Cell(UNDECIDED, "AUROC is not shown to be above 0.5")
    return Cell(AS_PLANTED) if lower > -margin else Cell(UNDECIDED, f"{expected} was planted")


def overall(words: list[str], same: bool) -> Cell:
    """One word for a finding from that of each resolution.

    same: whether the smallest sufficient resolution that was found is the planted one.
    """
    if NOT_AS_PLANTED in words:
        return Cell(NOT_AS_PLANTED)
    if DASH in words:
        return Cell(DASH, "not every resolution could be tested")
    return Cell(AS_PLANTED if same and set(words) == {AS_PLANTED} else UNDECIDED)


def _below(
    results: Results, settings: ReportSettings, model: str, finding: str, resolution: int, pattern: str,
    needed: float | None,
) -> tuple[Cell, str]:  # fmt: skip
    """The cell of a resolution below the reference, and its word."""
    row = first_row(
        results["differences"],
        model=model, finding=finding, resolution_px=resolution, against_px=settings.reference_px,
    )  # fmt: skip
    expected = expected_gain(pattern, needed, resolution, settings.reference_px)
    word = agreement(expected, row, settings.margin_auroc, _seen(results, model, finding, resolution))
    if row is None or word.text == DASH:
        return word, word.text
    shown = measure(row, "difference", "lower", "upper", signed=True)
    return _with_word(shown, word), word.text


def _reference(results: Results, model: str, finding: str, needed: float | None, reference: int) -> tuple[Cell, str]:
    """The cell of the reference, and its word: what it holds must be seen there."""
    row = first_row(results["averages"], model=model, finding=finding, resolution_px=reference)
    if row is None or missing(row["lower"]):
        return Cell(DASH, text_or(row and row["reason"], "not trained")), DASH
    word = Cell(AS_PLANTED)
    if (needed is None or needed < reference) and not _seen(results, model, finding, reference):
        word = Cell(UNDECIDED, "not shown to be above 0.5")
    return _with_word(measure(row, "value", "lower", "upper"), word), word.text


def _with_word(shown: Cell, word: Cell) -> Cell:
    said = f"{word.text} ({word.note})" if word.note else word.text
    return Cell(shown.text, f"{shown.note}; {said}")


def _seen(results: Results, model: str, finding: str, resolution: int) -> bool:
    """Whether the AUROC is shown to be above 0.5."""
    row = first_row(results["averages"], model=model, finding=finding, resolution_px=resolution)
    return row is not None and not missing(row["lower"]) and row["lower"] > 0.5


def _gained(results: Results, model: str, finding: str) -> Cell:
    """Whether the stack is better than its best learner, for a finding whose parts need different resolutions."""
    found = first_row(results["gains"], ensemble=model, finding=finding, method=PRIMARY, against=BEST_SINGLE)
    if found is None or missing(found["lower"]):
        return Cell(DASH, text_or(found and found["reason"], "nothing was combined"))
    text = AS_PLANTED if found["lower"] > 0 else NOT_AS_PLANTED if found["upper"] < 0 else UNDECIDED
    gain = measure(found, "gain", "lower", "upper", signed=True)
    return Cell(text, f"gain of combining {gain.text} ({gain.note})")


def _chance(results: Results, model: str, finding: str, settings: ReportSettings) -> Cell:
    """Whether all joint intervals of a finding without signal hold 0.5."""
    rows = results["auroc"][(results["auroc"]["model"] == model) & (results["auroc"]["finding"] == finding)]
    rows = rows[rows["joint_lower"].notna()]
    if rows.empty:
        return Cell(DASH, "no joint interval is defined")
    outside = rows[(rows["joint_lower"] > 0.5) | (rows["joint_upper"] < 0.5)]
    name = f"joint {settings.joint_confidence:.0%} intervals"
    if outside.empty:
        return Cell(AS_PLANTED, f"all {len(rows)} {name} hold 0.5")
    return Cell(NOT_AS_PLANTED, f"{len(outside)} of {len(rows)} {name} leave out 0.5")
