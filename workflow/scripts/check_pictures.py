"""Whether the store's pictures fit what the study asks of them, before anything is trained; doubts are noted."""

from pathlib import Path

from cxrscale.common import notes, tables
from cxrscale.common.joblog import job
from cxrscale.data.boxes import boxes_by_pair, read_boxes
from cxrscale.data.contracts import TARGETS
from cxrscale.data.spelling import Reading
from cxrscale.evaluate.levels import check_native, notes_on_views
from cxrscale.store.bits import notes_on_bits
from cxrscale.store.contracts import INDEX

with job(snakemake.log[0], __file__) as log:
    params = snakemake.params
    index = tables.read(INDEX, snakemake.input.index)
    native_px = index.set_index("image_id")["native_px"]
    found = notes_on_bits(index)
    for of_fold in snakemake.input.targets:
        targets = tables.read(TARGETS, of_fold)
        if params.excluded_below_px:
            found += check_native(targets, native_px, params.excluded_below_px, "store.upscale (exclude)")
        test = targets[(targets["split"] == "test") & targets["image_id"].isin(native_px.index)]
        if params.compared_from_px:
            found += check_native(test, native_px, params.compared_from_px, "comparison.native_at_least_px")
        if params.by_view:
            found += notes_on_views(test["view"])
    if boxes_file := snakemake.config["boxes_file"]:
        boxes_by_pair(read_boxes(Path(boxes_file), Reading(params.exact_ids)), index, params.geometry)
    notes.write(dict.fromkeys(found), snakemake.output[0])
