"""Draw the synthetic data set of the config."""

from pathlib import Path

from cxrscale.common.joblog import job
from cxrscale.data.settings import Planted, SyntheticSettings
from cxrscale.data.synthetic import make

with job(snakemake.log[0], __file__) as log:
    settings = dict(snakemake.params.synthetic)
    settings["planted"] = {finding: Planted(**how) for finding, how in settings["planted"].items()}
    count = make(Path(snakemake.config["dataset"]["root"]), SyntheticSettings(**settings))
    log.info("%d synthetic images in %s", count, snakemake.config["dataset"]["root"])
