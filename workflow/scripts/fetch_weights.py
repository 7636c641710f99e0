"""Fetch a model's initial weights, by timm tag or from a local file, and check them."""

from pathlib import Path

from cxrscale.common.joblog import job
from cxrscale.train.initial_weights import fetch

with job(snakemake.log[0], __file__):
    fetch(
        snakemake.params.model,
        snakemake.params.timm_tag,
        Path(snakemake.input[0]) if snakemake.input else None,
        snakemake.params.sha256,
        Path(snakemake.output[0]),
    )
