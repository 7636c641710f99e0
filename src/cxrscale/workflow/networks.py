"""The networks of a study, and how each of its learners is trained."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ValidationError

from cxrscale.common import settings as kinds
from cxrscale.common.settings import Name, Range, Section, Sha256, chosen, names_of
from cxrscale.train import needs
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
            self._check_synchronised(learner, has)
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

    def _check_synchronised(self, learner: tuple[str, int], has: TrainingSettings) -> None:
        """Raise ValueError if GPUs that normalise together cannot share a learner's batch."""
        gpus = self.gpus_of(*learner) * self.nodes
        if has.normalisation != "synchronised" or gpus == 1:
            return
        where = f"training: normalisation synchronised, of {learner[0]} at {learner[1]} px on {gpus} GPUs,"
        if self.activation_checkpointing is True:
            raise ValueError(f"{where} goes with activation_checkpointing auto or false, or choose groups")
        if has.batch_images % gpus:
            raise ValueError(f"{where} needs batch_images ({has.batch_images}) to be a multiple of the GPUs")

    def threads_a_gpu(self, accelerator: str) -> int:
        """Processes that torchrun starts on a node share its threads; a task of srun, one a GPU, has its own."""
        return 1 if accelerator == "cpu" else self.workers + 1

    def gpus_of(self, model: str, resolution_px: int) -> int:
        """GPUs on each node that train a learner: the last of gpus_for that names it, else training.gpus."""
        named = [some.gpus for some in self.gpus_for if some.names(model, resolution_px)]
        return named[-1] if named else self.gpus

    def threads_of(self, accelerator: str, model: str, resolution_px: int) -> int:
        """Threads of the rule that trains a learner."""
        on_each = self.gpus_of(model, resolution_px) if self.nodes == 1 else 1
        return self.threads_a_gpu(accelerator) * on_each

    def resources_of(self, accelerator: str, model: str, resolution_px: int) -> dict[str, Any]:
        """Resources of the rule that trains a learner, by which its processes start together; the same names for all.

        processes: on each node. gpu: on all nodes together, which is what the executor asks for.
        """
        threads, on_each = self.threads_a_gpu(accelerator), self.gpus_of(model, resolution_px)
        resources = {
            "gpu": on_each * self.nodes if accelerator == "cuda" else 0,
            "processes": on_each,
            "training_nodes": self.nodes,
            # Said to the executor: of four GPUs SLURM may give two on each of two nodes.
            "nodes": self.nodes,
        }
        if self.nodes == 1:
            return resources | {"launcher": ""}
        return resources | {
            # A step of srun inherits neither the CPUs of a task nor how many tasks a node has. Where a process fails,
            # the others would wait for it until their patience ends.
            "launcher": f"srun --kill-on-bad-exit=1 -n {self.nodes * on_each} --ntasks-per-node={on_each} -c {threads}",
            "mpi": "srun",
            # The executor refuses one task per node, and asks for so many `tasks` a GPU unless tasks_per_gpu is 0.
            "tasks_per_node": on_each if on_each > 1 else 0,
            "tasks": self.nodes if on_each == 1 else 0,
            "tasks_per_gpu": 0,
            # As many GPUs on each node: of four in all SLURM may give three on one.
            **({"gres": f"gpu:{on_each}"} if accelerator == "cuda" else {}),
        }

    def memory_mb(self, accelerator: str, model: str, resolution_px: int) -> int:
        """Memory of the job that trains a learner, on each node."""
        on_each = self.gpus_of(model, resolution_px)
        has, micro = self.settings_of(model, resolution_px), self.micro_batch_images
        unit = needs.unit_images(has.normalisation, has.norm_group_images, micro)
        share = needs.largest_share(has.batch_images, on_each * self.nodes, unit)
        images = needs.images_at_once(has.normalisation, share, unit, micro, accelerator)
        side, bytes_a_pixel = int(resolution_px), needs.pixel_bytes(accelerator)
        return needs.host_memory_mb(on_each, self.workers, images, side, bytes_a_pixel)

    def resources_by_learner(self, accelerator: str) -> dict[str, Callable[[Any], Any]]:
        """The names of `resources_of`, each with a function of Snakemake's wildcards."""

        def of_learner(name: str) -> Callable[[Any], Any]:
            return lambda wildcards: self.resources_of(accelerator, wildcards.model, wildcards.resolution)[name]

        return {name: of_learner(name) for name in self.resources_of(accelerator, "", 0)}
