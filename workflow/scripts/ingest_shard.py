"""Read the native images of one shard, once, into the base store."""

from pathlib import Path

from cxrscale.common import tables
from cxrscale.common.joblog import job
from cxrscale.data.contracts import IMAGES
from cxrscale.store.pixels import use_one_thread
from cxrscale.store.settings import BaseSettings
from cxrscale.store.shards import ingest_shard, sample_size

with job(snakemake.log[0], __file__) as log:
    use_one_thread()
    count = ingest_shard(
        tables.read(IMAGES, snakemake.input.images),
        int(snakemake.wildcards.shard),
        Path(snakemake.config["dataset"]["root"]),
        tables.settings_from(BaseSettings, snakemake.params.settings),
        # Decides whether the run stops, not what a shard holds.
        snakemake.config["store"]["max_unreadable_fraction"],
        Path(snakemake.output.shard),
        Path(snakemake.output.sample),
        Path(snakemake.output.quarantine),
        sample_size(snakemake.params.shards),
    )
    log.info("%d images", count)
