"""The tables of stage evaluate, and the words that their columns may hold."""

from cxrscale.common.places import LEARNER_FOLDER
from cxrscale.common.rows import ALL_IMAGES, MEAN
from cxrscale.common.scope import SCOPE
from cxrscale.common.tables import Column, Table

PREDICTIONS = Table(
    name="predictions",
    file=f"{LEARNER_FOLDER}/predictions.parquet",
    made_by="`train.learner.Learner`, laid out by `evaluate.predictions.predictions_frame`",
    row="an image of validate, combine or test",
    columns=(
        Column("image_id", "text", "the image"),
        Column("study_id", "text", "the study"),
        Column("subject_id", "text", "the patient"),
        Column("view", "text", "projection as the data set names it", null="not recorded"),
        Column("split", "text", "validate, combine or test"),
        Column("native_px", "int32", "largest resolution at which the image is not enlarged"),
    ),
    key=("image_id",),
    per_finding=(
        Column("logit:{finding}", "float32", "log odds that the finding is present, by the learner"),
        Column("target:{finding}", "int8", "1 present, 0 absent", null="ignored by the label policy"),
    ),
)

METRICS = Table(
    name="metrics",
    file=f"{LEARNER_FOLDER}/metrics.csv",
    made_by=f"`evaluate.metrics.evaluate`; variances by `evaluate.clustered.Components`, of {MEAN} by "
    "`evaluate.clustered.influence_covariance`; intervals by `evaluate.intervals`",
    shown=True,
    row="a metric of a finding on a split, with one kind of interval",
    columns=(
        Column("finding", "text", f"the finding; {MEAN}: mean over the findings that have a value"),
        Column("metric", "text", "see evaluation.md"),
        Column("split", "text", "validate, combine or test"),
        Column("level", "text", "image: each image counts; study: each study, by the mean probability of its images"),
        Column("group", "text", f"{ALL_IMAGES}, or a subgroup as column: value (on test only)"),
        Column(
            "interval",
            "text",
            "clustered: from the variance between patients; bootstrap: percentiles over drawn patients; delong: a "
            "check that takes images for independent; none",
        ),
        Column("value", "float64", "the metric", null="undefined, see reason"),
        Column("lower", "float64", "lower end of the interval", null="undefined, see reason, or interval is none"),
        Column("upper", "float64", "upper end of the interval", null="undefined, see reason, or interval is none"),
        Column("n_images", "int64", "images that count; at level study, examinations"),
        Column("n_patients", "int64", "patients they belong to"),
        Column("n_positive", "int64", "images (examinations) with the finding"),
        Column("n_negative", "int64", "images (examinations) without it"),
        Column("reason", "text", "why a value or an interval is empty", null="nothing is empty, or interval is none"),
    ),
    key=("finding", "metric", "split", "level", "group", "interval"),
)

CONFIRMATORY = "confirmatory"

EXPLORATORY = "exploratory"

EQUIVALENT = "equivalent"

UNDECIDED = "undecided"

NEEDS = "worse than the reference"

BETTER_BELOW = "better below it"

#: Resolutions above a reference that is not the largest.
WORSE_ABOVE = "worse above it"

BETTER_ABOVE = "better above it"

VERDICTS = (NEEDS, BETTER_BELOW, EQUIVALENT, UNDECIDED, WORSE_ABOVE, BETTER_ABOVE)

_WHO = (
    Column("model", "text", "timm name"),
    Column("finding", "text", f"the finding; {MEAN}: mean over the findings that have a value"),
)

_ERROR = (
    Column("se_patients", "float64", "standard error for these learners, patients drawn", null="undefined, see reason"),
    Column(
        "se_seeds", "float64", "what other seeds add to it, in squares; 0 with one seed", null="undefined, see reason"
    ),
    Column("df", "float64", "degrees of freedom of t", null="undefined, or infinite"),
)

_INTERVAL = (
    Column("lower", "float64", "lower end of the interval, by t", null="undefined, see reason"),
    Column("upper", "float64", "upper end of the interval, by t", null="undefined, see reason"),
)

_BOOT = (
    Column("boot_lower", "float64", "lower end by the bootstrap of patients", null="most replicates lack a class"),
    Column("boot_upper", "float64", "upper end by the bootstrap of patients", null="most replicates lack a class"),
)

