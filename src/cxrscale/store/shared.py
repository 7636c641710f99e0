"""Pictures that stand under several image ids: the same file, byte by byte. Under several patients they leak."""

from collections.abc import Iterable

import pandas as pd


def shared_pictures(records: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The columns of SHARED. records: image_id, path and sha256 of each shard's images."""
    frame = pd.concat([record[["image_id", "path", "sha256"]] for record in records], ignore_index=True)
    twice = frame[frame["sha256"].duplicated(keep=False)]
    return twice.sort_values(["sha256", "image_id"], kind="stable").reset_index(drop=True)
