# What spans learners: the comparison of resolutions and the stacking of learners.

learner_keys = [[x.model, x.resolution_px, x.fold, x.seed] for x in layout.learners()]
bootstrap = study.evaluation.model_dump(include={"replicates", "confidence", "seed"})


rule compare:
    input:
        layout.of_learners("predictions.parquet"),
    output:
        auroc=f"{layout.folder}/comparison/auroc.csv",
        averages=f"{layout.folder}/comparison/averages.csv",
        differences=f"{layout.folder}/comparison/differences.csv",
        sufficient=f"{layout.folder}/comparison/sufficient.csv",
    log:
        f"{logs}/compare.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        code=code("compare.py"),
        learners=learner_keys,
        settings={
            "reference_px": study.reference_px,
            "margin_auroc": study.comparison.margin_auroc,
            "least_patients": study.comparison.least_patients,
            "native_at_least_px": study.comparison.native_at_least_px or 0,
            "joint_confidence": study.comparison.joint_confidence,
            **bootstrap,
        },
    message:
        "Comparing resolutions on the patients of test"
    script:
        "../scripts/compare.py"


rule stack:
    input:
        predictions=layout.of_learners("predictions.parquet"),
        targets=[layout.targets(fold) for fold in study.split.use_folds],
    output:
        **{
            name: f"{layout.folder}/stacking/{name}.csv"
            for name in ("weights", "coefficients", "stacked", "gains", "control")
        },
    log:
        f"{logs}/stack.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        code=code("stack.py"),
        learners=learner_keys,
        folds=study.split.use_folds,
        settings={
            **study.stacking.model_dump(),
            **bootstrap,
        },
    message:
        "Fitting scale weights on combine, scoring ensembles on test"
    script:
        "../scripts/stack.py"
