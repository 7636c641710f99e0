"""Results of small studies, made by hand, the pages made of them, and what can be read in pages and figures."""

import dataclasses
import itertools
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cxrscale.combine.contracts import CONTROL, GAINS, SCALE_WEIGHTS, STACKED
from cxrscale.combine.methods import BEST_SINGLE, EQUAL, PRIMARY
from cxrscale.combine.settings import StackingSettings
from cxrscale.combine.stack import stack
from cxrscale.common.notes import NOTES
from cxrscale.common.rows import ALL_CHANNELS, MEAN, STRONGEST
from cxrscale.common.scope import scope_of
from cxrscale.evaluate.contracts import AUROC, AVERAGES, DIFFERENCES, METRICS, SUFFICIENT
from cxrscale.explain.contracts import ERF, FIELD_EFFECT, LENGTHS, LOCALISATION
from cxrscale.explain.field_effect import field_points
from cxrscale.report.inputs import KEY, ActivationMaps, ReportSettings, Results
from cxrscale.report.page import build, render_local, render_report
from cxrscale.results import TABLES

NAN = float("nan")
IMAGE_ID = "0a1b2c-patient-image"
SPLITS = ["train", "train", "validate", "validate", "combine", "combine", "test", "test"]
SCORED = [
    ("auroc", "image", "all", "clustered"),
    ("auroc", "image", "all", "bootstrap"),
    ("auroc", "image", "all", "delong"),
    ("auroc", "study", "all", "clustered"),
    ("auroc", "image", "view: <AP>", "clustered"),
    ("average_precision", "image", "all", "bootstrap"),
    ("sensitivity", "image", "all", "clustered"),
    ("brier", "image", "all", "clustered"),
    ("calibration_error", "image", "all", "none"),
    ("calibration_error_chance", "image", "all", "none"),
]
SETTINGS = ReportSettings(
    title="A study", study="tiny", findings=None, patient_pictures=False, reference_px=64, margin_auroc=0.01,
    confidence=0.95, joint_confidence=0.99, geometry="stretch", native_at_least_px=0,
    settings=[["split.combine_fraction", 0.1, 0.1], ["seeds", [0], [0]], ["training.epochs", 2, 30]],
)  # fmt: skip
COST = {
    "seconds": 12.5, "images_per_second": 100.0, "peak_memory_mb": 800.0, "device": "cpu", "devices": 2,
    "best_epoch": 1, "epochs": 2, "converged": True, "identity": {"inputs": "feedc0de"}, "versions": {"torch": "2.9"},
}  # fmt: skip


@pytest.fixture
def make_settings() -> Callable[..., ReportSettings]:
    return lambda **changes: dataclasses.replace(SETTINGS, **changes)


def framed(table, rows):
    return pd.DataFrame(rows, columns=[c.name for c in table.columns])


@dataclasses.dataclass(frozen=True)
class Made:
    """What a study is asked to be."""

    findings: tuple[str, ...]
    models: tuple[str, ...]
    resolutions: tuple[int, ...]
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    undefined: tuple[str, ...]

    @property
    def learners(self):
        return list(itertools.product(self.models, self.resolutions, self.folds, self.seeds))

    @property
    def with_mean(self):
        return [*self.findings, *([MEAN] if len(self.findings) > 1 else [])]

    def reason(self, finding):
        return "no positive image" if finding in self.undefined else None

    def of_learners(self, frame):
        return pd.concat([frame.assign(**dict(zip(KEY, k, strict=True))) for k in self.learners], ignore_index=True)


@pytest.fixture
def make_results() -> Callable[..., Results]:
    """A study where the lower resolutions are as good as 64 px for A, worse for B, and 0.8 everywhere for others."""

    def make(findings=("A", "B"), models=("m", "n"), resolutions=(32, 64), folds=(0,), seeds=(0,), undefined=()):
        made = Made(findings, models, resolutions, folds, seeds, undefined)
        targets = targets_of(made)
        compared = compared_tables(made)
        map_ = np.full((32, 32), 1 / 1024)
        cam = ([findings[0]], [f"{IMAGE_ID}6"], np.ones((1, 2, 2)), np.full((1, 32, 32), 90, np.uint8))
        shapes = list(itertools.product(models, resolutions))
        return Results(
            learners=pd.DataFrame(made.learners, columns=KEY),
            tables=empty_tables()
            | compared
            | combined_tables(made)
            | explained_tables(made, compared["differences"])
            | stored_tables(targets)
            | {
                "metrics": metrics_table(made),
                "history": made.of_learners(pd.DataFrame({"epoch": [1, 2], "validation_auroc": [0.7, 0.6]})),
            },
            targets=dict.fromkeys(folds, targets),
            costs=made.of_learners(pd.DataFrame([COST])),
            field_maps={shape: {"random": map_, "trained": map_} for shape in shapes},
            activation=[ActivationMaps(*shape, *cam) for shape in shapes],
        )

    return make


