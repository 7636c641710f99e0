"""Whether verdicts err as seldom as they claim: the real comparison on drawn predictions, without any training.

    python -m cxrscale.evaluate.simulation --studies 1000

Patients have several images, images a part that all learners see alike, and training with another seed moves each
AUROC. Prints PASS or FAIL for each claim and a table of power; the exit status is 1 if a claim failed.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import ndtri

from cxrscale.common.rows import MEAN
from cxrscale.evaluate.comparison import ModelScores, compare_scores
from cxrscale.evaluate.contracts import BETTER_BELOW, CONFIRMATORY, EQUIVALENT, NEEDS, UNDECIDED
from cxrscale.evaluate.settings import ComparisonSettings

DIFFERENT = (NEEDS, BETTER_BELOW)


@dataclass(frozen=True)
class Design:
    """A study to draw.

    patients, images_per_patient: of a fold's test split. prevalence: of a finding, over images. auroc: expected at the
    reference, the largest of resolutions_px. effects: by finding, the expected AUROC at every smaller resolution minus
    that at the reference; its length is the number of findings. seed_sd: of a learner's own AUROC about what is
    expected, half of its variance the same for all findings. uneven_px, uneven_findings: how many times that is at the
    reference, and for the first half of the findings. patient_share, image_share: of a score's variance, what a
    patient's images have in common, and what all learners see in the image; the rest is the learner's own.
    """

    patients: int = 600
    images_per_patient: int = 2
    prevalence: float = 0.2
    auroc: float = 0.8
    effects: Sequence[float] = (0.0,) * 6
    models: int = 1
    resolutions_px: Sequence[int] = (256, 512, 1024, 2048)
    seeds: int = 3
    folds: int = 1
    seed_sd: float = 0.004
    uneven_px: float = 1.0
    uneven_findings: float = 1.0
    patient_share: float = 0.3
    image_share: float = 0.5


def draw_study(design: Design, rng: np.random.Generator) -> Iterator[ModelScores]:
    """A study. All models rank the same images; each has its own part in their scores."""
    n_findings, n_levels = len(design.effects), len(design.resolutions_px)
    patient = np.repeat(np.arange(design.patients), design.images_per_patient)
    n = len(patient)
    expected = design.auroc + np.outer(np.arange(n_levels) < n_levels - 1, design.effects)  # (resolution, finding)
    spread = design.seed_sd * np.outer(
        np.where(np.arange(n_levels) < n_levels - 1, 1.0, design.uneven_px),
        np.where(np.arange(n_findings) < n_findings // 2, design.uneven_findings, 1.0),
    )  # (resolution, finding)
    own = 1 - design.patient_share - design.image_share
    for fold in range(design.folds):
        # Half of a patient's labels are his own, half of each image: both classes in a patient, but not by chance.
        cut = ndtri(1 - design.prevalence)
        liable = rng.normal(size=(design.patients, n_findings))[patient] + rng.normal(size=(n, n_findings))
        target = (liable / math.sqrt(2) > cut).astype(np.float64)
        patients = rng.normal(size=(design.patients, n_findings)).astype(np.float32)[patient]
        seen = math.sqrt(design.patient_share) * patients
        seen += math.sqrt(design.image_share) * rng.standard_normal((n, n_findings), dtype=np.float32)
        for model in range(design.models):
            shape = (design.seeds, n_levels)
            luck = rng.normal(size=(*shape, 1)) + rng.normal(size=(*shape, n_findings))
            level = np.clip(expected + spread / math.sqrt(2) * luck, 0.01, 0.995)
            # Two normal scores of variance 1 whose means lie d apart: AUROC is Phi(d / sqrt 2).
            apart = math.sqrt(2) * ndtri(level).reshape(-1, 1, n_findings)  # (learner, 1, finding)
            noise = rng.standard_normal((shape[0] * shape[1], n, n_findings), dtype=np.float32)
            logits = seen + math.sqrt(own) * noise + apart * target
            findings = [f"finding{k}" for k in range(n_findings)]
            yield ModelScores(
                f"model{model}",
                fold,
                range(design.seeds),
                design.resolutions_px,
                findings,
                logits,
                target,
                patient,
            )


@dataclass
class Tally:
    """What the verdicts of many studies said. Arrays have an entry a study; those of tests a row a study.

    difference, lower, upper, p, p_holm: float (study, test); verdict: text (study, test); mean_p_holm: float (study,
    test), of the mean over findings;
    finding: int (test,), the finding of each test. sufficient: px (study, model and finding).
    """

    values: dict[str, list[np.ndarray]] = field(default_factory=dict)
    finding: np.ndarray = field(default_factory=lambda: np.array([], dtype=int))
    sufficient: list[np.ndarray] = field(default_factory=list)

    def __getitem__(self, name: str) -> np.ndarray:
        return np.array(self.values[name])


def simulate(design: Design, studies: int, margin: float, confidence: float, seed: int) -> Tally:
    """Draw and judge many studies."""
    rng = np.random.default_rng(seed)
    reference = max(design.resolutions_px)
    settings = ComparisonSettings(
        reference_px=reference, margin_auroc=margin, confidence=confidence, replicates=0, seed=seed, least_patients=0
    )
    tally = Tally()
    for _ in range(studies):
        found = compare_scores(draw_study(design, rng), settings)
        rows = found.differences[found.differences["kind"] == CONFIRMATORY]
        tally.values.setdefault("mean_p_holm", []).append(rows.loc[rows["finding"] == MEAN, "p_holm"].to_numpy(float))
        rows = rows[rows["finding"] != MEAN]
        for name in ("difference", "lower", "upper", "p", "p_holm"):
            tally.values.setdefault(name, []).append(rows[name].to_numpy(float))
        tally.values.setdefault("verdict", []).append(rows["verdict"].to_numpy(str))
        tally.finding = rows["finding"].str.removeprefix("finding").to_numpy(int)
        enough = found.sufficient[found.sufficient["finding"] != MEAN]
        tally.sufficient.append(enough["sufficient_px"].to_numpy(float))
    return tally


def rate(events: Any) -> tuple[float, float, float]:
    """Share of true entries with its exact 95 % binomial interval (Clopper and Pearson)."""
    found = stats.binomtest(int(np.sum(events)), len(events)).proportion_ci(0.95)
    return float(np.mean(events)), float(found.low), float(found.high)


def claim(name: str, scenario: str, events: Any, most: float) -> dict[str, Any]:
    """An error whose rate should be `most` or less; it fails if the rate is shown to be above: its interval is."""
    share, low, high = rate(events)
    return {
        "claim": name, "scenario": scenario, "rate": share, "low": low, "high": high, "most": most,
        "studies": len(events), "verdict": "PASS" if low <= most else "FAIL",
    }  # fmt: skip


#: name -> what differs from the design asked for. The published spread of seeds is 0.001 to 0.008.
SCENARIOS: Mapping[str, Mapping[str, Any]] = {
    "1 seed, about these learners": {"seeds": 1, "seed_sd": 0.0},
    "1 seed, rare and easy findings": {"seeds": 1, "seed_sd": 0.0, "prevalence": 0.05, "auroc": 0.95},
    "2 seeds": {"seeds": 2, "seed_sd": 0.008},
    "3 seeds": {"seeds": 3, "seed_sd": 0.008},
    "3 seeds, wild training": {"seeds": 3, "seed_sd": 0.03},
    "3 seeds, 2 folds": {"seeds": 3, "folds": 2, "seed_sd": 0.008},
    "3 seeds, the reference thrice as wild": {"seeds": 3, "seed_sd": 0.008, "uneven_px": 3.0},
    "3 seeds, half of the findings thrice as wild": {"seeds": 3, "seed_sd": 0.008, "uneven_findings": 3.0},
    "5 seeds, wild training": {"seeds": 5, "seed_sd": 0.03},
    "5 seeds, half of the findings thrice as wild": {"seeds": 5, "seed_sd": 0.008, "uneven_findings": 3.0},
    "5 seeds, 2 models": {"seeds": 5, "models": 2, "seed_sd": 0.008},
}


def check_claims(
    design: Design, studies: int, margin: float, confidence: float, seed: int, scenarios: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The claims of the verdicts in each scenario, null studies and studies whose differences are all the margin."""
    alpha, rows = 1 - confidence, []
    for name in scenarios or SCENARIOS:
        here = replace(design, **SCENARIOS[name])
        null = simulate(here, studies, margin, confidence, seed)
        rows += [
            claim("any false difference in a study without any", name, (null["p_holm"] <= alpha).any(axis=1), alpha),
            claim(
                "any false 'worse than the reference' or 'better below it'",
                name,
                np.isin(null["verdict"], DIFFERENT).any(axis=1),
                alpha,
            ),
            claim(
                "any false difference of the mean over findings",
                name,
                (null["mean_p_holm"] <= alpha).any(axis=1),
                alpha,
            ),
            # One test of each study, so that the entries are independent.
            claim("the interval misses the truth", name, (null["lower"] > 0)[:, 0] | (null["upper"] < 0)[:, 0], alpha),
        ]
        edge = replace(here, effects=(-margin,) * len(design.effects))
        at_margin = simulate(edge, studies, margin, confidence, seed + 1)
        rows += [
            claim(
                "false 'equivalent' of one test, true difference the margin",
                name,
                (at_margin["verdict"] == EQUIVALENT)[:, 0],
                alpha,
            ),
            claim(
                "a sufficient resolution that is inferior, true differences the margin",
                name,
                np.array(at_margin.sufficient)[:, 0] < max(here.resolutions_px),
                alpha,
            ),
        ]
    return rows


