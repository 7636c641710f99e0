"""The tables that this stage writes: ensembles, their scale weights, gains and control (docs/stacking.md)."""

from cxrscale.common.rows import ALL_LEARNERS, MEAN, STRONGEST
from cxrscale.common.scope import SCOPE
from cxrscale.common.tables import Column, Table

_METHOD = Column("method", "text", "a method of cxrscale.combine.methods")
_SET = (
    Column("ensemble", "text", f"a model (its resolutions are combined), or {ALL_LEARNERS}"),
    Column("fold", "int32", "the fold"),
    Column("seed", "int32", "the seed of the learners"),
    Column("finding", "text", "the finding"),
)
_LEARNER = (
    Column("model", "text", "the learner's model"),
    Column("resolution_px", "int32", "the learner's resolution"),
)
_UNDEFINED = "undefined, see reason"
_TEST = (
    Column("p", "float64", "two-sided, from the variance that the interval comes from", null=_UNDEFINED),
    Column("p_holm", "float64", "p after Holm's correction over findings", null="exploratory, the mean, or see reason"),
)
_REASON = Column("reason", "text", "why a value is empty", null="nothing is empty")

SCALE_WEIGHTS = Table(
    name="scale_weights",
    file="{study}/stacking/scale_weights.csv",
    made_by="`combine.scale_weights.scale_weight_rows`; fitted by `combine.methods`",
    shown=True,
    row="a learner's scale weight in an ensemble for a finding, by the declared method",
    columns=(
        *_SET,
        *_LEARNER,
        Column("weight", "float64", "0 to 1, sum 1 over the ensemble"),
        Column("lower", "float64", "lower end of its interval, patients of combine resampled", null="not fitted"),
        Column("upper", "float64", "upper end of its interval", null="not fitted"),
        Column("warning", "text", "why the scale weight says little about this learner", null="no such doubt"),
        Column("gap", "float64", "at most this far from the least mean log loss, in nats", null="not fitted"),
        Column("log_loss", "float64", "the learner's own mean log loss on combine, in nats", null="not fitted"),
        Column("slope", "float64", "of its calibration on combine; 1: calibrated, below: too sure", null="not fitted"),
        Column("intercept", "float64", "of its calibration on combine, in log odds; 0: calibrated", null="not fitted"),
        Column("reason", "text", "why the scale weights are equal instead of fitted", null="they are fitted"),
    ),
    key=("ensemble", "fold", "seed", "finding", "model", "resolution_px"),
)

COEFFICIENTS = Table(
    name="coefficients",
    file="{study}/stacking/coefficients.csv",
    made_by="`combine.ensembles.stack_fold`; fitted by `combine.methods`",
    row="a learner in an ensemble for a finding, by an exploratory method",
    columns=(
        *_SET,
        _METHOD,
        *_LEARNER,
        Column("coefficient", "float64", "of the learner's probability or of its logit, as the method has it"),
        Column("intercept", "float64", "of the ensemble, in log odds, the same for all its learners"),
    ),
    key=("ensemble", "fold", "seed", "finding", "method", "model", "resolution_px"),
)

STACKED = Table(
    name="stacked",
    file="{study}/stacking/stacked.csv",
    made_by="`combine.ensembles.stack_fold`, for each fold and seed",
    shown=True,
    row="a way of combining for a finding, scored on test",
    columns=(
        *_SET[:3],
        Column("finding", "text", f"the finding; {MEAN}: mean over the findings that have a value"),
        _METHOD,
        Column("auroc", "float64", "test AUROC", null=_UNDEFINED),
        Column("lower", "float64", "lower end of its interval", null=_UNDEFINED),
        Column("upper", "float64", "upper end of its interval", null=_UNDEFINED),
        Column("log_loss", "float64", "mean log loss on test, in nats", null=_UNDEFINED),
        Column("gain", "float64", "AUROC minus that of the best single learner", null=_UNDEFINED),
        Column("gain_lower", "float64", "lower end of its interval", null=_UNDEFINED),
        Column("gain_upper", "float64", "upper end of its interval", null=_UNDEFINED),
        Column("learner", "text", "the learner that the method picks, as model-resolution", null="it combines them"),
        _REASON,
    ),
    key=("ensemble", "fold", "seed", "finding", "method"),
)

GAINS = Table(
    name="gains",
    file="{study}/stacking/gains.csv",
    made_by="`combine.ensembles.gain_rows`; errors and intervals by `evaluate.averaging.means_over`",
    shown=True,
    row="a way of combining against another for a finding, averaged over folds and seeds",
    columns=(
        _SET[0],
        STACKED.columns[3],
        _METHOD,
        Column("against", "text", "the method that the gain is counted from"),
        Column("n_learners", "int32", "learners that are combined"),
        Column("auroc", "float64", "test AUROC of method", null=_UNDEFINED),
        Column("auroc_lower", "float64", "lower end of its interval", null=_UNDEFINED),
        Column("auroc_upper", "float64", "upper end of its interval", null=_UNDEFINED),
        Column("gain", "float64", "AUROC of method minus that of against", null=_UNDEFINED),
        Column("lower", "float64", "lower end of its interval", null=_UNDEFINED),
        Column("upper", "float64", "upper end of its interval", null=_UNDEFINED),
        *_TEST,
        Column("boot_lower", "float64", "as lower, by the patient bootstrap", null="exploratory method, or undefined"),
        Column("boot_upper", "float64", "as upper, by the patient bootstrap", null="exploratory method, or undefined"),
        Column("sd_seeds", "float64", "standard deviation of the gain over seeds, within a fold", null="one seed"),
        Column("n_pairs", "int32", "folds times seeds that were averaged"),
        SCOPE,
        _REASON,
    ),
    key=("ensemble", "finding", "method", "against"),
)

CONTROL = Table(
    name="control",
    file="{study}/stacking/control.csv",
    made_by="`combine.control.control_rows`; errors and intervals by `evaluate.averaging.means_over`, from what each "
    "seed brings by `combine.control.by_seed`",
    shown=True,
    row="an ensemble over resolutions against one of equally many learners of one resolution, averaged over folds",
    columns=(
        Column("model", "text", "the model whose resolutions are combined"),
        STACKED.columns[3],
        Column("method", "text", "how both are combined: a method of cxrscale.combine.methods that combines"),
        Column(
            "control",
            "text",
            f"resolution of the control in px, or {STRONGEST}: the one with the highest AUROC on test, with the p of a "
            "gain over every one",
        ),
        Column("strongest_px", "int32", f"{STRONGEST}: its resolution", null="others"),
        Column("n_learners", "int32", "learners in each ensemble"),
        Column("n_seeds", "int32", "seeds that every resolution of the model has"),
        Column("auroc_resolutions", "float64", "test AUROC of the ensemble over resolutions", null=_UNDEFINED),
        Column("auroc_control", "float64", "test AUROC of the control", null=_UNDEFINED),
        Column("effect", "float64", "auroc_resolutions minus auroc_control", null=_UNDEFINED),
        Column("lower", "float64", "lower end of its interval, over patients and training", null=_UNDEFINED),
        Column("upper", "float64", "upper end of its interval", null=_UNDEFINED),
        Column(
            "p",
            "float64",
            f"two-sided, of no effect; {STRONGEST}: the largest over all controls, 1 where one is not beaten",
            null=_UNDEFINED,
        ),
        _TEST[1],
        Column("n_folds", "int32", "folds that were averaged"),
        _REASON,
    ),
    key=("model", "finding", "method", "control"),
)
