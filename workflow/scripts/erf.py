"""Effective receptive fields of one learner, before training and after."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cxrscale.common import atomic, tables
from cxrscale.common.devices import leased
from cxrscale.common.joblog import job
from cxrscale.data.contracts import TARGETS
from cxrscale.explain.contracts import ERF
from cxrscale.explain.field_size import NO_FIELD, field_rows
from cxrscale.explain.receptive_field import receptive_fields
from cxrscale.train.learner import Learner
from cxrscale.train.loader import decoded_batches, select_examples
from cxrscale.train.statistics import take_statistics

#: Pixels differentiated at once, a matter of memory alone.
PIXELS = 8 * 512**2

with job(snakemake.log[0], __file__) as log, leased(snakemake.config["accelerator"]):
    torch.set_num_threads(snakemake.threads)
    targets = tables.read(TARGETS, snakemake.input.targets)
    learner = Learner.load(Path(snakemake.input.learner).parent, torch.device(snakemake.config["accelerator"]))
    store = learner.pictures(snakemake.input.index)
    rows = select_examples(targets, store, "validate").rows[: snakemake.params.images]

    def batches(n):
        for pixels in decoded_batches(store, [rows[i : i + n] for i in range(0, len(rows), n)], workers=0):
            yield learner.prepared(pixels)

    def before_training(weights):
        # Weights come with batch statistics of nothing or of photographs; with those of the images, as in training's
        # first update, the states differ in nothing but weights.
        before = learner.untrained(weights)
        take_statistics(before.network, batches(learner.record.norm_group_images))
        return before

    states = {"random": before_training(None)}
    if snakemake.input.initial:
        states["pretrained"] = before_training(snakemake.input.initial)
    states["trained"] = learner

    at_once = max(1, min(learner.record.norm_group_images, PIXELS // (store.shape[0] * store.shape[1] or 1)))
    maps, sizes = {}, []
    for state, then in states.items():
        # The head speaks for findings once it is trained.
        evidence = learner.evidence if state == "trained" else None
        named = learner.findings if state == "trained" else []
        fields = receptive_fields(then.features, batches(at_once), evidence)
        sizes += field_rows(state, named, fields, len(rows))
        if fields[0] is None:
            log.warning("%s: no receptive field, %s", state, NO_FIELD)
        else:
            maps[state] = fields[0].energy
    frame = pd.DataFrame(sizes, columns=[c.name for c in ERF.columns])
    tables.write(ERF, frame, snakemake.output.sizes)
    with atomic.replacing(snakemake.output.maps) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **{state: map_.astype(np.float32) for state, map_ in maps.items()})
