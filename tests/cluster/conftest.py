"""Studies on a real SLURM that tests/cluster/slurm.sh has brought up: one machine that pretends two nodes of two GPUs."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import timm
import yaml
from safetensors.torch import save_file

from tests.workflow.conftest import ROOT, TINY, copy_checkout

#: Seconds that anything awaited here may take.
PATIENCE_S = 240


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave these tests out where `make test-cluster` did not bring SLURM up."""
    if os.environ.get("CXRSCALE_CLUSTER") != "1":
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs the SLURM of make test-cluster"))


def site(folder: Path) -> dict[str, Any]:
    """The profile for SLURM of a checkout, with the values of this test's site and a status that is asked for often."""
    profile = yaml.safe_load((folder / "profiles/slurm/config.yaml").read_text())
    for resources in (profile["default-resources"], *profile.get("set-resources", {}).values()):
        if "slurm_partition" in resources:
            resources["slurm_partition"] = "test"
        if "slurm_account" in resources:
            resources["slurm_account"] = "study"
    return profile | {"latency-wait": 10, "slurm-init-seconds-before-status-checks": 3}
