"""Validation loss and AUROC by epoch, with running statistics as they move along and as they are taken.

python benchmarks/running_statistics.py --json benchmarks/results/running_statistics.json --picture x.png

One learner is trained on synthetic pictures, twice: without and with a moving average of weights. At the end of each
epoch the same weights are validated with statistics that moved at momentum 0.1 with each group of each update, as
training kept them before, and with those taken from a sample of training images, as it keeps them now.
"""

import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from measure import Result, arguments, report
from pictures import make_stores
from torch import nn
from training_checks import NO_ORIGIN

from cxrscale.data.settings import Planted, SyntheticSettings
from cxrscale.data.synthetic import draw
from cxrscale.store.pixels import encode
from cxrscale.store.reader import StoreReader
from cxrscale.train.distributed import Processes
from cxrscale.train.optimisation import masked_loss
from cxrscale.train.record import mean_auroc
from cxrscale.train.settings import RunSettings, TrainingSettings
from cxrscale.train.task import Task
from cxrscale.train.training import Training
from cxrscale.train.update import Updater

PLANTED = {"Edema": Planted("grating", 0.1, 0.35), "Fracture": Planted("line", 0.06, 0.5)}
SIZE_PX, MOMENTUM = 64, 0.1
WAYS = {"raw weights": None, "averaged weights": 0.99}  # decay of the moving average


def pictures(folder: Path, count: int) -> tuple[StoreReader, pd.DataFrame]:
    """A store of synthetic pictures, and their targets: a third validates."""
    settings = SyntheticSettings(count, 2 * SIZE_PX, 2 * SIZE_PX, seed=0, planted=PLANTED)
    shows = np.random.default_rng(0).integers(0, 2, (count, len(PLANTED))).astype(bool)
    (folder / "native").mkdir()
    paths = [folder / "native" / f"{number:04d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        found = dict(zip(PLANTED, map(bool, shows[number]), strict=True))
        path.write_bytes(encode(draw(False, found, settings, number)[0], 95))
    store = make_stores(paths, folder / "stores", [SIZE_PX])[SIZE_PX]
    targets = pd.DataFrame({"image_id": [path.stem for path in paths]})
    targets["split"] = np.where(np.arange(count) % 3 == 2, "validate", "train")
    for column, finding in enumerate(PLANTED):
        targets[f"target:{finding}"], targets[f"mask:{finding}"] = shows[:, column].astype(int), 1
    return store, targets


class Moving:
    """Running statistics that move once an update, by its groups, as far as a step of each would move them."""

    def __init__(self, model: nn.Module) -> None:
        self.norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        self.kept = [[norm.running_mean.clone(), norm.running_var.clone()] for norm in self.norms]
        self.seen: dict[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]] = {norm: [] for norm in self.norms}
        for norm in self.norms:
            norm.register_forward_pre_hook(self._note)

    def _note(self, norm: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if norm.training and torch.is_grad_enabled():
            for group in given[0].detach().split(norm.division.group_images):
                variance, mean = torch.var_mean(group, (0, 2, 3))
                self.seen[norm].append((mean, variance))

    def step(self) -> None:
        for norm, kept in zip(self.norms, self.kept, strict=True):
            share = 1 - (1 - MOMENTUM) ** len(self.seen[norm])
            for running, found in zip(kept, zip(*self.seen[norm], strict=True), strict=True):
                running.lerp_(torch.stack(found).mean(0), share)
            self.seen[norm].clear()

    @torch.no_grad()
    def use(self) -> None:
        for norm, (mean, variance) in zip(self.norms, self.kept, strict=True):
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)


def curves(
    store: StoreReader, targets: pd.DataFrame, folder: Path, model: str, settings: TrainingSettings
) -> pd.DataFrame:
    """Loss and mean AUROC on validate by epoch, with both kinds of statistics."""
    run = RunSettings(micro_batch_images=16, activation_checkpointing=False, channels_last=True, workers=0)
    task = Task(folder, model, SIZE_PX, 0, settings, run, targets, store, None, NO_ORIGIN)
    folder.mkdir()
    training = Training(task, Processes(0, 1, torch.device("cpu")))
    moving, rows = Moving(training.updater.model), []
    update, take, validate = Updater.update, Training._take_statistics, Training._validate

    def updated(self: Updater, *given: object) -> object:
        found = update(self, *given)  # type: ignore[arg-type]
        moving.step()
        return found

    def noted(self: Training, statistics: str) -> None:
        logits, known = validate(self), self.validate
        loss = masked_loss(torch.from_numpy(logits), known.target, known.mask, float(known.mask.sum()))
        score = mean_auroc(logits, known.target.numpy(), known.mask.numpy())
        rows.append((self.state.epoch + 1, statistics, float(loss), score))

    def both(self: Training) -> None:
        moving.use()
        noted(self, "moved along")
        take(self)
        noted(self, "taken")

    with (
        patch.object(Updater, "update", updated),
        patch.object(Training, "_take_statistics", both),
        training.writer,
    ):
        training.run()
    return pd.DataFrame(rows, columns=["epoch", "statistics", "loss", "auroc"])


def drawn(found: dict[str, pd.DataFrame], path: Path) -> None:
    """Loss above, AUROC below; a column a way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots(2, len(found), sharex=True, sharey="row", squeeze=False)
    for column, (way, frame) in enumerate(found.items()):
        for row, (value, name) in enumerate((("loss", "validation loss"), ("auroc", "mean validation AUROC"))):
            axis = axes[row, column]
            for statistics, marker in (("moved along", "o--"), ("taken", "o-")):
                part = frame[frame["statistics"] == statistics]
                axis.plot(part["epoch"], part[value], marker, ms=3, label=f"statistics {statistics}")
            if value == "loss":
                axis.set_yscale("log")
                axis.set_title(way)
            if column == 0:
                axis.set_ylabel(name)
    axes[0, 0].legend()
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--model", default="test_resnet", help="as timm calls it")
    parser.add_argument("--learning-rate", type=float, default=TrainingSettings.learning_rate)
    parser.add_argument("--picture", type=Path, help="draw the curves into this .png")
    given = parser.parse_args()
    torch.set_num_threads(1)
    count, epochs = (96, 2) if given.quick else (768, given.epochs)
    found = {}
    with tempfile.TemporaryDirectory() as name:
        store, targets = pictures(Path(name), count)
        for way, decay in WAYS.items():
            settings = TrainingSettings(epochs=epochs, learning_rate=given.learning_rate, ema_decay=decay)
            found[way] = curves(store, targets, Path(name) / way, given.model, settings)
    results = []
    for way, frame in found.items():
        for statistics, part in frame.groupby("statistics"):
            best = part.loc[part["auroc"].idxmax()]
            results += [
                Result(f"{way}, statistics {statistics}: loss, last epoch", float(part["loss"].iloc[-1]), ""),
                Result(f"{way}, statistics {statistics}: loss, median over epochs", float(part["loss"].median()), ""),
                Result(f"{way}, statistics {statistics}: loss, worst epoch", float(part["loss"].max()), ""),
                Result(f"{way}, statistics {statistics}: best mean AUROC", float(best["auroc"]), ""),
                Result(f"{way}, statistics {statistics}: best epoch", float(best["epoch"]), ""),
            ]
    if given.picture:
        drawn(found, given.picture)
    report(results, given.json)


if __name__ == "__main__":
    main()
