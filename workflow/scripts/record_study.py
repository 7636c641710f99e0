"""Write where a study's results are, so that they can be read by name."""

from cxrscale.common.joblog import job
from cxrscale.results import StudyRecord

with job(snakemake.log[0], __file__):
    StudyRecord(**snakemake.params.record).write(snakemake.output[0])
