# The image store: native files into base shards, base shards into each smaller resolution, a manifest of each.

base = f"{layout.store}/base"
alone = r"|".join(
    str(r) for r in study.resolutions_px if r not in [study.store.base_resolution_px, *study.together_px()]
)
# All resolutions see the same images: with store.upscale "exclude" none that the largest would enlarge.
native_at_least_px = max(study.resolutions_px) if study.store.upscale == "exclude" else 0
PIXELS = {"geometry": study.store.geometry, "filter": study.store.filter}


# Of a synthetic data set, whose pictures are made here and may be made anew, the list of their checksums.
made_pictures = layout.source_path("SHA256SUMS.txt") if study.dataset.synthetic else []


rule fingerprint_pictures:
    input:
        made_pictures,
        images=ancient(layout.images),
    output:
        layout.fingerprint,
    log:
        f"{layout.store}/logs/fingerprint_pictures.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=1500,
        runtime=30,
    params:
        # A number instead of a digest of the code: checksums are the same whatever takes them, and a stage that runs again
        # hides changes of those that take its output as old.
        version=1,
    message:
        "Taking the checksums of some pictures"
    script:
        "../scripts/fingerprint_pictures.py"


rule ingest_shard:
    input:
        made_pictures,
        # Before anything is ingested; compared each time the workflow starts.
        ancient(layout.fingerprint),
        # ancient: a new list of images reads no native file again. collect_quarantine holds the list against the
        # shards, and check_sources sets aside the shards whose images changed.
        images=ancient(layout.images),
    output:
        shard=f"{base}/shard-{{shard}}.parquet",
        sample=f"{base}/sample/shard-{{shard}}.parquet",
        quarantine=f"{base}/quarantine/shard-{{shard}}.csv",
    log:
        f"{layout.store}/logs/ingest_shard/{{shard}}.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=1500,
        runtime=240,
    params:
        code=code("ingest_shard.py"),
        settings={
            **PIXELS,
            "base_resolution_px": study.store.base_resolution_px,
            "jpeg_quality": study.store.jpeg_quality,
        },
        accepted=study.store.accepted(),
        shards=study.store.shards,
    message:
        "Reading the native images of shard {wildcards.shard}"
    script:
        "../scripts/ingest_shard.py"


rule collect_quarantine:
    input:
        images=layout.images,
        quarantine=expand(f"{base}/quarantine/shard-{{shard}}.csv", shard=layout.shards),
        shards=expand(f"{base}/shard-{{shard}}.parquet", shard=layout.shards),
    output:
        quarantine=f"{base}/quarantine.csv",
        shared=layout.shared,
    log:
        f"{layout.store}/logs/collect_quarantine.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        # That too many images cannot be used is said when the workflow starts, too.
        code=code("collect_quarantine.py"),
    message:
        "Counting the images that cannot be used"
    script:
        "../scripts/collect_quarantine.py"


if study.together_px():

    # These resolutions share one reading of the base, and all are made once one is asked for. Any other is made alone,
    # so that one more resolution touches nothing that exists.
    rule downscale_together:
        input:
            f"{base}/shard-{{shard}}.parquet",
        output:
            **{f"px{r}": f"{layout.store}/{r}/shard-{{shard}}.parquet" for r in study.together_px()},
        log:
            f"{layout.store}/logs/downscale_together/{{shard}}.log",
        conda:
            "../../envs/cxrscale.yaml"
        resources:
            mem_mb=1500,
            runtime=120,
        params:
            code=code("downscale_shard.py"),
            filter=study.store.filter,
            jpeg_quality=study.store.jpeg_quality,
        message:
            f"Downscaling shard {{wildcards.shard}} to {', '.join(map(str, study.together_px()))} px"
        script:
            "../scripts/downscale_shard.py"


rule downscale_shard:
    input:
        f"{base}/shard-{{shard}}.parquet",
    output:
        f"{layout.store}/{{resolution}}/shard-{{shard}}.parquet",
    log:
        f"{layout.store}/logs/downscale_shard/{{resolution}}-{{shard}}.log",
    wildcard_constraints:
        resolution=alone or "none",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=1500,
        runtime=120,
    params:
        code=code("downscale_shard.py"),
        filter=study.store.filter,
        jpeg_quality=study.store.jpeg_quality,
    message:
        "Downscaling shard {wildcards.shard} to {wildcards.resolution} px"
    script:
        "../scripts/downscale_shard.py"


rule list_shards:
    input:
        shards=expand(f"{layout.store}/{{{{folder}}}}/shard-{{shard}}.parquet", shard=layout.shards),
    output:
        f"{layout.store}/{{folder}}/manifest.parquet",
    log:
        f"{layout.store}/logs/list_shards/{{folder}}.log",
    wildcard_constraints:
        folder=r"base|\d+",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        code=code("list_shards.py"),
        geometry=study.store.geometry,
        size_px=lambda w: layout.resolution_of(w.folder),
    message:
        "Listing the store at {wildcards.folder}"
    script:
        "../scripts/list_shards.py"


rule check_pictures:
    input:
        manifest=f"{base}/manifest.parquet",
        targets=[layout.targets(fold) for fold in study.split.use_folds],
        boxes=made_boxes,
    output:
        layout.notes("pictures"),
    log:
        f"{logs}/check_pictures.log",
    priority: 100
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        code=code("check_pictures.py"),
        excluded_below_px=native_at_least_px,
        compared_from_px=study.comparison.native_at_least_px or 0,
        by_view="view" in study.evaluation.groups,
        boxes=boxes_digest,
        geometry=study.store.geometry,
        exact_ids=exact_ids,
    message:
        "Looking whether the pictures fit what the study asks of them"
    script:
        "../scripts/check_pictures.py"


rule measure_store:
    input:
        sample=expand(f"{base}/sample/shard-{{shard}}.parquet", shard=layout.shards),
        manifest=f"{layout.store}/{{folder}}/manifest.parquet",
    output:
        psnr=f"{layout.store}/{{folder}}/psnr.csv",
        summary=f"{layout.store}/{{folder}}/summary.csv",
    log:
        f"{layout.store}/logs/measure_store/{{folder}}.log",
    wildcard_constraints:
        folder=r"base|\d+",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        **PIXELS,
        code=code("measure_store.py"),
        accepted=study.store.accepted(),
        base_resolution_px=study.store.base_resolution_px,
        size_px=lambda w: layout.resolution_of(w.folder),
    message:
        "Measuring what the store at {wildcards.folder} lost"
    script:
        "../scripts/measure_store.py"


# Asked for by name: which native files and csv rows are not what the store was made of; their shards are set aside.
rule check_sources:
    input:
        images=layout.images,
    log:
        f"{layout.store}/logs/check_sources.log",
    conda:
        "../../envs/cxrscale.yaml"
    # A number, since a cluster has no total of cores; on one machine --cores caps it.
    threads: 8
    resources:
        mem_mb=3000,
        runtime=1440,
    params:
        accepted=study.store.accepted(),
    message:
        "Comparing the data set with what the store was made of"
    script:
        "../scripts/check_sources.py"
