"""The images that a store leaves out, and how many may be before a study stops."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from cxrscale.common import tables
from cxrscale.common.atomic import is_there
from cxrscale.common.errors import StudyError
from cxrscale.store.contracts import QUARANTINE


def check_fraction(quarantine: pd.DataFrame, n_images: int, max_fraction: float) -> None:
    """Raise StudyError if more than max_fraction of n_images were left out of the store."""
    if len(quarantine) > max_fraction * n_images:
        reasons = quarantine["reason"].value_counts()
        raise StudyError(
            f"{len(quarantine)} of {n_images} images cannot be used, more than store.max_unreadable_fraction = "
            f"{max_fraction}: {'; '.join(f'{n} {reason}' for reason, n in reasons.head(3).items())}. "
            f"The shards' quarantine files name them."
        )


def check_unreadable(store: Path, max_fraction: float) -> None:
    """`check_fraction` for a store that was made before, perhaps when more were allowed; one without passes."""
    path, index = store / "base/quarantine.csv", store / "images.parquet"
    if is_there(path) and is_there(index):
        check_fraction(tables.read(QUARANTINE, path), int(pq.read_metadata(index).num_rows), max_fraction)


def named_files_absent(images: pd.DataFrame, root: Path) -> str:
    """How many of the files that the data set names are not there, in words. It looks at each: for a run that fails."""
    absent = [str(path) for path in images["path"] if not is_there(root / str(path))]
    first = f" (first: {absent[0]})" if absent else ""
    return f"{len(absent)} of {len(images)} named files are absent under {root.resolve()}{first}"