def empty_tables():
    """Every table that the report reads, without a row; a study need not have localisation."""
    shown = [table for table in TABLES.values() if table.shown and table is not LOCALISATION]
    return {table.name: framed(table, []).assign(**dict.fromkeys(KEY)) for table in shown}


def compared_tables(made: Made):
    """The tables of stage evaluate over learners."""
    levels, averages, differences, sufficient = [], [], [], []
    reference = max(made.resolutions)
    over = [len(made.folds), len(made.seeds), scope_of(len(made.seeds))]
    for model, finding in itertools.product(made.models, made.with_mean):
        reason, gain = made.reason(finding), 0.2 if finding == "B" else 0.0
        known = reason is None
        for resolution, fold, seed in itertools.product(made.resolutions, made.folds, made.seeds):
            value = (0.8 - gain * (resolution < reference)) if known else NAN
            levels.append(
                [
                    model, finding, fold, seed, resolution, value, value - 0.1, value + 0.1, value - 0.1, value + 0.1,
                    value - 0.2, value + 0.2, 5 if known else 0, 7, reason,
                ]
            )  # fmt: skip
        for r in made.resolutions:
            value = (0.8 - gain * (r < reference)) if known else NAN
            averages.append(
                [
                    model, finding, r, value, 0.05, 0.0, 40.0, value - 0.1, value + 0.1, value - 0.1, value + 0.1,
                    *over, None if known else "AUROC is undefined in every fold",
                ]
            )  # fmt: skip
        for r, against in itertools.combinations(made.resolutions, 2) if known else ():
            d = -gain * (against == reference)
            confirmatory = against == reference
            kind = "confirmatory" if confirmatory else "exploratory"
            verdict = ("equivalent" if d == 0 else "worse than the reference") if confirmatory else None
            p, ends = (1.0 if d == 0 else 0.0001), [d - 0.005, d + 0.005]
            differences.append(
                [
                    model, finding, r, against, kind, d, 0.0025, 0.0, 40.0, *ends, d - 0.006, d + 0.006, p,
                    p if confirmatory else None, 0.01, verdict, *over, None,
                ]
            )  # fmt: skip
        enough = reference if gain else min(made.resolutions)
        nothing = [None, None, None, None, "AUROC is undefined in every fold"]
        found = [enough, None, 0.8 - gain, 0.8, None] if known else nothing
        sufficient.append([model, finding, reference, *found])
    return {
        "auroc": framed(AUROC, levels),
        "averages": framed(AVERAGES, averages),
        "differences": framed(DIFFERENCES, differences),
        "sufficient": framed(SUFFICIENT, sufficient),
    }


def combined_tables(made: Made):
    """The tables of stage combine."""
    weights, stacked, gains, control = [], [], [], []
    n = len(made.resolutions)
    for model, finding, fold, seed in itertools.product(made.models, made.findings, made.folds, made.seeds):
        where = {"ensemble": model, "fold": fold, "seed": seed, "finding": finding}
        for r in made.resolutions:
            share = {"weight": 1 / n, "lower": 1 / n / 2, "upper": 1 / n, "slope": 0.9}
            weights.append(where | {"model": model, "resolution_px": r} | share)
        for method in (BEST_SINGLE, EQUAL, PRIMARY):
            single = "m-64" if method == BEST_SINGLE else None
            scored = {"method": method, "log_loss": 0.3, "learner": single, "reason": made.reason(finding)}
            stacked.append(where | scored)
    for model, finding in itertools.product(made.models, made.with_mean):
        found = {"auroc": 0.7, "auroc_lower": 0.6, "auroc_upper": 0.8, "gain": 0.03, "lower": 0.01, "upper": 0.05}
        found |= {"p": 0.01, "p_holm": None if finding == MEAN else 0.02}
        row = (found if finding not in made.undefined else {}) | {"finding": finding, "reason": made.reason(finding)}
        for method, against in itertools.permutations((BEST_SINGLE, EQUAL, PRIMARY), 2):
            if against != PRIMARY:
                who = {"ensemble": model, "method": method, "against": against, "n_learners": n}
                gains.append(row | who | {"scope": scope_of(len(made.seeds))})
        control.append(
            {"model": model, "finding": finding, "method": PRIMARY, "control": STRONGEST, "n_learners": n}
            | {"n_seeds": len(made.seeds), "reason": "2 learners of one resolution need 2 seeds, there is 1"}
        )
    return {
        "scale_weights": framed(SCALE_WEIGHTS, weights),
        "stacked": framed(STACKED, stacked),
        "gains": framed(GAINS, gains),
        "control": framed(CONTROL, control),
    }


def metrics_table(made: Made):
    metrics = []
    for finding in made.findings:
        values = [NAN] * 3 if finding in made.undefined else [0.5, 0.4, 0.6]
        for metric, level, group, interval in SCORED:
            ends = values if interval != "none" else [values[0], NAN, NAN]
            where = [finding, metric, "test", level, group, interval]
            metrics.append([*where, *ends, 12, 4, 5, 7, made.reason(finding)])
    return made.of_learners(framed(METRICS, metrics))


