# The image store: native files into base shards, base shards into each smaller resolution, a index of each.

# Made one by one, each once it is needed.
alone = [r for r in study.resolutions_px if r not in [study.store.base_resolution_px, *study.together_px()]]


localrules:
    stores,


# The image store at every resolution, held against the data set's list of images.
rule stores:
    input:
        layout.tables("quarantine"),
        layout.tables("index"),


rule fingerprint_pictures:
    input:
        facts.made_pictures,
        images=ancient(layout.table("images")),
    output:
        layout.table("fingerprint"),
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
        facts.made_pictures,
        # Before anything is ingested; compared each time the workflow starts.
        ancient(layout.table("fingerprint")),
        # ancient: a new list of images reads no native file again. collect_quarantine holds the list against the
        # shards, and check_sources sets aside the shards whose images changed.
        images=ancient(layout.table("images")),
    output:
        shard=f"{layout.base}/shard-{{shard}}.parquet",
        sample=f"{layout.base}/sample/shard-{{shard}}.parquet",
        quarantine=f"{layout.base}/quarantine/shard-{{shard}}.csv",
    log:
        f"{layout.store}/logs/ingest_shard/{{shard}}.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=1500,
        runtime=240,
    params:
        code=code("ingest_shard.py"),
        settings=study.store.of_base(),
        shards=study.store.shards,
    message:
        "Reading the native images of shard {wildcards.shard}"
    script:
        "../scripts/ingest_shard.py"


rule collect_quarantine:
    input:
        images=layout.table("images"),
        quarantine=expand(f"{layout.base}/quarantine/shard-{{shard}}.csv", shard=layout.shards),
        shards=expand(f"{layout.base}/shard-{{shard}}.parquet", shard=layout.shards),
    output:
        quarantine=layout.table("quarantine"),
        shared=layout.table("shared"),
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
            f"{layout.base}/shard-{{shard}}.parquet",
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
        f"{layout.base}/shard-{{shard}}.parquet",
    output:
        f"{layout.store}/{{resolution}}/shard-{{shard}}.parquet",
    log:
        f"{layout.store}/logs/downscale_shard/{{resolution}}-{{shard}}.log",
    wildcard_constraints:
        resolution="|".join(map(str, alone)) or "none",
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


rule index_shards:
    input:
        shards=expand(f"{layout.store}/{{{{folder}}}}/shard-{{shard}}.parquet", shard=layout.shards),
    output:
        layout.table("index"),
    log:
        f"{layout.store}/logs/index_shards/{{folder}}.log",
    wildcard_constraints:
        folder=r"base|\d+",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        code=code("index_shards.py"),
        geometry=study.store.geometry,
        size_px=lambda w: layout.resolution_of(w.folder),
    message:
        "Listing the store at {wildcards.folder}"
    script:
        "../scripts/index_shards.py"


rule check_pictures:
    input:
        index=layout.table("index", folder="base"),
        targets=layout.tables("targets"),
        boxes=facts.made_boxes,
    output:
        layout.notes("pictures"),
    log:
        f"{layout.logs}/check_pictures.log",
    priority: 100
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        code=code("check_pictures.py"),
        excluded_below_px=study.native_at_least_px,
        compared_from_px=study.comparison.native_at_least_px or 0,
        by_view="view" in study.evaluation.groups,
        boxes=facts.boxes_digest,
        geometry=study.store.geometry,
        exact_ids=study.dataset.exact_ids,
    message:
        "Looking whether the pictures fit what the study asks of them"
    script:
        "../scripts/check_pictures.py"


rule measure_store:
    input:
        sample=expand(f"{layout.base}/sample/shard-{{shard}}.parquet", shard=layout.shards),
        index=layout.table("index"),
    output:
        psnr=layout.table("psnr"),
        summary=layout.table("summary"),
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
        code=code("measure_store.py"),
        settings=study.store.of_base(),
        size_px=lambda w: layout.resolution_of(w.folder),
    message:
        "Measuring what the store at {wildcards.folder} lost"
    script:
        "../scripts/measure_store.py"


# Asked for by name: which native files and csv rows are not what the store was made of; their shards are set aside.
rule check_sources:
    input:
        images=layout.table("images"),
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
