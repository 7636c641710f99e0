# Where a learner looks: effective receptive fields and class activation maps.

# Boxes around findings: an input where they are made here; others count by their content, as all csv files do.
made_boxes = layout.source_path("boxes.csv") if study.dataset.synthetic else []
given_boxes = Path(study.dataset.root) / study.cam.boxes if study.cam.boxes else None
if given_boxes is not None and not given_boxes.is_file():
    raise WorkflowError(f"cam.boxes: there is no file {given_boxes}; expected a csv below dataset.root, or null")
has_boxes = bool(made_boxes or given_boxes)
boxes_digest = provenance.file_digest(given_boxes) if given_boxes else None


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
        norm_group_images=lambda w: study.training.settings_of(w.model, w.resolution).norm_group_images,
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
        method=study.cam.method,
    message:
        "Activation maps of {wildcards.model} at {wildcards.resolution} px, fold {wildcards.fold}, seed {wildcards.seed}"
    script:
        "../scripts/cam.py"


rule localise:
    input:
        weights=f"{layout.learner()}/weights.safetensors",
        targets=layout.targets(),
        manifest=lambda w: layout.manifest(w.resolution),
        boxes=made_boxes,
    output:
        f"{layout.learner()}/localisation.csv",
    log:
        f"{logs}/localise/{{model}}-{{resolution}}px-fold{{fold}}-seed{{seed}}.log",
    conda:
        "../../envs/cxrscale.yaml"
    threads: 1
    resources:
        gpu=gpu,
        mem_mb=8000,
        runtime=240,
    params:
        **INPUT,
        code=code("localise.py"),
        boxes=boxes_digest,
        geometry=study.store.geometry,
        method=study.cam.method,
        images_per_finding=study.cam.localisation_images,
        box_sizes=study.cam.box_sizes,
        confidence=study.evaluation.confidence,
    message:
        "Holding maps of {wildcards.model} at {wildcards.resolution} px, fold {wildcards.fold}, seed {wildcards.seed} against boxes"
    script:
        "../scripts/localise.py"


at_reference = [x for x in layout.learners() if x.resolution_px == study.reference_px]


rule compare_fields:
    input:
        fields=[f"{layout.learner(x.model, x.resolution_px, x.fold, x.seed)}/erf.csv" for x in at_reference],
        differences=f"{layout.folder}/comparison/differences.csv",
    output:
        points=f"{layout.folder}/comparison/field_points.csv",
        effect=f"{layout.folder}/comparison/field_effect.csv",
    log:
        f"{logs}/compare_fields.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        code=code("compare_fields.py"),
        models=[x.model for x in at_reference],
        resolutions={m.name: sorted(study.resolutions_px) for m in study.models},
        reference_px=study.reference_px,
        evaluation=study.evaluation.model_dump(include={"replicates", "confidence", "seed"}),
    message:
        "Holding the size of fields against the effect of resolution"
    script:
        "../scripts/compare_fields.py"
