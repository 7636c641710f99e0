"""The tables of stage train."""

from cxrscale.common.places import LEARNER_FOLDER
from cxrscale.common.tables import Column, Table

HISTORY = Table(
    name="history",
    file=f"{LEARNER_FOLDER}/history.csv",
    made_by="`train.training`, an epoch at a time",
    shown=True,
    row="an epoch of a training",
    columns=(
        Column("epoch", "int32", "number of the epoch, from 1"),
        Column("train_loss", "float64", "mean binary cross-entropy of the epoch's updates, in nats"),
        Column("validation_loss", "float64", "mean binary cross-entropy on validate, in nats, without weights"),
        Column("validation_auroc", "float64", "mean AUROC on validate", null="no finding has both classes there"),
        Column("learning_rate", "float64", "of the epoch's last update"),
        Column("seconds", "float64", "spent in the epoch, validation included, over all attempts"),
        Column("images_per_second", "float64", "trained on, validation's time included"),
        Column("loader_wait_fraction", "float64", "share of the seconds that training waited for pictures"),
    ),
    key=("epoch",),
)
