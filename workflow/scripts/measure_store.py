"""Measure what JPEG and resampling cost at one resolution, on the native files that the base keeps."""

from pathlib import Path

from cxrscale.common import tables
from cxrscale.common.joblog import job
from cxrscale.store.fidelity import PSNR, SUMMARY, measure, summarise
from cxrscale.store.pixels import Accepted, use_one_thread
from cxrscale.store.reader import StoreReader

with job(snakemake.log[0], __file__) as log:
    use_one_thread()
    store = StoreReader(Path(snakemake.input.manifest).parent)
    psnr = measure(
        [Path(path) for path in snakemake.input.sample],
        store,
        snakemake.params.base_resolution_px,
        snakemake.params.geometry,
        snakemake.params.filter,
        Accepted(**snakemake.params.accepted),
    )
    summary = summarise(Path(snakemake.input.manifest), snakemake.params.size_px, psnr)
    tables.write(PSNR, psnr, snakemake.output.psnr)
    tables.write(SUMMARY, summary, snakemake.output.summary)
    log.info("%s", summary.iloc[0].to_dict())
