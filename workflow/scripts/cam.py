"""Class activation maps of one learner on the test images that all learners of the fold share."""

from pathlib import Path

import numpy as np
import torch

from cxrscale import atomic, tables
from cxrscale.augmentation import normalise
from cxrscale.cam import class_activation_maps, select_images
from cxrscale.devices import leased
from cxrscale.findings import TARGETS
from cxrscale.joblog import job
from cxrscale.models import load_learner
from cxrscale.store.reader import StoreReader
from cxrscale.training import to_float

with job(snakemake.log[0], __file__) as log, leased(snakemake.config["accelerator"]):
    torch.set_num_threads(snakemake.threads)
    device = torch.device(snakemake.config["accelerator"])
    targets = tables.read(TARGETS, snakemake.input.targets)
    findings = TARGETS.findings(targets.columns)
    store = StoreReader(Path(snakemake.input.manifest).parent, snakemake.params.native_at_least_px)
    chosen = select_images(
        targets, {i for i in targets["image_id"] if i in store}, findings, snakemake.params.images_per_finding
    )
    model = load_learner(snakemake.wildcards.model, len(findings), snakemake.input.weights, device)
    maps, pictures = [], []
    for row in chosen.itertuples():
        pixels = store[row.image_id]
        x = to_float(torch.from_numpy(pixels)[None, None], device)
        x = normalise(x, snakemake.params.mean, snakemake.params.standard_deviation)
        maps.append(class_activation_maps(model, x, [findings.index(row.finding)])[0])
        pictures.append(pixels)
    with atomic.replacing(snakemake.output[0]) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(
            handle,
            finding=chosen["finding"].to_numpy(dtype=str),
            image_id=chosen["image_id"].to_numpy(dtype=str),
            maps=np.array(maps),
            pictures=np.array(pictures),
        )
    log.info("%d maps", len(maps))
