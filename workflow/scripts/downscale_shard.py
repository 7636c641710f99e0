"""Make one shard of one or more smaller resolutions from the base shard."""

from pathlib import Path

from cxrscale.common.joblog import job
from cxrscale.store.pixels import use_one_thread
from cxrscale.store.shards import downscale_shard

with job(snakemake.log[0], __file__) as log:
    use_one_thread()
    count = downscale_shard(
        Path(snakemake.input[0]),
        {int(Path(path).parent.name): Path(path) for path in snakemake.output},
        snakemake.params.filter,
        snakemake.params.jpeg_quality,
    )
    log.info("%d images", count)
