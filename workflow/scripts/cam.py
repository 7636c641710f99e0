"""Class activation maps of one learner on the test images that all learners of the fold share."""

from pathlib import Path

import numpy as np
import torch

from cxrscale.common import atomic, tables
from cxrscale.common.devices import leased
from cxrscale.common.joblog import job
from cxrscale.data.contracts import TARGETS
from cxrscale.explain.cam import maps_of_pairs, select_images
from cxrscale.train.learner import Learner

with job(snakemake.log[0], __file__) as log, leased(snakemake.config["accelerator"]):
    torch.set_num_threads(snakemake.threads)
    params = snakemake.params
    targets = tables.read(TARGETS, snakemake.input.targets)
    learner = Learner.load(Path(snakemake.input.learner).parent, torch.device(snakemake.config["accelerator"]))
    store = learner.pictures(snakemake.input.index)
    in_store = {i for i in targets["image_id"] if i in store}
    chosen = select_images(targets, in_store, learner.findings, params.images_per_finding)
    drawn = list(maps_of_pairs(learner, store, chosen, params.method))
    with atomic.replacing(snakemake.output[0]) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(
            handle,
            finding=chosen["finding"].to_numpy(dtype=str),
            image_id=chosen["image_id"].to_numpy(dtype=str),
            maps=np.array([map_ for _, map_ in drawn]),
            pictures=np.array([picture.copy() for picture, _ in drawn]),
        )
    log.info("%d maps", len(drawn))
