# The image store: native files into base shards, base shards into each smaller resolution, a manifest of each.

base = f"{layout.store}/base"
smaller = r"|".join(str(r) for r in study.resolutions_px if r != study.store.base_resolution_px)


rule ingest_shard:
    input:
        images=layout.images,
    output:
        shard=f"{base}/shard-{{shard}}.parquet",
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
            "base_resolution_px": study.store.base_resolution_px,
            "geometry": study.store.geometry,
            "filter": study.store.filter,
            "jpeg_quality": study.store.jpeg_quality,
        },
    message:
        "Reading the native images of shard {wildcards.shard}"
    script:
        "../scripts/ingest_shard.py"


rule collect_quarantine:
    input:
        images=layout.images,
        quarantine=expand(f"{base}/quarantine/shard-{{shard}}.csv", shard=layout.shards),
    output:
        f"{base}/quarantine.csv",
    log:
        f"{layout.store}/logs/collect_quarantine.log",
    conda:
        "../../envs/cxrscale.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        code=code("collect_quarantine.py"),
        max_unreadable_fraction=study.store.max_unreadable_fraction,
    message:
        "Counting the images that cannot be used"
    script:
        "../scripts/collect_quarantine.py"


rule downscale_shard:
    input:
        f"{base}/shard-{{shard}}.parquet",
    output:
        f"{layout.store}/{{resolution}}/shard-{{shard}}.parquet",
    log:
        f"{layout.store}/logs/downscale_shard/{{resolution}}-{{shard}}.log",
    wildcard_constraints:
        resolution=smaller or "none",
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
        # The quarantine has been counted before anything is trained.
        f"{base}/quarantine.csv",
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
    message:
        "Listing the store at {wildcards.folder}"
    script:
        "../scripts/list_shards.py"
