"""Measure what JPEG and resampling cost at one resolution, on the native files that the base keeps."""

from pathlib import Path

from cxrscale.common import tables
from cxrscale.common.joblog import job
from cxrscale.store.contracts import PSNR, SUMMARY
from cxrscale.store.fidelity import measure, summary_of
from cxrscale.store.pixels import use_one_thread
from cxrscale.store.reader import StoreReader
from cxrscale.store.settings import BaseSettings

with job(snakemake.log[0], __file__) as log:
    use_one_thread()
    store = StoreReader(Path(snakemake.input.index).parent)
    psnr = measure(
        [Path(path) for path in snakemake.input.sample],
        store,
        tables.settings_from(BaseSettings, snakemake.params.settings),
    )
    summary = summary_of(Path(snakemake.input.index), snakemake.params.size_px, psnr)
    tables.write(PSNR, psnr, snakemake.output.psnr)
    tables.write(SUMMARY, summary, snakemake.output.summary)
    log.info("%s", summary.iloc[0].to_dict())
