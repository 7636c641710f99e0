# Data: the synthetic data set, labels, images and targets.
# What reads csv files alone comes first (priority): it finds mistakes before hours of work that they make worthless.

# Boxes around findings: an input where they are made here; others count by their content, as all csv files do.
made_boxes = layout.source_path("boxes.csv") if study.dataset.synthetic else []
given_boxes = Path(study.dataset.root) / study.cam.boxes if study.cam.boxes else None
if given_boxes is not None and not given_boxes.is_file():
    raise WorkflowError(f"cam.boxes: there is no file {given_boxes}; expected a csv below dataset.root, or null")
has_boxes = bool(made_boxes or given_boxes)
boxes_digest = provenance.file_digest(given_boxes) if given_boxes else None


if study.dataset.synthetic:

    rule make_synthetic:
        output:
            source_files,
            sums=layout.source_path("SHA256SUMS.txt"),
            boxes=layout.source_path("boxes.csv"),
            planted=layout.source_path("planted.csv"),
        log:
            f"{logs}/make_synthetic.log",
        conda:
            "../../envs/cxrscale.yaml"
        resources:
            mem_mb=1500,
            runtime=120,
        params:
            code=code("make_synthetic.py"),
            synthetic=study.dataset.synthetic.given(),
        message:
            "Drawing the synthetic data set"
        script:
            "../scripts/make_synthetic.py"


rule parse_labels:
    input:
        source_files,
    output:
        labels=layout.labels,
        notes=layout.notes("labels"),
    log:
        f"{logs}/parse_labels.log",
    priority: 100
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        code=code("parse_labels.py", modules=[lookup.module_name(study.dataset.format)]),
        sources=source_digests["labels"],
        labels_source=study.labels.source,
        test_source=study.labels.test_source,
        # MIMIC-CXR-JPG has 14 known findings; a manifest may have other columns.
        findings=study.findings if study.dataset.format == "manifest" else None,
        exact_ids=exact_ids,
    message:
        "Reading the labels of {config[dataset][name]}"
    script:
        "../scripts/parse_labels.py"


rule index_images:
    input:
        source_files,
    output:
        images=layout.images,
        notes=f"{layout.store}/notes.csv",
    log:
        f"{layout.store}/logs/index_images.log",
    priority: 100
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        code=code("index_images.py", modules=[lookup.module_name(study.dataset.format)]),
        sources=source_digests["images"],
        shards=study.store.shards,
        exact_ids=exact_ids,
    message:
        "Listing the images of {config[dataset][name]}"
    script:
        "../scripts/index_images.py"


rule check_inputs:
    input:
        labels=layout.labels,
        images=layout.images,
        boxes=made_boxes,
    output:
        layout.notes("inputs"),
    log:
        f"{logs}/check_inputs.log",
    priority: 100
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        code=code("check_inputs.py"),
        findings=study.findings,
        report={"findings": study.report.findings},
        ignores_split=study.dataset.format == "manifest" and study.split.method == "kfold",
        boxes=boxes_digest,
        subgroups=subgroups_digest,
        groups=study.evaluation.groups,
        exact_ids=exact_ids,
    message:
        "Looking for what the study names in {config[dataset][name]}"
    script:
        "../scripts/check_inputs.py"


rule build_targets:
    input:
        labels=layout.labels,
        images=layout.images,
    output:
        targets=layout.drawn_targets(),
        notes=layout.notes("targets-fold{fold}"),
    log:
        f"{logs}/build_targets/fold{{fold}}.log",
    priority: 100
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        code=code("build_targets.py"),
        findings=study.findings,
        views=study.dataset.views,
        unread=study.labels.unread,
        policy={
            "default": {
                "uncertain": study.labels.uncertain,
                "missing": study.labels.missing,
            },
            "per_finding": {
                finding: policy.model_dump(exclude_none=True) for finding, policy in study.labels.per_finding.items()
            },
        },
        split={
            "method": study.split.method,
            "folds": study.split.folds,
            "order": study.split.order,
            "seed": study.split.seed,
            "validate_fraction": study.split.validate_fraction,
            "combine_fraction": study.split.combine_fraction,
        },
    message:
        "Splitting patients and building targets of fold {wildcards.fold}"
    script:
        "../scripts/build_targets.py"


rule keep_together:
    input:
        targets=layout.drawn_targets(),
        # Comes once the store was held against the data set's list of images: nothing is trained before.
        shared=layout.shared,
    output:
        targets=layout.targets(),
        notes=layout.notes("together-fold{fold}"),
    log:
        f"{logs}/keep_together/fold{{fold}}.log",
    priority: 100
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        code=code("keep_together.py"),
        most_sharing_patients=study.split.most_sharing_patients,
    message:
        "Keeping patients who share a picture in one split, fold {wildcards.fold}"
    script:
        "../scripts/keep_together.py"
