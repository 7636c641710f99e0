"""The fingerprint of a store: checksums of some of the pictures it is made of, taken before any is ingested.

Native pictures are no inputs of the workflow, so another data set under the same name and root, or the same names with
other pictures, would go unseen. Whenever the workflow starts, the files of the fingerprint are read again and compared;
where the data set lies does not matter.
"""

from pathlib import Path

import pandas as pd

from cxrscale.common import tables
from cxrscale.common.atomic import is_there
from cxrscale.common.errors import StudyError, may_pass
from cxrscale.common.notes import examples
from cxrscale.common.provenance import file_digest
from cxrscale.store.contracts import FINGERPRINT
from cxrscale.store.quarantine import named_files_absent

FINGERPRINT_FILE = "fingerprint.csv"  # in the store's folder

#: Pictures of a fingerprint: enough that any other data set differs, few enough to be read at each start.
PICTURES = 64


def fingerprint(images: pd.DataFrame, root: Path) -> pd.DataFrame:
    """The columns of FINGERPRINT. images: image_id, path and order of the data set; root: its folder.

    Raises StudyError if none of the pictures is there: such a fingerprint would let every other data set pass.
    """
    chosen = images.sort_values(["order", "image_id"], kind="stable").head(PICTURES)[["image_id", "path"]]
    digests = pd.Series([_sha256(root / path) for path in chosen["path"]], index=chosen.index, dtype="str")
    if digests.isna().all():
        raise StudyError(f"{named_files_absent(images, root)}. Set dataset.root or fetch the missing files.")
    return chosen.assign(sha256=digests).reset_index(drop=True)


def _sha256(path: Path) -> str | None:
    try:
        return file_digest(path)
    except OSError as error:
        if may_pass(error):
            raise
        return None


def changed(recorded: pd.DataFrame, root: Path) -> pd.DataFrame:
    """The rows of a fingerprint whose files have other bytes than were recorded. A file that is gone is no change."""
    now = [_sha256(root / path) for path in recorded["path"]]
    differs = [
        isinstance(before, str) and after is not None and before != after
        for before, after in zip(recorded["sha256"], now, strict=True)
    ]
    return recorded[differs]


def check_fingerprint(store: Path, root: Path) -> None:
    """Raise StudyError if the store was made of other pictures than lie below the root now.

    A store without a fingerprint, which has ingested nothing, passes.
    """
    path = store / FINGERPRINT_FILE
    if not is_there(path):
        return
    recorded = tables.read(FINGERPRINT, path)
    others = changed(recorded, root)
    if len(others):
        raise StudyError(
            f"{store}: was made of other pictures than lie in {root} (dataset.root): of the {len(recorded)} compared, "
            f"{len(others)} have other bytes ({examples(others['path'])}). If this is another data set, give it "
            f"another dataset.name. If its pictures were replaced, run `snakemake --cores all check_sources` with the "
            f"same config, which sets the shards they belong to aside, then run the workflow again."
        )
