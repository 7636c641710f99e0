# Data: the synthetic data set, labels, images and targets.


if study.dataset.synthetic:

    rule make_synthetic:
        output:
            source_files,
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
        layout.labels,
    log:
        f"{logs}/parse_labels.log",
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
    message:
        "Reading the labels of {config[dataset][name]}"
    script:
        "../scripts/parse_labels.py"


rule index_images:
    input:
        source_files,
    output:
        layout.images,
    log:
        f"{layout.store}/logs/index_images.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        code=code("index_images.py", modules=[lookup.module_name(study.dataset.format)]),
        sources=source_digests["images"],
        shards=study.store.shards,
    message:
        "Listing the images of {config[dataset][name]}"
    script:
        "../scripts/index_images.py"


rule build_targets:
    input:
        labels=layout.labels,
        images=layout.images,
    output:
        layout.targets(),
    log:
        f"{logs}/build_targets/fold{{fold}}.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        code=code("build_targets.py"),
        findings=study.findings,
        views=study.dataset.views,
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
