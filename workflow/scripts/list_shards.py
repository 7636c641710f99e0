"""Find every image in the shards of one resolution."""

from pathlib import Path

from cxrscale.common import tables
from cxrscale.common.joblog import job
from cxrscale.store.shards import MANIFEST, list_shards

with job(snakemake.log[0], __file__) as log:
    manifest = list_shards(
        [Path(path) for path in snakemake.input.shards], snakemake.params.size_px, snakemake.params.geometry
    )
    tables.write(MANIFEST, manifest, snakemake.output[0])
    log.info("%d images, %.1f MB", len(manifest), manifest["length"].sum() / 1e6)
