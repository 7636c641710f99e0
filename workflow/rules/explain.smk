# Where a learner looks: effective receptive fields and class activation maps.


rule erf:
    input:
        **layout.trained,
        initial=lambda w: layout.weights(w.model) or [],
        targets=layout.table("targets"),
        index=lambda w: layout.index(w.resolution),
    output:
        sizes=layout.table("erf"),
        maps=layout.learner("erf.npz"),
    log:
        layout.log("erf"),
    conda:
        "../../envs/cxrscale.yaml"
    threads: 1
    resources:
        gpu=study.gpu,
        mem_mb=8000,
        runtime=120,
    params:
        code=code("erf.py"),
        images=study.erf.images,
    message:
        "Receptive field of {wildcards.model} at {wildcards.resolution} px, fold {wildcards.fold}, seed {wildcards.seed}"
    script:
        "../scripts/erf.py"


rule cam:
    input:
        **layout.trained,
        targets=layout.table("targets"),
        index=lambda w: layout.index(w.resolution),
    output:
        layout.learner("cam.npz"),
    log:
        layout.log("cam"),
    conda:
        "../../envs/cxrscale.yaml"
    threads: 1
    resources:
        gpu=study.gpu,
        mem_mb=8000,
        runtime=60,
    params:
        code=code("cam.py"),
        images_per_finding=study.cam.images_per_finding,
        method=study.cam.method,
    message:
        "Activation maps of {wildcards.model} at {wildcards.resolution} px, fold {wildcards.fold}, seed {wildcards.seed}"
    script:
        "../scripts/cam.py"


rule localise:
    input:
        **layout.trained,
        targets=layout.table("targets"),
        index=lambda w: layout.index(w.resolution),
        boxes=facts.made_boxes,
    output:
        layout.table("localisation"),
    log:
        layout.log("localise"),
    conda:
        "../../envs/cxrscale.yaml"
    threads: 1
    resources:
        gpu=study.gpu,
        mem_mb=8000,
        runtime=240,
    params:
        code=code("localise.py"),
        boxes=facts.boxes_digest,
        exact_ids=study.dataset.exact_ids,
        method=study.cam.method,
        images_per_finding=study.cam.localisation_images,
        box_sizes=study.cam.box_sizes,
        confidence=study.evaluation.confidence,
    message:
        "Holding maps of {wildcards.model} at {wildcards.resolution} px, fold {wildcards.fold}, seed {wildcards.seed} against boxes"
    script:
        "../scripts/localise.py"


rule compare_fields:
    input:
        fields=layout.tables("erf", resolution_px=study.reference_px),
        differences=layout.table("differences"),
    output:
        points=layout.table("field_points"),
        effect=layout.table("field_effect"),
    log:
        f"{layout.logs}/compare_fields.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        code=code("compare_fields.py"),
        models=[model for model, px, _, _ in layout.learners if px == study.reference_px],
        resolutions={m.name: sorted(study.resolutions_px) for m in study.models},
        reference_px=study.reference_px,
        evaluation=study.evaluation.bootstrap(),
    message:
        "Holding the size of fields against the effect of resolution"
    script:
        "../scripts/compare_fields.py"