def overreach(design: Design, studies: int, margin: float, confidence: float, seed: int) -> list[dict[str, Any]]:
    """What becomes of the error if learners of one seed are taken to speak for resolution: nothing is claimed."""
    rows = []
    for seed_sd in (0.004, 0.008, 0.03):
        null = simulate(replace(design, seeds=1, seed_sd=seed_sd), studies, margin, confidence, seed)
        share, low, high = rate((null["p_holm"] <= 1 - confidence).any(axis=1))
        rows.append({"seed_sd": seed_sd, "rate": share, "low": low, "high": high})
    return rows


EFFECTS = (0.0, -0.005, -0.01, -0.02, -0.05)


def power(
    sizes: Sequence[int], seeds: Sequence[int], studies: int, margin: float, confidence: float, seed: int
) -> list[dict[str, Any]]:
    """How often each verdict is given at known differences, five findings of a model at four resolutions.

    One seed: the differences of these very learners, without a spread of training.
    """
    rows = []
    for patients in sizes:
        for n_seeds in seeds:
            design = Design(patients=patients, seeds=n_seeds, effects=EFFECTS, seed_sd=0.004 if n_seeds > 1 else 0.0)
            tally = simulate(design, studies, margin, confidence, seed)
            for k, effect in enumerate(EFFECTS):
                said = tally["verdict"][:, tally.finding == k]
                rows.append(
                    {
                        "patients": patients, "images": patients * design.images_per_patient, "seeds": n_seeds,
                        "difference": effect,
                        "spread": float(tally["difference"][:, tally.finding == k].std(axis=0).mean()),
                        **{word: float((said == word).mean()) for word in (*DIFFERENT, EQUIVALENT)},
                        UNDECIDED: float((said == UNDECIDED).mean()),
                    }
                )  # fmt: skip
    return rows


