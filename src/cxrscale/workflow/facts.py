"""What the workflow must know of a data set before any job: which csv files it has, by content, and how many images."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cxrscale.common.errors import StudyError
from cxrscale.common.provenance import file_digest
from cxrscale.data import subgroups
from cxrscale.data.settings import SYNTHETIC_FILES
from cxrscale.data.size import count_images
from cxrscale.workflow.layout import Layout

if TYPE_CHECKING:
    from cxrscale.workflow.config import StudyConfig


@dataclass(frozen=True)
class DatasetFacts:
    """Csv files count by their content (docs/reruns.md), but those of a synthetic data set are made here: an input.

    made_csv: csv files of a synthetic data set. made_pictures: the list of the checksums of its pictures. made_boxes:
    its boxes. planted: its answer. label_digests, image_digests: role -> SHA-256 of the csv files that are given.
    boxes: the csv file of boxes, "" without; boxes_digest: of one that is given; subgroups_digest: of
    evaluation.subgroups. images: how many there are.
    """

    images: int
    label_digests: dict[str, str] = field(default_factory=dict)
    image_digests: dict[str, str] = field(default_factory=dict)
    made_csv: list[str] = field(default_factory=list)
    made_pictures: list[str] = field(default_factory=list)
    made_boxes: list[str] = field(default_factory=list)
    planted: list[str] = field(default_factory=list)
    boxes: str = ""
    boxes_digest: str | None = None
    subgroups_digest: str | None = None


def facts_of(study: "StudyConfig", layout: Layout) -> DatasetFacts:
    """Raises StudyError if a csv file is missing or cannot be read, or `cam.boxes` is no file."""
    root = Path(study.dataset.root)
    evaluation = study.evaluation
    groups = subgroups.checked_digest(evaluation.subgroups, study.file_groups, study.dataset.exact_ids)
    if study.dataset.synthetic is not None:

        def made(name: str) -> str:
            return str(root / name)

        return DatasetFacts(
            images=3 * study.dataset.synthetic.patients,
            made_csv=[made(name) for name in SYNTHETIC_FILES],
            made_pictures=[made("SHA256SUMS.txt")],
            made_boxes=[made("boxes.csv")],
            planted=[made("planted.csv")],
            boxes=made("boxes.csv"),
            subgroups_digest=groups,
        )
    boxes = study.boxes_file
    if study.cam.boxes is not None and not Path(boxes).is_file():
        raise StudyError(f"cam.boxes: there is no file {boxes}; expected a csv below dataset.root, or null")
    digests = study.format.digests(root, study.chosen)
    listed = Path(layout.table("images"))
    return DatasetFacts(
        images=count_images(listed, study.format, root, study.chosen),
        label_digests=digests["labels"],
        image_digests=digests["images"],
        boxes=boxes,
        boxes_digest=file_digest(boxes) if boxes else None,
        subgroups_digest=groups,
    )
