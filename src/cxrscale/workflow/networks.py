"""The networks of a study, and how each of its learners is trained."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ValidationError

from cxrscale.common import settings as kinds
from cxrscale.common.settings import Name, Range, Section, Sha256, chosen, names_of
from cxrscale.train.settings import DORMANT, RunSettings, TrainingOverride, TrainingSection, TrainingSettings
from cxrscale.workflow.validation import adapter, explain


@dataclass(frozen=True)
class TimmTag(Section):
    """Initial weights by a tag of timm."""

    timm_tag: Name
    """a pretrained tag of the model, as tv_in1k"""
    sha256: Sha256 | None = None
    """of the weights as safetensors; null: recorded at the first fetch, then checked"""


@dataclass(frozen=True)
class LocalWeights(Section):
    """Initial weights from a file."""

    file: kinds.Path
    """must exist; its copy may stand for it once sha256 is given"""
    sha256: Sha256 | None = None
    """of the weights as safetensors; null: recorded at the first fetch, then checked"""


@dataclass(frozen=True)
class Model(Section):
    """A network."""

    name: Annotated[str, Range(pattern=r"^[a-zA-Z0-9_]+$", max_length=100)]
    """of timm"""
    weights: TimmTag | LocalWeights | None = None
    """{timm_tag: tv_in1k, sha256: null}: ImageNet's; or {file: /path/to/weights.safetensors}; null: random"""


@dataclass(frozen=True)
class TrainingPlan(TrainingSection):
    """training: controlled, so that the resolution is all that differs between two learners."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_effects()

    def settings_of(self, model: str, resolution_px: int) -> TrainingSettings:
        """A learner's settings: the overrides that name it laid over the others in order.

        Raises ValueError that names the learner if it could not be trained with them.
        """
        return self._with(self.overrides, model, resolution_px)

    def _with(self, overrides: Iterable[TrainingOverride], model: str, resolution_px: int) -> TrainingSettings:
        values = chosen(self, *names_of(TrainingSettings))
        for override in overrides:
            if override.names(model, resolution_px):
                values |= override.settings
        try:
            settings: TrainingSettings = adapter(TrainingSettings).validate_python(values)
            settings.check_effects()
            return settings
        except ValidationError as error:
            wrong = "; ".join(line.strip() for line in explain(error, TrainingSettings))
        except ValueError as error:
            wrong = str(error)
        raise ValueError(f"training.overrides: with them {model} at {resolution_px} px has {wrong}")

    def _has(self, overrides: Iterable[TrainingOverride], model: str, resolution_px: int) -> TrainingSettings | None:
        """As `_with`; None where the learner could not be trained."""
        try:
            return self._with(overrides, model, resolution_px)
        except ValueError:
            return None

    def of_learner(self, model: str, resolution_px: int) -> dict[str, Any]:
        """What the weights of a learner depend on: its settings that are not at their default, so that a setting that
        is added later changes no learner that exists."""
        return kinds.not_default(self.settings_of(model, resolution_px))

    def micro_batch_of(self, model: str, resolution_px: int) -> int:
        """micro_batch_images where it counts as a setting of the learner, else 0."""
        counts = self.settings_of(model, resolution_px).normalisation == "per_micro_batch"
        return int(self.micro_batch_images) if counts else 0

    def run(self) -> dict[str, Any]:
        """How a training runs: the fields of RunSettings."""
        return chosen(self, *names_of(RunSettings))

    def check_learners(self, learners: Iterable[tuple[str, int]]) -> None:
        """Raise ValueError if a (model, resolution) cannot be trained, or if an override changes none of them."""
        learners = list(learners)
        settings = [self.settings_of(*learner) for learner in learners]
        for learner, has in zip(learners, settings, strict=True):
            if has.normalisation == "per_micro_batch" and self.micro_batch_images == "auto":
                raise ValueError(
                    f"training: normalisation per_micro_batch, of {learner[0]} at {learner[1]} px, makes "
                    "micro_batch_images a setting: give a number"
                )
        for place, override in enumerate(self.overrides):
            where = f"training.overrides.{place} ({override.described()})"
            others = [o for i, o in enumerate(self.overrides) if i != place]
            if all(self._has(others, *x) == has for x, has in zip(learners, settings, strict=True)):
                raise ValueError(
                    f"{where} changes nothing: its learners have these values without it, or a later override hides "
                    "them; remove it, or correct its settings"
                )
            named = [has for x, has in zip(learners, settings, strict=True) if override.names(*x)]
            for key, other, value in DORMANT:
                if key in override.settings and all(getattr(has, other) != value for has in named):
                    raise ValueError(
                        f"{where} sets {key}, which counts with {other} {value} alone; its learners have "
                        f"{getattr(named[0], other)}. Remove {key}, or set {other} too"
                    )

    def threads_a_gpu(self, accelerator: str) -> int:
        """Processes that torchrun starts on a node share its threads; a task of srun, one a GPU, has its own."""
        return 1 if accelerator == "cpu" else self.workers + 1

    def start(self, accelerator: str) -> dict[str, Any]:
        """threads and resources of the rule that trains, by which the processes of one training start together."""
        threads, on_each = self.threads_a_gpu(accelerator), self.gpus
        if self.nodes == 1:
            return {"threads": threads * on_each, "resources": {"launcher": ""}}
        several = {
            # A step of srun inherits neither the CPUs of a task nor how many tasks a node has.
            "launcher": f"srun -n {self.nodes * on_each} --ntasks-per-node={on_each} -c {threads}",
            "mpi": "srun",
            "nodes": self.nodes,
            # The executor refuses one task per node, and asks for so many `tasks` a GPU unless tasks_per_gpu is 0.
            **({"tasks_per_node": on_each} if on_each > 1 else {"tasks": self.nodes, "tasks_per_gpu": 0}),
            # As many GPUs on each node: of four in all SLURM may give three on one.
            **({"gres": f"gpu:{on_each}"} if accelerator == "cuda" else {}),
        }
        return {"threads": threads, "resources": several}
