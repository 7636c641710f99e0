# Predictions of each learner, its metrics, and the comparison of resolutions.


rule predict:
    input:
        **layout.trained,
        targets=layout.table("targets"),
        index=lambda w: layout.index(w.resolution),
    output:
        layout.table("predictions"),
    log:
        layout.log("predict"),
    conda:
        "../../envs/cxrscale.yaml"
    threads: study.training.threads_a_gpu(study.accelerator)
    resources:
        gpu=study.gpu,
        mem_mb=8000,
        runtime=240,
    params:
        code=code("predict.py"),
    message:
        "Predicting with {wildcards.model} at {wildcards.resolution} px, fold {wildcards.fold}, seed {wildcards.seed}"
    script:
        "../scripts/predict.py"


rule evaluate:
    input:
        layout.table("predictions"),
    output:
        layout.table("metrics"),
    log:
        layout.log("evaluate"),
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=code("evaluate.py", modules=[study.format.module] if study.format_groups else []),
        settings=study.evaluation.of_learner(),
        subgroups=facts.subgroups_digest,
        groups={"file": study.file_groups, "format": study.format_groups},
        sources=facts.image_digests if study.format_groups else {},
        exact_ids=study.dataset.exact_ids,
    message:
        "Evaluating {wildcards.model} at {wildcards.resolution} px, fold {wildcards.fold}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate.py"


rule compare:
    input:
        layout.tables("predictions"),
    output:
        **{name: layout.table(name) for name in ("auroc", "averages", "differences", "sufficient")},
    log:
        f"{layout.logs}/compare.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        code=code("compare.py"),
        learners=layout.learners,
        settings=study.comparison_settings(),
    message:
        "Comparing resolutions on the patients of test"
    script:
        "../scripts/compare.py"
