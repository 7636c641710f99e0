"""Find every image in the shards of one resolution."""

from pathlib import Path

from cxrscale.common import tables
from cxrscale.common.joblog import job
from cxrscale.store.contracts import INDEX
from cxrscale.store.shards import index_shards

with job(snakemake.log[0], __file__) as log:
    index = index_shards(
        [Path(path) for path in snakemake.input.shards], snakemake.params.size_px, snakemake.params.geometry
    )
    tables.write(INDEX, index, snakemake.output[0])
    log.info("%d images, %.1f MB", len(index), index["length"].sum() / 1e6)