def printed(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table."""
    head = list(rows[0])

    def cell(value: Any) -> str:
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = [head, ["---"] * len(head), *([cell(row[name]) for name in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    default = Design()
    parser.add_argument("--studies", type=int, default=1000, help="drawn for each claim")
    parser.add_argument(
        "--power-studies", type=int, default=200, help="drawn for each row of the table of power; 0: none"
    )
    parser.add_argument("--patients", type=int, default=default.patients)
    parser.add_argument("--images-per-patient", type=int, default=default.images_per_patient)
    parser.add_argument("--prevalence", type=float, default=default.prevalence)
    parser.add_argument("--findings", type=int, default=len(default.effects))
    parser.add_argument("--resolutions", type=int, nargs="+", default=list(default.resolutions_px))
    parser.add_argument("--margin", type=float, default=0.03, help="of the claims; studies this small decide no less")
    parser.add_argument("--power-margin", type=float, default=0.01)
    parser.add_argument("--power-patients", type=int, nargs="+", default=[600, 2000, 6500])
    parser.add_argument("--power-seeds", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--scenarios", nargs="+", choices=list(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    given = parser.parse_args(arguments)
    design = Design(
        patients=given.patients,
        images_per_patient=given.images_per_patient,
        prevalence=given.prevalence,
        effects=(0.0,) * given.findings,
        resolutions_px=sorted(given.resolutions),
    )
    how = (given.margin, given.confidence, given.seed)
    claims = check_claims(design, given.studies, *how, given.scenarios)
    beyond = overreach(design, given.studies, *how)
    strength = (
        power(given.power_patients, given.power_seeds, given.power_studies, given.power_margin, *how[1:])
        if given.power_studies
        else []
    )
    failed = [row for row in claims if row["verdict"] == "FAIL"]
    if given.json:
        print(json.dumps({"claims": claims, "one seed read as resolution": beyond, "power": strength}, indent=1))
    else:
        print(printed(claims), end="\n\n")
        print("One seed read as if it spoke for resolution, rate of any false difference:\n")
        print(printed(beyond), end="\n\n")
        if strength:
            print(f"How often each verdict is given, margin {given.power_margin:g}:\n")
            print(printed(strength), end="\n\n")
        print(f"{len(claims) - len(failed)} of {len(claims)} claims hold: {'FAIL' if failed else 'PASS'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
