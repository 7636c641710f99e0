"""The truth test: does a study on synthetic pictures find what was planted? Claim by claim, pass or fail.

    python -m cxrscale.truth results/truth --data results/data/synthetic-truth --lossless results/truth-lossless

Reads a finished study's tables and the data set's planted.csv alone, and ends with status 1 if a claim fails. What is
expected follows from how the pictures were drawn: stripes of wavelength w (a fraction of the width) need more than
2 / w pixels; coarse patterns are visible at every resolution; a finding made of others that need different resolutions
gains by combining them; a finding without signal has AUROC 0.5.
"""

import argparse
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from cxrscale.combine.methods import BEST_SINGLE, PRIMARY
from cxrscale.common.rows import ALL_FINDINGS, ALL_SIZES, MEAN, STRONGEST
from cxrscale.evaluate.contracts import BETTER_BELOW, CONFIRMATORY, EQUIVALENT, NEEDS
from cxrscale.results import Study

STRIPES = ("grating", "line")
COARSE = ("heart", "effusion")
#: Of the side: how far apart the two places of the pattern "relation" are, on average (`data.synthetic`).
RELATION_DISTANCE = math.hypot(0.48, 0.62)


@dataclass(frozen=True)
class Claim:
    """One thing that the study must find. about: the model and finding."""

    claim: str
    about: str
    expected: str
    found: str
    holds: bool


class Found:
    """What a finished study found, beside what was planted in its synthetic data set, whose folder is `data`."""

    def __init__(self, folder: Path, data: Path, margin: float) -> None:
        self.study, self.margin = Study.open(folder), margin
        self.planted = pd.read_csv(data / "planted.csv")
        self.levels, self.sufficient, self.scale_weights = map(
            self.study.table, ("auroc", "sufficient", "scale_weights")
        )
        differences, gains, control = map(self.study.table, ("differences", "gains", "control"))
        self.differences = differences[differences["kind"] == CONFIRMATORY]
        self.gains = gains[(gains["method"] == PRIMARY) & (gains["against"] == BEST_SINGLE)]
        self.control = control[(control["method"] == PRIMARY) & (control["control"] == STRONGEST)]
        self.models = list(dict.fromkeys(self.levels["model"]))
        self.resolutions_px = sorted(int(r) for r in set(self.levels["resolution_px"]))
        self.reference_px = int(self.sufficient["reference_px"].iloc[0])

    def findings(self, *patterns: str) -> list[str]:
        return list(self.planted.loc[self.planted["pattern"].isin(patterns), "finding"])

    def needed_px(self, finding: str) -> int:
        """The smallest resolution of the study that holds the finding's stripes."""
        wavelength = float(self.planted.loc[self.planted["finding"] == finding, "wavelength"].iloc[0])
        return min(r for r in self.resolutions_px if r > 2 / wavelength)

    def sufficient_px(self, model: str, finding: str) -> int | None:
        rows = self.sufficient
        found = rows.loc[(rows["model"] == model) & (rows["finding"] == finding), "sufficient_px"].iloc[0]
        return None if pd.isna(found) else int(found)

    def against_reference(self, model: str, finding: str) -> pd.DataFrame:
        """Differences from the reference, a row a smaller resolution."""
        rows = self.differences
        return rows[(rows["model"] == model) & (rows["finding"] == finding)].sort_values("resolution_px")

    def field_reach(self, model: str, finding: str, resolution_px: int) -> float:
        """Diameter with 95 % of a finding's effective receptive field, as a fraction of the side; mean of seeds."""
        frames = self.of_learners("erf", model, resolution_px)
        radii = [
            float(f.loc[(f["state"] == "trained") & (f["finding"] == finding), "radius95_fraction"].iloc[0])
            for f in frames
        ]
        return 2 * sum(radii) / len(radii)

    def of_learners(self, table: str, model: str, resolution_px: int) -> list[pd.DataFrame]:
        """A table of each learner, by fold and seed."""
        return [frame for _, frame in self.study.parts(table, model=model, resolution_px=resolution_px)]