def explained_tables(made: Made, differences):
    """The tables of stage explain, but for localisation."""
    fields = made.of_learners(
        pd.DataFrame(
            {
                "state": ["random", *["trained"] * (1 + len(made.findings))],
                "finding": [ALL_CHANNELS, ALL_CHANNELS, *made.findings],
                **{f"{name}_{u}": v for name in LENGTHS for u, v in (("px", 8.0), ("fraction", 0.25))},
                "edge_ratio": 0.5, "cut_share": 0.1, "centroid_x_px": 16.0, "centroid_y_px": 16.0, "n_images": 8,
                "reason": None,
            }
        )
    )  # fmt: skip
    resolutions = dict.fromkeys(made.models, made.resolutions)
    points = field_points(fields, differences, made.findings, resolutions, max(made.resolutions))
    effects = [[m, 0.5, -0.2, 0.9, 0.21, len(made.findings), None] for m in made.models]
    return {ERF.name: fields, "field_points": points, "field_effect": framed(FIELD_EFFECT, effects)}


def targets_of(made: Made):
    targets = pd.DataFrame(
        {"image_id": [f"{IMAGE_ID}{i}" for i in range(8)], "subject_id": [f"subject-{i}" for i in range(8)]}
    )
    targets = targets.assign(study_id=targets["subject_id"], view="PA", split=SPLITS)
    for finding in made.findings:
        targets[f"target:{finding}"], targets[f"mask:{finding}"] = [0, 1] * 4, 1
    return targets


def stored_tables(targets):
    """The tables of stages data and store."""
    note = ("ids", "f.csv: subject_id is read in another spelling on 3 rows.", "'patient-9 ' as ...")
    index = {"image_id": targets["image_id"], "native_height_px": 80, "native_width_px": 40, "native_px": 40}
    return {
        "notes": framed(NOTES, [note]),
        "quarantine": pd.DataFrame({"image_id": ["lost-image"], "path": ["files/lost.jpg"], "reason": ["is absent"]}),
        "index": pd.DataFrame(index).assign(native_bits=np.where(np.arange(len(targets)) % 4, 12, 8)),
        "summary": pd.DataFrame(
            {
                "resolution_px": [32, 64],
                "images": 40,
                "bytes": 2_000_000,
                "enlarged": [0, 40],
                "sampled": 8,
                "jpeg_db": [44.04, np.nan],
                "jpeg_db_least": [41.0, np.nan],
                "direct_db": [40.0, 39.0],
                "direct_db_least": [38.0, 37.0],
            }
        ),
    }


@pytest.fixture
def make_stacked(write_predictions) -> Callable[..., Results]:
    """(strength and scale of the logits by resolution, seeds) -> what the page reads of real ensembles of them."""
    n = 1200
    patient = np.arange(n) // 2
    split = np.array(["validate", "combine", "test", "test"])[patient % 4]
    target = np.random.default_rng(0).integers(0, 2, (2, n))

    def make(resolutions, seeds=1, shared=0.8):
        paths = {}
        for r, (strength, scale) in resolutions.items():
            own = np.random.default_rng(r).normal(size=(2, n))
            for s in range(seeds):
                noise = np.random.default_rng([r, s]).normal(size=(2, n))
                odds = strength * (2 * target - 1) + np.sqrt(shared) * own + np.sqrt(1 - shared) * noise
                odds *= scale
                paths["m", r, 0, s] = write_predictions(
                    f"{r}-{s}", split, patient, {"A": odds[0], "B": odds[1]}, {"A": target[0], "B": target[1]}
                )
        return Results(
            learners=pd.DataFrame(list(paths), columns=KEY),
            tables=stack(paths, {0: "combine"}, StackingSettings(1e-8, 100, 100, 0.95, 0)),
            targets={0: pd.DataFrame({"target:A": target[0], "target:B": target[1]})},
            costs=pd.DataFrame(),
            field_maps={},
            activation=[],
        )

    return make


@pytest.fixture
def make_pages() -> Callable[[Results, ReportSettings], tuple[str, str]]:
    """The shareable and the local page, with all figures drawn."""

    def make(results, settings):
        page = build(results, settings)
        return render_report(page), render_local(page)

    return make


class ReadPage(HTMLParser):
    """The visible text of a page, its tags, and what its attributes point to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.links, self._style = "", [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._style = tag == "style"
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, data):
        self.text += "" if self._style else data + " "


@pytest.fixture
def read_page() -> type[ReadPage]:
    return ReadPage


@pytest.fixture
def texts() -> Callable[..., list[str]]:
    """All text of a figure, its legends' too."""

    def read(figure):
        figure.draw_without_rendering()
        return [t.get_text() for t in figure.findobj(match=lambda artist: hasattr(artist, "get_text")) if t.get_text()]

    return read


@pytest.fixture
def level() -> Callable[..., dict[str, object]]:
    """A row of AUROCs averaged."""

    def make(model, finding, resolution_px, value, reason=None):
        row = {"model": model, "finding": finding, "resolution_px": resolution_px, "value": value}
        return row | {"lower": value - 0.1, "upper": value + 0.1, "reason": reason}

    return make
