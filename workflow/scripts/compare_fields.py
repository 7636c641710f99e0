"""Whether findings that need a wide field prefer low resolution."""

import pandas as pd

from cxrscale.common import tables
from cxrscale.common.joblog import job
from cxrscale.common.rows import ALL_CHANNELS
from cxrscale.evaluate.contracts import DIFFERENCES
from cxrscale.explain.contracts import ERF, FIELD_EFFECT, FIELD_POINTS
from cxrscale.explain.field_effect import field_effect, field_points

with job(snakemake.log[0], __file__) as log:
    params = snakemake.params
    fields = pd.concat(
        [
            tables.read(ERF, path).assign(model=model)
            for model, path in zip(params.models, snakemake.input.fields, strict=True)
        ]
    )
    names = ["model", "finding", "resolution_px", "against_px", "difference"]
    differences = tables.read(DIFFERENCES, snakemake.input.differences, names)
    findings = [f for f in fields["finding"].unique() if f != ALL_CHANNELS]
    points = field_points(fields, differences, findings, params.resolutions, params.reference_px)
    effect = field_effect(points, **params.evaluation)
    tables.write(FIELD_POINTS, points, snakemake.output.points)
    tables.write(FIELD_EFFECT, effect, snakemake.output.effect)
    for row in effect.itertuples():
        log.info("%s: Spearman %s over %d findings, p %s", row.model, row.spearman, row.n_findings, row.p)