def verdicts_of(rows: pd.DataFrame) -> str:
    """'32 px: worse than the reference (-0.31); ...'."""
    return "; ".join(
        f"{r.resolution_px} px: {r.verdict} ({r.difference:+.3f}, {r.lower:+.3f} to {r.upper:+.3f})"
        for r in rows.itertuples()
    )


def with_interval(row: pd.Series, column: str) -> str:
    return f"{row[column]:+.4f} ({row['lower']:+.4f} to {row['upper']:+.4f})"


def scale_claims(study: Found, model: str) -> Iterator[Claim]:
    """Stripes need the resolution that can hold them, and no finer one; coarse findings need none."""
    for finding in study.findings(*STRIPES):
        rows, needed = study.against_reference(model, finding), study.needed_px(finding)
        too_coarse = rows[rows["resolution_px"] < needed]
        found = study.sufficient_px(model, finding)
        yield Claim(
            "smallest sufficient resolution",
            f"{model}, {finding}",
            f"{needed} px",
            f"{found} px; {verdicts_of(rows)}",
            found == needed and bool((too_coarse["verdict"] == NEEDS).all()),
        )
    for finding in study.findings(*COARSE):
        rows = study.against_reference(model, finding)
        yield Claim(
            "coarse finding", f"{model}, {finding}", "equivalent at every resolution", verdicts_of(rows),
            bool((rows["verdict"] == EQUIVALENT).all()),
        )  # fmt: skip


def relation_claims(study: Found, model: str) -> Iterator[Claim]:
    """A relation of distant places is found better at low resolution, where the receptive field spans it."""
    smallest, reference = study.resolutions_px[0], study.reference_px
    for finding in study.findings("relation"):
        rows = study.against_reference(model, finding)
        verdict = rows.loc[rows["resolution_px"] == smallest, "verdict"].iloc[0]
        yield Claim(
            "relation of distant places", f"{model}, {finding}", f"better at {smallest} px than at {reference} px",
            verdicts_of(rows), verdict == BETTER_BELOW,
        )  # fmt: skip
        reach = {r: study.field_reach(model, finding, r) for r in study.resolutions_px}
        yield Claim(
            "field against that distance", f"{model}, {finding}",
            f"95 % of the field spans {RELATION_DISTANCE:.2f} of the side at {smallest} px, not at {reference} px",
            "; ".join(f"{r} px: {share:.2f}" for r, share in reach.items()),
            reach[smallest] >= RELATION_DISTANCE > reach[reference],
        )  # fmt: skip


def chance_claims(study: Found, model: str) -> Iterator[Claim]:
    """A finding without signal stays at chance."""
    for finding in study.findings("none"):
        rows = study.levels[(study.levels["model"] == model) & (study.levels["finding"] == finding)]
        outside = rows[(rows["joint_lower"] > 0.5) | (rows["joint_upper"] < 0.5)]
        yield Claim(
            "no signal", f"{model}, {finding}", "AUROC 0.5 within the joint interval of every learner",
            f"{rows['value'].min():.3f} to {rows['value'].max():.3f}; {len(outside)} of {len(rows)} intervals miss it",
            outside.empty and bool(rows["joint_lower"].notna().all()),
        )  # fmt: skip


def weight_claims(study: Found, model: str) -> Iterator[Claim]:
    """Weights lie on the resolutions that hold the stripes."""
    rows = study.scale_weights[study.scale_weights["ensemble"] == model]
    for finding in study.findings(*STRIPES):
        needed = study.needed_px(finding)
        mean = rows[rows["finding"] == finding].groupby("resolution_px")["weight"].mean()
        share = float(mean[mean.index >= needed].sum())
        shown = ", ".join(f"{r} px {w:.2f}" for r, w in mean.items())
        yield Claim("scale weights", f"{model}, {finding}", f"most at {needed} px and above", shown, share > 0.5)


