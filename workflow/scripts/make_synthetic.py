"""Draw the synthetic data set of the config."""

from pathlib import Path

from cxrscale.datasets.synthetic import Planted, SyntheticSettings, make
from cxrscale.joblog import job

with job(snakemake.log[0], __file__) as log:
    settings = dict(snakemake.params.synthetic)
    settings["planted"] = {finding: Planted(**how) for finding, how in settings["planted"].items()}
    count = make(Path(snakemake.config["dataset"]["root"]), SyntheticSettings(**settings))
    log.info("%d synthetic images in %s", count, snakemake.config["dataset"]["root"])
