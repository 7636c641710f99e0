"""Logits of one learner on validate, combine and test."""

from pathlib import Path

import torch

from cxrscale import tables
from cxrscale.devices import leased
from cxrscale.findings import TARGETS
from cxrscale.joblog import job
from cxrscale.models import load_learner
from cxrscale.predictions import PREDICTIONS, predictions_frame
from cxrscale.store.reader import StoreReader
from cxrscale.store.staging import staged
from cxrscale.training import predict_logits, prediction_batch

if __name__ == "__main__":  # worker processes import this file
    with job(snakemake.log[0], __file__) as log, leased(snakemake.config["accelerator"]):
        torch.set_num_threads(snakemake.threads)
        device = torch.device(snakemake.config["accelerator"])
        targets = tables.read(TARGETS, snakemake.input.targets)
        findings = TARGETS.findings(targets.columns)
        folder = staged(Path(snakemake.input.manifest).parent, snakemake.config["training"]["stage_dir"])
        store = StoreReader(folder, snakemake.params.native_at_least_px)
        chosen = targets[(targets["split"] != "train") & targets["image_id"].map(store.__contains__)]
        chosen = chosen.iloc[store.rows(list(chosen["image_id"])).argsort()]  # as they lie in the store
        rows = store.rows(list(chosen["image_id"]))
        model = load_learner(snakemake.wildcards.model, len(findings), snakemake.input.weights, device)
        logits = predict_logits(
            model,
            store,
            rows,
            snakemake.params.mean,
            snakemake.params.standard_deviation,
            device,
            batch_images=prediction_batch(int(snakemake.wildcards.resolution)),
            workers=snakemake.config["training"]["workers"],
        )
        tables.write(
            PREDICTIONS, predictions_frame(chosen, store.native_px[rows], logits, findings), snakemake.output[0]
        )
        log.info("%d images", len(chosen))