def stacking_claims(study: Found, model: str) -> Iterator[Claim]:
    """The stack loses nothing that matters against the best single learner, and gains on average; where evidence lies
    at several scales it gains, and more than an ensemble of seeds does."""
    rows = study.gains[study.gains["ensemble"] == model].set_index("finding")
    control = study.control[study.control["model"] == model].set_index("finding")
    for finding, row in rows.iterrows():
        gain, found = row["gain"], with_interval(row, "gain")
        if finding == MEAN:
            expected = "above the best single learner, interval and all"
            yield Claim("stack, mean of findings", model, expected, found, bool(row["lower"] > 0))
        else:
            where = f"{model}, {finding}"
            expected = f"estimated loss below {study.margin:g}"
            yield Claim("stack against best single", where, expected, found, bool(gain > -study.margin))
    for finding in study.findings("any"):
        where = f"{model}, {finding}"
        for claim, expected, frame, column in (
            ("evidence at several scales", "stack above the best single learner, interval and all", rows, "gain"),
            ("a gain of resolution", "above the ensemble of seeds, interval and all", control, "effect"),
        ):
            row = frame.loc[[finding]].iloc[0]
            yield Claim(claim, where, expected, with_interval(row, column), bool(row["lower"] > 0))


def localisation_claims(study: Found, model: str) -> Iterator[Claim]:
    """At the reference the maps' energy lies in the boxes more than an even map's would, for each learner."""
    for number, frame in enumerate(study.of_learners("localisation", model, study.reference_px)):
        row = frame[
            (frame["finding"] == ALL_FINDINGS) & (frame["size"] == ALL_SIZES) & (frame["measure"] == "energy")
        ].iloc[0]
        yield Claim(
            "energy of maps in boxes", f"{model}, {study.reference_px} px, learner {number}", "above chance",
            f"{row['value']:.3f} ({row['lower']:.3f} to {row['upper']:.3f}), chance {row['chance']:.3f}, best of the "
            f"grid {row['best']:.3f}",
            bool(row["lower"] > row["chance"]),
        )  # fmt: skip


def lossless_claims(study: Found, lossless: Found, model: str) -> Iterator[Claim]:
    """The same verdicts from a store without JPEG."""
    for finding in study.findings(*STRIPES, *COARSE):
        ours, other = (s.against_reference(model, finding) for s in (study, lossless))
        yield Claim(
            "same verdicts without JPEG", f"{model}, {finding}", verdicts_of(ours), verdicts_of(other),
            ours["verdict"].tolist() == other["verdict"].tolist(),
        )  # fmt: skip


def claims_of(study: Found, lossless: Found | None = None) -> list[Claim]:
    """Every claim, held against the tables."""
    kinds = (scale_claims, relation_claims, chance_claims, weight_claims, stacking_claims, localisation_claims)
    found = [claim for model in study.models for kind in kinds for claim in kind(study, model)]
    if lossless is not None:
        found += [claim for model in study.models for claim in lossless_claims(study, lossless, model)]
    return found


def table_of(claims: Iterable[Claim]) -> str:
    """Markdown, so that it can stand in a document."""
    lines = ["| | claim | about | expected | found |", "|---|---|---|---|---|"]
    lines += [f"| {'pass' if c.holds else 'FAIL'} | {c.claim} | {c.about} | {c.expected} | {c.found} |" for c in claims]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table and what passed; returns 1 if a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of the finished study")
    parser.add_argument("--data", type=Path, required=True, help="folder of its synthetic data set")
    parser.add_argument("--lossless", type=Path, help="folder of the same study on a lossless store")
    parser.add_argument("--margin-auroc", type=float, default=0.01, help="the comparison's")
    parser.add_argument("--json", type=Path, help="write the claims there too")
    given = parser.parse_args(arguments)
    study = Found(given.study, given.data, given.margin_auroc)
    lossless = Found(given.lossless, given.data, given.margin_auroc) if given.lossless else None
    claims = claims_of(study, lossless)
    print(table_of(claims))
    failed = sum(not c.holds for c in claims)
    print(f"\n{len(claims) - failed} of {len(claims)} claims pass.")
    if given.json:
        given.json.write_text(json.dumps([asdict(c) for c in claims], indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