_OVER = (
    Column("n_folds", "int32", "folds averaged: those where the AUROC has a value"),
    Column("n_seeds", "int32", "seeds of each fold, the fewest"),
    SCOPE,
)

_REASON = Column("reason", "text", "why a value is empty", null="nothing is empty")

AUROC = Table(
    name="auroc",
    file="{study}/comparison/auroc.csv",
    made_by="`evaluate.comparison.compare`; variances by `evaluate.clustered`",
    shown=True,
    row="the test AUROC of a learner for a finding",
    columns=(
        *_WHO,
        Column("fold", "int32", "the fold"),
        Column("seed", "int32", "the seed of the learners"),
        Column("resolution_px", "int32", "side of the input"),
        Column("value", "float64", "AUROC on test", null="undefined, see reason"),
        *_INTERVAL,
        *_BOOT,
        Column("joint_lower", "float64", "as boot_lower, jointly over the resolutions", null="undefined"),
        Column("joint_upper", "float64", "as boot_upper, jointly over the resolutions", null="undefined"),
        Column("n_positive", "int64", "test images with the finding"),
        Column("n_negative", "int64", "test images without it"),
        _REASON,
    ),
    key=("model", "finding", "fold", "seed", "resolution_px"),
)

AVERAGES = Table(
    name="averages",
    file="{study}/comparison/averages.csv",
    made_by="`evaluate.comparison.compare`; errors and intervals by `evaluate.averaging.means_over`",
    shown=True,
    row="the test AUROC of a model at a resolution, for a finding, averaged over folds and seeds",
    columns=(
        *_WHO,
        Column("resolution_px", "int32", "side of the input"),
        Column("value", "float64", "mean AUROC on test", null="undefined, see reason"),
        *_ERROR,
        *_INTERVAL,
        *_BOOT,
        *_OVER,
        _REASON,
    ),
    key=("model", "finding", "resolution_px"),
)

DIFFERENCES = Table(
    name="differences",
    file="{study}/comparison/differences.csv",
    made_by=(
        "`evaluate.comparison.compare`; errors and intervals by `evaluate.averaging.means_over`, verdicts by "
        "`evaluate.verdicts.verdict`"
    ),
    shown=True,
    row="a pair of resolutions of a model, for a finding, averaged over folds and seeds",
    columns=(
        *_WHO,
        Column("resolution_px", "int32", "side of the input; the smaller of an exploratory pair"),
        Column("against_px", "int32", "side of the input it is compared with; the reference, if confirmatory"),
        Column("kind", "text", f"{CONFIRMATORY}: against the reference; {EXPLORATORY}: any other pair, not corrected"),
        Column("difference", "float64", "AUROC at resolution_px minus AUROC at against_px"),
        *_ERROR,
        *_INTERVAL,
        *_BOOT,
        Column("p", "float64", "two-sided p of no difference", null="undefined, see reason"),
        Column(
            "p_holm",
            "float64",
            f"p after Holm over resolutions, findings and models; {MEAN}: over resolutions and models",
            null="undefined, or exploratory",
        ),
        Column("p_equivalence", "float64", "larger p of two one-sided tests at the margin", null="undefined"),
        Column("verdict", "text", f"one of: {', '.join(VERDICTS)}", null="undefined, or exploratory"),
        *_OVER,
        _REASON,
    ),
    key=("model", "finding", "resolution_px", "against_px"),
)

SUFFICIENT = Table(
    name="sufficient",
    file="{study}/comparison/sufficient.csv",
    made_by="`evaluate.comparison.compare`; the rule is `evaluate.verdicts.smallest_sufficient`",
    shown=True,
    row="a finding of a model",
    columns=(
        *_WHO,
        Column("reference_px", "int32", "the resolution that others are held against"),
        Column(
            "sufficient_px",
            "int32",
            "smallest resolution not inferior to the reference by more than the margin, with all between",
            null="undefined, see reason",
        ),
        Column(
            "beyond_px",
            "text",
            "smaller ones that by themselves are not inferior either, although one between is not shown to be so",
            null="there are none",
        ),
        Column("auroc_lowest", "float64", "mean test AUROC at the lowest resolution", null="undefined"),
        Column("auroc_reference", "float64", "mean test AUROC at the reference", null="undefined"),
        _REASON,
    ),
    key=("model", "finding"),
)
