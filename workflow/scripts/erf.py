"""Effective receptive field of one learner, before training and after."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cxrscale import atomic, tables
from cxrscale.augmentation import normalise
from cxrscale.devices import leased
from cxrscale.findings import TARGETS
from cxrscale.joblog import job
from cxrscale.loader import decoded_batches, select_examples
from cxrscale.models import build_model, calibrate_batch_norm, feature_map, load_learner
from cxrscale.receptive_field import FIELDS, effective_receptive_field, field_size
from cxrscale.store.reader import StoreReader
from cxrscale.training import to_float

with job(snakemake.log[0], __file__) as log, leased(snakemake.config["accelerator"]):
    torch.set_num_threads(snakemake.threads)
    device = torch.device(snakemake.config["accelerator"])
    targets = tables.read(TARGETS, snakemake.input.targets)
    n_findings = len(TARGETS.findings(targets.columns))
    store = StoreReader(Path(snakemake.input.manifest).parent, snakemake.params.native_at_least_px)
    rows = select_examples(targets, store, "validate").rows[: snakemake.params.images]

    def batches():
        groups = [
            rows[i : i + snakemake.params.norm_group_images]
            for i in range(0, len(rows), snakemake.params.norm_group_images)
        ]
        for pixels in decoded_batches(store, groups, workers=0):
            yield normalise(to_float(pixels, device), snakemake.params.mean, snakemake.params.standard_deviation)

    name, seed = snakemake.wildcards.model, int(snakemake.wildcards.seed)
    weights = snakemake.input.initial or None
    initial = build_model(name, n_findings, seed, weights).to(device)
    if weights is None:
        # Random weights come with batch statistics of nothing; give them those of the images.
        calibrate_batch_norm(initial, batches())
    states = {
        "initial": initial.eval(),
        "trained": load_learner(name, n_findings, snakemake.input.weights, device),
    }
    maps, sizes = {}, []
    for state, model in states.items():
        maps[state] = effective_receptive_field(lambda x, model=model: feature_map(model, x), batches())
        size = field_size(maps[state])
        width = maps[state].shape[1]
        sizes.append(
            {
                "state": state,
                "sigma_px": size.sigma_px,
                "sigma_fraction": size.sigma_px / width,
                "radius50_px": size.radius50_px,
                "radius50_fraction": size.radius50_px / width,
                "centroid_x_px": size.centroid_px[0],
                "centroid_y_px": size.centroid_px[1],
                "n_images": len(rows),
            }
        )
        log.info("%s: sigma %.1f px, %.3f of the width", state, size.sigma_px, size.sigma_px / width)
    tables.write(FIELDS, pd.DataFrame(sizes), snakemake.output.sizes)
    with atomic.replacing(snakemake.output.maps) as temporary, temporary.open("wb") as handle:
        np.savez_compressed(handle, **{state: map_.astype(np.float32) for state, map_ in maps.items()})
