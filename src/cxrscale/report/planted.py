"""Synthetic data: whether the planted answer was found."""

from collections.abc import Mapping
from typing import Any

from cxrscale.report.content import (
    DASH,
    Cell,
    ReportSettings,
    Results,
    Table,
    lookup,
    measure,
    missing,
    number,
    shown_findings,
    text_or,
)
from cxrscale.report.resolutions import difference_cell, lowest_of
from cxrscale.stacking import PRIMARY


def planted_table(results: Results, settings: ReportSettings) -> Table:
    """What was drawn against what was found."""
    assert results.planted is not None
    rows: list[list[Cell | str]] = []
    labels = shown_findings(results, settings)
    for _, planted in results.planted.iterrows():
        finding, pattern, wavelength = str(planted["finding"]), str(planted["pattern"]), float(planted["wavelength"])
        if finding not in labels:
            continue
        striped = pattern in ("grating", "line")
        for model in results.models:
            resolutions = results.resolutions(model)
            needed = 2 / wavelength if striped else None
            lowest = lookup(
                results.differences,
                model=model, finding=finding, resolution_px=resolutions[0], against_px=settings.reference_px,
            )  # fmt: skip
            expected = expected_gain(pattern, needed, resolutions[0], settings.reference_px)
            row: list[Cell | str] = [finding, model, pattern]
            row += [number(wavelength) if striped else DASH, f"{needed:.0f}" if needed else DASH, expected]
            row.append(difference_cell(results, settings, model, finding, lowest_of(results, model)))
            if pattern == "none":
                row.append(_chance(results, model, finding, settings))
            elif pattern == "any":
                row.append(_gained(results, model, finding))
            else:
                low = lookup(results.averages, model=model, finding=finding, resolution_px=resolutions[0])
                seen = low is not None and not missing(low["lower"]) and low["lower"] > 0.5
                row.append(agreement(expected, lowest, settings.margin_auroc, seen))
            rows.append(row)
    head = [
        "Finding", "Model", "Pattern", "Wavelength [of the width]", "Pixels needed", "Expected of resolution",
        "AUROC at lowest minus at reference", "Found",
    ]  # fmt: skip
    caption = (
        "What was drawn and what was found. Stripes of wavelength w need more than 2 / w pixels across the picture; "
        "real filters and networks need some more. Coarse patterns are visible at every resolution. Pattern any: "
        "present where one of other findings is, which may need different resolutions."
    )
    return Table(caption, head, rows)


def expected_gain(pattern: str, needed: float | None, lowest: int, reference: int) -> str:
    """What sampling theory says about the gain from the lowest resolution to the reference."""
    if pattern == "none":
        return "no signal: AUROC 0.5"
    if pattern == "any":
        return "a gain of combining"
    if needed is None or needed < lowest:
        return "no gain"
    return "a gain" if needed < reference else "visible at neither"


def agreement(expected: str, lowest: Mapping[str, Any] | None, margin: float, seen: bool) -> Cell:
    """Whether the difference of the lowest resolution from the reference agrees with what was expected.

    seen: whether the AUROC at the lowest resolution is shown to be above 0.5; where nothing was learned, "no gain" is
    no agreement.
    """
    if lowest is None or missing(lowest["lower"]):
        return Cell(DASH, text_or(lowest and lowest["reason"], "no difference was computed"))
    if expected == "a gain":
        return Cell("as planted" if lowest["upper"] < 0 else "not as planted" if lowest["lower"] > 0 else "undecided")
    if lowest["upper"] < -margin:
        return Cell("not as planted")
    if expected == "no gain" and not seen:
        return Cell("undecided", "AUROC at the lowest resolution is not shown to be above 0.5")
    return Cell("as planted" if lowest["lower"] > -margin else "undecided")


def _gained(results: Results, model: str, finding: str) -> Cell:
    """Whether the stack is better than its best learner, for a finding whose parts need different resolutions."""
    found = lookup(results.gains, ensemble=model, finding=finding, method=PRIMARY, against="best_single")
    if found is None or missing(found["lower"]):
        return Cell(DASH, text_or(found and found["reason"], "nothing was combined"))
    text = "as planted" if found["lower"] > 0 else "not as planted" if found["upper"] < 0 else "undecided"
    gain = measure(found, "gain", "lower", "upper", signed=True)
    return Cell(text, f"gain of combining {gain.text} ({gain.note})")


def _chance(results: Results, model: str, finding: str, settings: ReportSettings) -> Cell:
    """Whether all joint intervals of a finding without signal hold 0.5."""
    rows = results.levels[(results.levels["model"] == model) & (results.levels["finding"] == finding)]
    rows = rows[rows["joint_lower"].notna()]
    if rows.empty:
        return Cell(DASH, "no joint interval is defined")
    outside = rows[(rows["joint_lower"] > 0.5) | (rows["joint_upper"] < 0.5)]
    name = f"joint {settings.joint_confidence:.0%} intervals"
    if outside.empty:
        return Cell("as planted", f"all {len(rows)} {name} hold 0.5")
    return Cell("not as planted", f"{len(outside)} of {len(rows)} {name} leave out 0.5")
