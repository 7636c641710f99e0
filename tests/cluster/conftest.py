"""A real SLURM that tests/cluster/slurm.sh has brought up: one machine that pretends two nodes of two GPUs."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

#: Seconds that anything awaited here may take.
PATIENCE_S = 600
FIELDS = ("JobIDRaw", "Comment", "State", "AllocCPUS", "ReqMem", "TimelimitRaw", "AllocTRES")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave these tests out where `make test-cluster` did not bring SLURM up."""
    if os.environ.get("CXRSCALE_CLUSTER") != "1":
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs the SLURM of make test-cluster"))


def site(folder: Path) -> dict[str, Any]:
    """The profile for SLURM of a checkout, with the values of this test's site and a status that is asked for often."""
    profile: dict[str, Any] = yaml.safe_load((folder / "profiles/slurm/config.yaml").read_text())
    for resources in (profile["default-resources"], *profile["set-resources"].values()):
        if "slurm_partition" in resources:
            resources["slurm_partition"] = "test"
        if "slurm_account" in resources:
            resources["slurm_account"] = "study"
    return profile | {"latency-wait": 10, "slurm-init-seconds-before-status-checks": 3}


def accounted(since: float) -> list[dict[str, str]]:
    """What sacct says of the jobs that were submitted since a time, oldest first."""
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since))
    said = subprocess.run(
        ["sacct", "-a", "-X", "-n", "-P", "-D", "-S", start, "-o", ",".join(FIELDS)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = [dict(zip(FIELDS, line.split("|"), strict=True)) for line in said.splitlines()]
    return sorted(found, key=lambda record: int(record["JobIDRaw"]))
