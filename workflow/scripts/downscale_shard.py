"""Make one shard of a smaller resolution from the base shard."""

from pathlib import Path

from cxrscale.joblog import job
from cxrscale.store.shards import downscale_shard

with job(snakemake.log[0], __file__) as log:
    count = downscale_shard(
        Path(snakemake.input[0]),
        int(snakemake.wildcards.resolution),
        snakemake.params.filter,
        snakemake.params.jpeg_quality,
        Path(snakemake.output[0]),
    )
    log.info("%d images", count)
