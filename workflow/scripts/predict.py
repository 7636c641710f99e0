"""Logits of one learner on validate, combine and test."""

from pathlib import Path

import torch

from cxrscale.common import tables
from cxrscale.common.devices import leased
from cxrscale.common.joblog import job
from cxrscale.data.contracts import TARGETS
from cxrscale.evaluate.contracts import PREDICTIONS
from cxrscale.evaluate.predictions import predictions_frame
from cxrscale.store.staging import staged
from cxrscale.train.learner import Learner

if __name__ == "__main__":  # worker processes import this file
    with job(snakemake.log[0], __file__) as log, leased(snakemake.config["accelerator"]):
        torch.set_num_threads(snakemake.threads)
        targets = tables.read(TARGETS, snakemake.input.targets)
        learner = Learner.load(Path(snakemake.input.learner).parent, torch.device(snakemake.config["accelerator"]))
        index = Path(snakemake.input.index)
        folder = staged(index.parent, snakemake.config["training"]["stage_dir"])
        store = learner.pictures(folder / index.name)
        chosen = targets[(targets["split"] != "train") & targets["image_id"].map(store.__contains__)]
        chosen = chosen.iloc[store.rows(list(chosen["image_id"])).argsort()]  # as they lie in the store
        rows = store.rows(list(chosen["image_id"]))
        logits = learner.predict(store, rows, snakemake.config["training"]["workers"])
        table = predictions_frame(chosen, store.native_px[rows], logits, learner.findings)
        tables.write(PREDICTIONS, table, snakemake.output[0])
        log.info("%d images", len(chosen))
