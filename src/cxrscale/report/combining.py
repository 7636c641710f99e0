"""What is gained by combining learners."""

from cxrscale.evaluation.metrics import MEAN
from cxrscale.report.content import (
    DASH,
    Cell,
    ReportSettings,
    Results,
    Table,
    average,
    averaged_over,
    join,
    lookup,
    measure,
    shown_findings,
)
from cxrscale.stacking import ALL


def stacking_table(results: Results, settings: ReportSettings) -> Table:
    values = ["auroc", "lower", "upper", "gain", "gain_lower", "gain_upper"]
    averaged = average(results.stacked, ["ensemble", "finding", "method"], values)
    labels = [f for f in shown_findings(results, settings) if f != MEAN]
    rows: list[list[Cell | str]] = []
    for ensemble in dict.fromkeys(averaged["ensemble"]):
        for finding in labels:
            row: list[Cell | str] = [str(ensemble), finding]
            for method in ("best_single", "mean", "softmax"):
                found = lookup(averaged, ensemble=ensemble, finding=finding, method=method)
                if found is None:
                    row += [Cell(DASH, "not combined")] * (1 if method == "best_single" else 2)
                    continue
                level = measure(found, "auroc", "lower", "upper")
                if method == "best_single":
                    stacked = results.stacked
                    which = stacked[(stacked["ensemble"] == ensemble) & (stacked["finding"] == finding)]
                    names = ", ".join(dict.fromkeys(which["learner"].dropna().astype(str)))
                    row.append(Cell(level.text, f"{level.note}; {names} px" if names else level.note))
                else:
                    row += [level, measure(found, "gain", "gain_lower", "gain_upper", signed=True)]
            rows.append(row)
    head = [
        "Ensemble", "Finding", "Best single (chosen on validation)", "Equal weights (mean)", "Gain of mean over single",
        "Fitted weights (softmax)", "Gain of fitted over single",
    ]  # fmt: skip
    how = averaged_over(results)
    caption = f"Test AUROC of ensembles with {settings.confidence:.0%} intervals, within a fold and seed{how}."
    return Table(caption, head, rows)


def gains_sentence(results: Results, settings: ReportSettings) -> str:
    """For how many findings fitted weights beat the best single learner."""
    labels = [f for f in shown_findings(results, settings) if f != MEAN]
    averaged = average(
        results.stacked[results.stacked["method"] == "softmax"],
        ["ensemble", "finding"], ["gain", "gain_lower", "gain_upper"],
    )  # fmt: skip
    parts = []
    for ensemble, rows in averaged[averaged["finding"].isin(labels)].groupby("ensemble", sort=False):
        above, below = int((rows["gain_lower"] > 0).sum()), int((rows["gain_upper"] < 0).sum())
        members = results.weights[results.weights["ensemble"] == ensemble]
        k = len(members[["model", "resolution_px"]].drop_duplicates())
        name = f"all {k} learners" if ensemble == ALL else f"the {k} resolutions of {ensemble}"
        parts.append(f"{above} of {len(rows)} with {name}" + (f" (worse for {below})" if below else ""))
    return (
        f"Findings for which combining by fitted weights is shown to beat the best single learner: {join(parts)}. "
        "Any ensemble tends to beat one learner."
    )
