"""Draw the figures and write the report, its summary and the local page with pictures."""

import json
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from cxrscale.combine.contracts import CONTROL, GAINS, STACKED, WEIGHTS
from cxrscale.common import atomic, tables
from cxrscale.common.joblog import job
from cxrscale.common.notes import NOTES
from cxrscale.data.boxes import boxes_path, read_boxes
from cxrscale.data.findings import TARGETS
from cxrscale.data.spelling import Reading
from cxrscale.evaluate.comparison import AVERAGES, DIFFERENCES, LEVELS, SUFFICIENT
from cxrscale.evaluate.metrics import METRICS
from cxrscale.explain.field_effect import FIELD_EFFECT, FIELD_POINTS
from cxrscale.explain.field_size import FIELDS
from cxrscale.explain.localisation import LOCALISATION
from cxrscale.report.content import KEY, ReportSettings, Results
from cxrscale.report.explaining import draw_activation
from cxrscale.report.figures import ActivationMaps, save, shrink
from cxrscale.report.page import draw_figures, render_local, render_report, summary_lines
from cxrscale.store.fidelity import SUMMARY
from cxrscale.store.quarantine import QUARANTINE
from cxrscale.store.shards import MANIFEST

with job(snakemake.log[0], __file__) as log:
    matplotlib.use("Agg")
    settings = tables.settings_from(ReportSettings, snakemake.params.settings)
    keys = [tuple(key) for key in snakemake.params.learners]
    inputs = snakemake.input

    def of_learners(frames):
        """One frame of all learners', each row with its learner."""
        parts = [f.assign(**dict(zip(KEY, key, strict=True))) for key, f in zip(keys, frames, strict=True)]
        return pd.concat([p for p in parts if len(p)], ignore_index=True)

    # Maps are as large as the input: one at a time, averaged over folds and seeds, brought to a size that can be drawn.
    field_maps = {}
    for (model, resolution, _, _), path in zip(keys, inputs.field_maps, strict=True):
        states = field_maps.setdefault((model, resolution), {})
        with np.load(path) as maps:
            for state in maps.files:
                map_ = shrink(maps[state])
                states[state] = states.get(state, 0) + map_ / map_.sum()
    activation = []
    for (model, resolution, fold, seed), path in zip(keys, inputs.activation, strict=True):
        if (fold, seed) == keys[0][2:]:
            with np.load(path) as cam:
                pictures = np.array([shrink(picture) for picture in cam["pictures"]])
                findings, image_ids = cam["finding"].tolist(), cam["image_id"].tolist()
                activation.append(ActivationMaps(model, resolution, findings, image_ids, cam["maps"], pictures))

    boxes_file = boxes_path(inputs.boxes, snakemake.config)

    results = Results(
        learners=pd.DataFrame(keys, columns=KEY),
        levels=tables.read(LEVELS, inputs.levels),
        averages=tables.read(AVERAGES, inputs.averages),
        differences=tables.read(DIFFERENCES, inputs.differences),
        sufficient=tables.read(SUFFICIENT, inputs.sufficient),
        weights=tables.read(WEIGHTS, inputs.weights),
        stacked=tables.read(STACKED, inputs.stacked),
        gains=tables.read(GAINS, inputs.gains),
        control=tables.read(CONTROL, inputs.control),
        metrics=of_learners([tables.read(METRICS, path) for path in inputs.metrics]),
        history=of_learners([pd.read_csv(path) for path in inputs.history]),
        fields=of_learners([tables.read(FIELDS, path) for path in inputs.fields]),
        field_points=tables.read(FIELD_POINTS, inputs.field_points),
        field_effect=tables.read(FIELD_EFFECT, inputs.field_effect),
        costs=[json.loads(Path(path).read_text(encoding="utf-8")) for path in inputs.cost],
        field_maps=field_maps,
        activation=activation,
        targets={
            fold: tables.read(TARGETS, path) for fold, path in zip(snakemake.params.folds, inputs.targets, strict=True)
        },
        notes=pd.concat([tables.read(NOTES, path) for path in inputs.notes], ignore_index=True).drop_duplicates(),
        quarantine=tables.read(QUARANTINE, inputs.quarantine),
        manifest=tables.read(
            MANIFEST, inputs.manifest, ["image_id", "native_height_px", "native_width_px", "native_px", "native_bits"]
        ),
        stores=pd.concat([tables.read(SUMMARY, path) for path in inputs.stores]),
        planted=pd.read_csv(inputs.planted, dtype={"finding": str}) if inputs.planted else None,
        boxes=read_boxes(boxes_file, Reading(snakemake.params.exact_ids)) if boxes_file else None,
        localisation=(
            of_learners([tables.read(LOCALISATION, path) for path in inputs.localisation])
            if inputs.localisation
            else None
        ),
    )

    drawn = draw_figures(results, settings) | {"cam": draw_activation(results, settings)}
    figure_paths = {name: Path(snakemake.output[name]) for name in drawn}
    for name, figure in drawn.items():
        save(figure, figure_paths[name])
    atomic.write_text(snakemake.output.report, render_report(results, settings, figure_paths))
    atomic.write_text(snakemake.output.local, render_local(results, settings, figure_paths["cam"]))
    lines = summary_lines(results, settings, snakemake.output.report)
    atomic.write_text(snakemake.output.summary, "".join(f"{line}\n" for line in lines))
    for line in lines:
        log.info("%s", line)
