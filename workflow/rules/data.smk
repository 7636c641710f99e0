# Data: the synthetic data set, labels, images and targets.
# What reads csv files alone comes first (priority): it finds mistakes before hours of work that they make worthless.


localrules:
    targets,


# Labels, targets and checks as the csv files alone give them; needs no image.
rule targets:
    input:
        layout.notes("inputs"),
        expand(layout.drawn_targets, fold=study.split.use_folds),


if study.dataset.synthetic:

    rule make_synthetic:
        output:
            facts.made_csv,
            sums=facts.made_pictures,
            boxes=facts.made_boxes,
            planted=facts.planted,
        log:
            f"{layout.logs}/make_synthetic.log",
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
        facts.made_csv,
    output:
        labels=layout.table("labels"),
        notes=layout.notes("labels"),
    log:
        f"{layout.logs}/parse_labels.log",
    priority: 100
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        code=code("parse_labels.py", modules=[study.format.module]),
        sources=facts.label_digests,
        label_source=study.chosen.label_source,
        test_source=study.chosen.test_source,
        # A format may know its findings; of another the columns named are read.
        findings=None if study.format.findings else study.findings,
        exact_ids=study.dataset.exact_ids,
    message:
        "Reading the labels of {config[dataset][name]}"
    script:
        "../scripts/parse_labels.py"


rule list_images:
    input:
        facts.made_csv,
    output:
        images=layout.table("images"),
        notes=f"{layout.store}/notes.csv",
    log:
        f"{layout.store}/logs/list_images.log",
    priority: 100
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        code=code("list_images.py", modules=[study.format.module]),
        sources=facts.image_digests,
        shards=study.store.shards,
        exact_ids=study.dataset.exact_ids,
    message:
        "Listing the images of {config[dataset][name]}"
    script:
        "../scripts/list_images.py"


rule check_inputs:
    input:
        labels=layout.table("labels"),
        images=layout.table("images"),
        boxes=facts.made_boxes,
    output:
        layout.notes("inputs"),
    log:
        f"{layout.logs}/check_inputs.log",
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
        ignores_split=study.format.official_split == "sometimes" and study.split.method == "kfold",
        boxes=facts.boxes_digest,
        subgroups=facts.subgroups_digest,
        groups=study.file_groups,
        exact_ids=study.dataset.exact_ids,
    message:
        "Looking for what the study names in {config[dataset][name]}"
    script:
        "../scripts/check_inputs.py"


rule build_targets:
    input:
        labels=layout.table("labels"),
        images=layout.table("images"),
    output:
        targets=layout.drawn_targets,
        notes=layout.notes("targets-fold{fold}"),
    log:
        f"{layout.logs}/build_targets/fold{{fold}}.log",
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
        policy=study.labels.policy(),
        split=study.split.of_patients(),
    message:
        "Splitting patients and building targets of fold {wildcards.fold}"
    script:
        "../scripts/build_targets.py"


rule keep_together:
    input:
        targets=layout.drawn_targets,
        # Comes once the store was held against the data set's list of images: nothing is trained before.
        shared=layout.table("shared"),
    output:
        targets=layout.table("targets"),
        notes=layout.notes("together-fold{fold}"),
    log:
        f"{layout.logs}/keep_together/fold{{fold}}.log",
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
