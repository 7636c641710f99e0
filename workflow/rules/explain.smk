# Where a learner looks: effective receptive fields and class activation maps.


rule erf:
    input:
        weights=f"{layout.learner()}/weights.safetensors",
        initial=lambda w: layout.weights(w.model) or [],
        targets=layout.targets(),
        manifest=lambda w: layout.manifest(w.resolution),
    output:
        sizes=f"{layout.learner()}/erf.csv",
        maps=f"{layout.learner()}/erf.npz",
    log:
        f"{logs}/erf/{{model}}-{{resolution}}px-fold{{fold}}-seed{{seed}}.log",
    conda:
        "../../envs/cxrscale.yaml"
    threads: 1
    resources:
        gpu=gpu,
        mem_mb=8000,
        runtime=120,
    params:
        **INPUT,
        code=code("erf.py"),
        images=study.erf.images,
        norm_group_images=study.training.norm_group_images,
    message:
        "Receptive field of {wildcards.model} at {wildcards.resolution} px, fold {wildcards.fold}, seed {wildcards.seed}"
    script:
        "../scripts/erf.py"


rule cam:
    input:
        weights=f"{layout.learner()}/weights.safetensors",
        targets=layout.targets(),
        manifest=lambda w: layout.manifest(w.resolution),
    output:
        f"{layout.learner()}/cam.npz",
    log:
        f"{logs}/cam/{{model}}-{{resolution}}px-fold{{fold}}-seed{{seed}}.log",
    conda:
        "../../envs/cxrscale.yaml"
    threads: 1
    resources:
        gpu=gpu,
        mem_mb=8000,
        runtime=60,
    params:
        **INPUT,
        code=code("cam.py"),
        images_per_finding=study.cam.images_per_finding,
    message:
        "Activation maps of {wildcards.model} at {wildcards.resolution} px, fold {wildcards.fold}, seed {wildcards.seed}"
    script:
        "../scripts/cam.py"
