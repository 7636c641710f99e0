"""docs/loader.md shows code that runs."""

import re
from pathlib import Path

import torch

from cxrscale.common import tables
from cxrscale.data.contracts import TARGETS
from cxrscale.store.staging import staged

PAGE = (Path(__file__).parents[3] / "docs/loader.md").read_text()


def test_the_example_runs(small_store, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(code.splitlines()) == 5
    imports = re.findall(r"`(from cxrscale[^`]*)`", PAGE)
    assert len(imports) == 4
    targets_file = tmp_path / "targets.parquet"
    tables.write(TARGETS, small_store.targets, targets_file)
    seen = []

    def model(pixels):
        seen.append(len(pixels))
        return torch.zeros(len(pixels), 2)

    names = {"store_folder": small_store.folder, "targets_file": targets_file, "model": model}
    exec("\n".join([*imports, code]), names)
    assert seen == [16, 16]
    assert abs(float(names["loss"]) - 0.6931) < 1e-3
    assert len(names["StoreReader"](staged(small_store.folder, tmp_path))) == 48
