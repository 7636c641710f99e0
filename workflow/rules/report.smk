# The report: figures, one page to share, a local page with pictures and ids, a summary for the terminal.
from dataclasses import asdict

from cxrscale.workflow.protocol import protocol_rows

TEMPLATES = [
    Path(workflow.basedir) / "src" / "cxrscale" / "report" / "templates" / f"{name}.j2"
    for name in ("report.html", "local.html", "parts.html", "style.css")
]
# Every table that declares itself shown, as far as the study has it.
shown = layout.shown(without=() if facts.boxes else ("localisation",))


localrules:
    record_study,


# Where the study's results are, for whoever reads them by name (cxrscale.results).
rule record_study:
    output:
        layout.record_file,
    log:
        f"{layout.logs}/record_study.log",
    conda:
        "../../envs/cxrscale.yaml"
    params:
        # No digest of code: the record says what the params say.
        record=asdict(layout.record),
    message:
        "Recording where the study's results are"
    script:
        "../scripts/record_study.py"


rule report:
    input:
        **shown,
        record=layout.record_file,
        cost=layout.of_learners("cost.json"),
        field_maps=layout.of_learners("erf.npz"),
        activation=layout.of_learners("cam.npz"),
        planted=facts.planted,
        boxes=facts.made_boxes,
    output:
        report=f"{layout.folder}/report/report.html",
        summary=f"{layout.folder}/report/summary.txt",
        local=f"{layout.folder}/report/cam_local.html",
        figures=directory(f"{layout.folder}/report/figures"),
        local_figures=directory(f"{layout.folder}/report/local"),
    log:
        f"{layout.logs}/report.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=6000,
        runtime=60,
    params:
        code=code("report.py", files=TEMPLATES),
        tables=list(shown),
        boxes=facts.boxes_digest,
        exact_ids=study.dataset.exact_ids,
        settings={
            "study": study.study,
            **asdict(study.report),
            "reference_px": study.reference_px,
            "margin_auroc": study.comparison.margin_auroc,
            "confidence": study.evaluation.confidence,
            "joint_confidence": study.comparison.joint_confidence,
            "geometry": study.store.geometry,
            "native_at_least_px": study.native_at_least_px,
            "settings": protocol_rows(study),
        },
    message:
        "Drawing figures and writing the report"
    script:
        "../scripts/report.py"
