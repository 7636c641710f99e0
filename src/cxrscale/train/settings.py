"""Settings of stage train: what weights depend on, exceptions for some learners, and how trainings run."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cxrscale.common.errors import nearest
from cxrscale.common.settings import (
    Check,
    Count,
    Distinct,
    Fraction,
    OpenFraction,
    Pixels,
    Range,
    Real,
    Section,
    Text,
    Whole,
    names_of,
)

Auto = Literal["auto"]
#: groups: over `norm_group_images` consecutive images. frozen: those that the weights came with, never updated.
#: synchronised: over the whole batch, which must be computed at once. per_micro_batch: over what is computed at once.
Normalisation = Literal["groups", "frozen", "synchronised", "per_micro_batch"]


@dataclass(frozen=True)
class TrainingSettings(Section):
    """What a learner's weights depend on, beside its images, targets and initial weights; `training.overrides` may
    change these for some learners.

    Images of an epoch that do not fill a last batch sit that epoch out.
    """

    epochs: Count = 30
    """equal, fixed budget; the best epoch by mean validation AUROC is kept"""
    batch_images: Count = 64
    """effective batch of one update, at every resolution"""
    normalisation: Normalisation = "groups"
    """groups | frozen | synchronised | per_micro_batch, see docs/training.md"""
    norm_group_images: Count = 8
    """images over which batch statistics are taken, whatever the micro-batch; batch_images is a multiple of it"""
    statistics_images: Count = 1024
    """training images from which running statistics are taken before each validation, in whole batches"""
    optimiser: Literal["adam", "adamw"] = "adam"
    """adam (paper) | adamw"""
    learning_rate: Annotated[Real, Range(ge=1e-9, le=10)] = 5.0e-4
    """paper"""
    weight_decay: Annotated[Real, Range(ge=0, le=10)] = 0.0
    """of the optimiser"""
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    """constant | cosine (to zero at the end) | plateau"""
    warmup_epochs: Annotated[Real, Range(ge=0)] = 0.0
    """during which the learning rate grows from almost nothing"""
    plateau_patience: Count = 3
    """epochs without a better mean validation AUROC, then"""
    plateau_factor: OpenFraction = 0.1
    """times the learning rate"""
    early_stopping_patience: Count | None = None
    """null: the whole budget; else stop once the best epoch is so many epochs old: epochs - 2 at most"""
    clip_grad_norm: Annotated[Real, Range(ge=1e-6, le=1e6)] | None = None
    """largest norm of the gradient"""
    ema_decay: OpenFraction | None = None
    """0.999: validate and keep an exponential moving average (EMA) of the weights"""
    label_smoothing: Annotated[Real, Range(ge=0, lt=1)] = 0.0
    """targets 0 and 1 become half of it and 1 less half of it"""
    pos_weight: Literal["none", "balanced"] = "none"
    """of positives in the loss: none | balanced (negatives per positive)"""
    flip_probability: Fraction = 0.5
    """left to right; training only, as is rotation"""
    rotation_degrees: Annotated[Real, Range(ge=0, le=180)] = 15.0
    """uniform within plus and minus"""
    mean: Fraction = 0.449
    """of the grey range 0 to 1"""
    standard_deviation: Annotated[Real, Range(ge=1e-3, le=10)] = 0.226
    """of the grey range 0 to 1"""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """of a GPU, by autocast; pooling and classifier in float32 | float32, without TF32; a CPU computes in float32"""

    def __post_init__(self) -> None:
        if self.normalisation == "groups" and self.batch_images % self.norm_group_images:
            raise ValueError(
                f"batch_images ({self.batch_images}) must be a multiple of norm_group_images ({self.norm_group_images})"
            )

    def check_effects(self) -> None:
        """Raise ValueError if something waits for more epochs than there are: it would be without effect."""
        most = self.epochs - 2  # so old is the best epoch, at most, when there is an epoch left
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs ({self.warmup_epochs:g}) leaves nothing of epochs ({self.epochs}); expected less"
            )
        stop, patience = self.early_stopping_patience, self.plateau_patience
        if stop is not None and stop > most:
            raise ValueError(
                f"early_stopping_patience ({stop}) can stop nothing in {self.epochs} epochs; "
                f"expected at most epochs - 2 ({most}), or null"
            )
        if self.schedule == "plateau" and patience > most:
            raise ValueError(
                f"plateau_patience ({patience}) can lower no learning rate in {self.epochs} epochs; expected "
                f"at most epochs - 2 ({most}), or another schedule than plateau"
            )
        if self.schedule == "plateau" and stop is not None and stop <= patience:
            raise ValueError(
                f"early_stopping_patience ({stop}) stops before plateau_patience "
                f"({patience}) can lower the learning rate; expected more than plateau_patience"
            )


#: Keys of before -> what they are called now.
RENAMED = {
    "plateau_epochs": "plateau_patience",
    "early_stopping_epochs": "early_stopping_patience",
    "clip_norm": "clip_grad_norm",
    "average_decay": "ema_decay",
    "positive_weights": "pos_weight",
    "recompute": "activation_checkpointing",
}

#: Settings that count with one value of another alone: (setting, other setting, its value).
DORMANT = (
    ("norm_group_images", "normalisation", "groups"),
    ("plateau_patience", "schedule", "plateau"),
    ("plateau_factor", "schedule", "plateau"),
)


def _folder(folder: str) -> str:
    if folder.casefold() == "none":
        raise ValueError(f"is the text {folder!r}; write null for no folder, or ./{folder} for one of that name")
    return folder


@dataclass(frozen=True)
class RunSettings(Section):
    """How a training runs; its result depends on none of it but for rounding."""

    micro_batch_images: Count | Auto = "auto"
    """images computed at once; auto: the most that fit, in whole groups"""
    activation_checkpointing: bool | Auto = "auto"
    """activations computed again in the backward pass, for memory; auto: where a group does not fit else"""
    compile: bool = False
    """torch.compile"""
    channels_last: bool | Auto = "auto"
    """memory format: true | false | auto: what is faster on this GPU"""
    workers: Annotated[Whole, Range(ge=0, le=1000)] = 4
    """decoding processes a GPU"""
    checkpoint_s: Count = 600
    """seconds between checkpoints within an epoch; one is written after each epoch too"""
    stage_dir: Annotated[Text, Check(_folder)] | None = None
    """local folder that shards are copied to first, for a store on a network file system"""


def _settings_of_learners(settings: dict[str, Any]) -> dict[str, Any]:
    for key in settings:
        choices = names_of(TrainingSettings)
        if key not in choices:
            hint = f"; it is now called {RENAMED[key]}" if key in RENAMED else nearest(key, choices)
            raise ValueError(f"{key!r} is no setting of a learner{hint}; expected one of {', '.join(choices)}")
    return settings


def _named(some: Any, model: str, resolution_px: int) -> bool:
    return some.model in (None, model) and some.resolution_px in (None, int(resolution_px))


@dataclass(frozen=True)
class TrainingOverride(Section):
    """Settings of some learners, where they differ."""

    settings: Annotated[dict[str, Any], Check(_settings_of_learners)]
    """the settings that differ, by their names in training"""
    model: str | None = None
    """of which model; null: of every one"""
    resolution_px: Pixels | None = None
    """at which resolution; null: at every one"""

    def __post_init__(self) -> None:
        if self.model is None and self.resolution_px is None:
            raise ValueError("names neither model nor resolution_px; what holds for every learner goes into training")
        if not self.settings:
            raise ValueError("settings is empty; give the settings that differ, or remove the override")

    def names(self, model: str, resolution_px: int) -> bool:
        return _named(self, model, resolution_px)

    def described(self) -> str:
        """Whom it names, for messages."""
        return " at ".join(
            filter(None, [self.model or "every model", f"{self.resolution_px} px" if self.resolution_px else None])
        )


@dataclass(frozen=True)
class OverriddenSettings(TrainingSettings):
    """The settings of all learners, with exceptions."""

    overrides: Annotated[list[TrainingOverride], Distinct] = field(default_factory=list)
    """of some learners: [{model: densenet121, resolution_px: 2048, settings: {epochs: 40}}], docs/training.md"""


@dataclass(frozen=True)
class GpusFor(Section):
    """GPUs of some learners, where they differ."""

    gpus: Count
    """that train one learner together, on each node"""
    model: str | None = None
    """of which model; null: of every one"""
    resolution_px: Pixels | None = None
    """at which resolution; null: at every one"""

    def __post_init__(self) -> None:
        if self.model is None and self.resolution_px is None:
            raise ValueError("names neither model nor resolution_px; what holds for every learner is training.gpus")

    def names(self, model: str, resolution_px: int) -> bool:
        return _named(self, model, resolution_px)


@dataclass(frozen=True)
class ProcessSettings(RunSettings):
    """How a training runs, and in how many processes. This changes nothing that comes out, and reruns nothing."""

    gpus: Count = 1
    """that train one learner together, on each node"""
    gpus_for: Annotated[list[GpusFor], Distinct] = field(default_factory=list)
    """of some learners: [{resolution_px: 2048, gpus: 4}, {resolution_px: 1024, gpus: 2}]; the last that fits counts"""
    nodes: Count = 1
    """more than 1: on SLURM, started by srun"""


@dataclass(frozen=True)
class TrainingSection(ProcessSettings, OverriddenSettings):
    """training: controlled, so that the resolution is all that differs between two learners."""
