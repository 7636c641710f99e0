"""How well the activation maps of one learner point into the boxes of its test images."""

from pathlib import Path

import torch

from cxrscale.common import tables
from cxrscale.common.devices import leased
from cxrscale.common.joblog import job
from cxrscale.common.rows import ALL_FINDINGS, ALL_SIZES
from cxrscale.data.boxes import boxes_by_pair, read_boxes
from cxrscale.data.contracts import TARGETS
from cxrscale.data.spelling import Reading
from cxrscale.explain.cam import maps_of_pairs, select_boxed
from cxrscale.explain.contracts import LOCALISATION
from cxrscale.explain.localisation import measure_maps, summarise
from cxrscale.store.contracts import INDEX
from cxrscale.train.learner import Learner

with job(snakemake.log[0], __file__) as log, leased(snakemake.config["accelerator"]):
    torch.set_num_threads(snakemake.threads)
    params = snakemake.params
    targets = tables.read(TARGETS, snakemake.input.targets)
    learner = Learner.load(Path(snakemake.input.learner).parent, torch.device(snakemake.config["accelerator"]))
    store = learner.pictures(snakemake.input.index)
    index = tables.read(INDEX, snakemake.input.index, ["image_id", "native_height_px", "native_width_px"])
    # Those of a synthetic data set are made here and an input; others count by their content, a param.
    boxes = read_boxes(Path(snakemake.config["boxes_file"]), Reading(params.exact_ids))
    by_pair = boxes_by_pair(boxes, index, learner.record.geometry)
    in_store = {i for i in targets["image_id"] if i in store}
    chosen = select_boxed(targets, in_store, by_pair, params.images_per_finding)
    drawn = maps_of_pairs(learner, store, chosen, params.method)
    measured = measure_maps(chosen, (map_ for _, map_ in drawn), by_pair)
    table = summarise(measured, learner.findings, params.box_sizes, params.confidence)
    tables.write(LOCALISATION, table, snakemake.output[0])
    log.info("%d boxes; %s images with a finding and a box", len(boxes), chosen["split"].value_counts().to_dict())
    for row in table[(table["finding"] == ALL_FINDINGS) & (table["size"] == ALL_SIZES)].itertuples():
        log.info("%s: %.3f, best %.3f, chance %.3f", row.measure, row.value, row.best, row.chance)
