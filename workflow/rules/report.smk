# The report: figures, one page to share, a local page with pictures and ids, a summary for the terminal.

TEMPLATES = [
    SOURCE / "cxrscale" / "report" / "templates" / f"{name}.j2"
    for name in ("report.html", "local.html", "parts.html", "style.css")
]
PAPER = (
    "epochs",
    "batch_images",
    "normalisation",
    "norm_group_images",
    "optimiser",
    "learning_rate",
    "schedule",
    "flip_probability",
    "rotation_degrees",
    "mean",
    "standard_deviation",
)
# Settings that the page's protocol table shows, beside the default protocol's: (name, here, default).
PROTOCOL = {
    "dataset": ("name", "format", "views", "ids"),
    "labels": ("source", "test_source", "unread", "uncertain", "missing"),
    "split": (
        "method",
        "folds",
        "use_folds",
        "order",
        "seed",
        "validate_fraction",
        "combine_fraction",
        "most_sharing_patients",
    ),
    "store": ("base_resolution_px", "geometry", "filter", "jpeg_quality", "upscale"),
    # The paper's, and what was set; a setting at its default, added later, does not change the page.
    "training": tuple(dict.fromkeys((*PAPER, *study.training.of_learner("", 0)))),
    "evaluation": ("replicates", "confidence", "seed", "calibration_bins", "specificity", "groups"),
    "comparison": ("margin_auroc", "joint_confidence", "least_patients", "native_at_least_px"),
    "stacking": ("tolerance", "weight_replicates"),
    "erf": ("images",),
    "cam": ("images_per_finding", "method", "localisation_images", "box_sizes"),
}


# name -> value, plain and without paths, of this study and of the default protocol.
described, default = (
    {
        "synthetic data": s.dataset.synthetic is not None,
        "findings": s.findings or "all of the data set",
        "models": {
            m.name: (
                "random weights"
                if m.weights is None
                else getattr(m.weights, "timm_tag", None) or f"file {Path(m.weights.file).name}"
            )
            for m in s.models
        },
        "resolutions_px": sorted(s.resolutions_px),
        "reference_px": s.reference_px,
        "seeds": s.seeds,
        **{f"{section}.{key}": getattr(getattr(s, section), key) for section, keys in PROTOCOL.items() for key in keys},
        "dataset.views": s.dataset.views or "all",
        "training.overrides": [o.model_dump(exclude_none=True) for o in s.training.overrides],
        "labels.per_finding": {f: p.model_dump(exclude_none=True) for f, p in s.labels.per_finding.items()},
    }
    for s in (study, study_config.StudyConfig())
)


rule report:
    input:
        metrics=layout.of_learners("metrics.csv"),
        history=layout.of_learners("history.csv"),
        cost=layout.of_learners("cost.json"),
        fields=layout.of_learners("erf.csv"),
        field_maps=layout.of_learners("erf.npz"),
        activation=layout.of_learners("cam.npz"),
        localisation=layout.of_learners("localisation.csv") if has_boxes else [],
        field_points=f"{layout.folder}/comparison/field_points.csv",
        field_effect=f"{layout.folder}/comparison/field_effect.csv",
        levels=f"{layout.folder}/comparison/auroc.csv",
        averages=f"{layout.folder}/comparison/averages.csv",
        differences=f"{layout.folder}/comparison/differences.csv",
        sufficient=f"{layout.folder}/comparison/sufficient.csv",
        weights=f"{layout.folder}/stacking/weights.csv",
        stacked=f"{layout.folder}/stacking/stacked.csv",
        gains=f"{layout.folder}/stacking/gains.csv",
        control=f"{layout.folder}/stacking/control.csv",
        targets=[layout.targets(fold) for fold in study.split.use_folds],
        notes=layout.all_notes(),
        quarantine=f"{layout.store}/base/quarantine.csv",
        manifest=f"{layout.store}/base/manifest.parquet",
        stores=[f"{layout.resolution_folder(r)}/summary.csv" for r in sorted(study.resolutions_px)],
        planted=layout.source_path("planted.csv") if study.dataset.synthetic else [],
        boxes=made_boxes,
    output:
        report=f"{layout.folder}/report/report.html",
        summary=f"{layout.folder}/report/summary.txt",
        local=f"{layout.folder}/report/cam_local.html",
        cam=f"{layout.folder}/report/local/cam.png",
        auroc=f"{layout.folder}/report/figures/auroc.png",
        differences=f"{layout.folder}/report/figures/differences.png",
        cost=f"{layout.folder}/report/figures/cost.png",
        weights=f"{layout.folder}/report/figures/weights.png",
        erf=f"{layout.folder}/report/figures/erf.png",
        field_effect=f"{layout.folder}/report/figures/field_effect.png",
        localisation=f"{layout.folder}/report/figures/localisation.png" if has_boxes else [],
        training=f"{layout.folder}/report/figures/training.png",
    log:
        f"{logs}/report.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=6000,
        runtime=60,
    params:
        code=code("report.py", files=TEMPLATES),
        learners=learner_keys,
        folds=study.split.use_folds,
        boxes=boxes_digest,
        exact_ids=exact_ids,
        settings={
            "title": study.report.title,
            "study": study.study,
            "findings": study.report.findings,
            "patient_pictures": study.report.patient_pictures,
            "reference_px": study.reference_px,
            "margin_auroc": study.comparison.margin_auroc,
            "confidence": study.evaluation.confidence,
            "joint_confidence": study.comparison.joint_confidence,
            "geometry": study.store.geometry,
            "native_at_least_px": native_at_least_px,
            "settings": [[name, value, default[name]] for name, value in described.items()],
        },
    message:
        "Drawing figures and writing the report"
    script:
        "../scripts/report.py"
