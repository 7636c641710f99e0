# Metrics of each learner.


rule evaluate:
    input:
        f"{layout.learner()}/predictions.parquet",
    output:
        f"{layout.learner()}/metrics.csv",
    log:
        f"{logs}/evaluate/{{model}}-{{resolution}}px-fold{{fold}}-seed{{seed}}.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        code=code("evaluate.py"),
        settings=study.evaluation.model_dump(
            include={
                "replicates",
                "confidence",
                "seed",
                "calibration_bins",
                "specificity",
                "groups",
            }
        ),
        subgroups=subgroups_digest,
        exact_ids=exact_ids,
    message:
        "Evaluating {wildcards.model} at {wildcards.resolution} px, fold {wildcards.fold}, seed {wildcards.seed}"
    script:
        "../scripts/evaluate.py"
