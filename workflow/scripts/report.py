"""Draw the figures and write the report, its summary and the local page with pictures."""

from pathlib import Path

import matplotlib

from cxrscale.common import atomic, tables
from cxrscale.common.joblog import job
from cxrscale.data.spelling import Reading
from cxrscale.report.inputs import ReportSettings, Results
from cxrscale.report.page import build, render_local, render_report, summary_lines
from cxrscale.results import Study

with job(snakemake.log[0], __file__) as log:
    matplotlib.use("Agg")
    settings = tables.settings_from(ReportSettings, snakemake.params.settings)
    planted, boxes = snakemake.input.planted, snakemake.config["boxes_file"]
    results = Results.read(
        Study.open(Path(snakemake.input.record).parent),
        snakemake.params.tables,
        Path(planted[0]) if planted else None,
        Path(boxes) if boxes else None,
        Reading(snakemake.params.exact_ids),
    )
    page = build(results, settings)
    page.save_figures(snakemake.output.figures, private_folder=snakemake.output.local_figures)
    atomic.write_text(snakemake.output.report, render_report(page))
    atomic.write_text(snakemake.output.local, render_local(page))
    lines = summary_lines(results, settings, snakemake.output.report)
    atomic.write_text(snakemake.output.summary, "".join(f"{line}\n" for line in lines))
    for line in lines:
        log.info("%s", line)
