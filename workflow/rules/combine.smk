# The stacking of learners: ensembles, their scale weights, gains, and the control.


rule stack:
    input:
        predictions=layout.tables("predictions"),
        targets=layout.tables("targets"),
    output:
        **{name: layout.table(name) for name in ("scale_weights", "coefficients", "stacked", "gains", "control")},
    log:
        f"{layout.logs}/stack.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        code=code("stack.py"),
        learners=layout.learners,
        folds=study.split.use_folds,
        settings=study.stacking_settings(),
    message:
        "Fitting scale weights on combine, scoring ensembles on test"
    script:
        "../scripts/stack.py"
