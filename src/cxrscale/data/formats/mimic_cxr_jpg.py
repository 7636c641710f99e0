"""MIMIC-CXR-JPG, versions 2.0.0 and 2.1.0 (Johnson et al. 2019, arXiv:1901.07042; PhysioNet).

377,110 images of 227,835 examinations (study_id) of 65,379 patients, 8-bit grey JPEG. Labels are given by examination,
made from its report by the CheXpert or the NegBio labeler; each image takes those of its examination, and images of the
8 examinations without a label row have none. Version 2.1.0 adds a radiologist's labels of the test set. The csv files
may lie zipped or not.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cxrscale.common.errors import StudyError
from cxrscale.common.notes import examples
from cxrscale.data.contracts import RADIOLOGIST
from cxrscale.data.csv_files import (
    check_filled,
    check_one_of,
    check_one_patient_an_examination,
    check_paths,
    check_unique,
    csv_header,
    find_source,
    line_of,
    numbers,
    parse_labels,
    read_csv,
)
from cxrscale.data.findings import CHEXPERT_FINDINGS
from cxrscale.data.formats import Chosen, Format, Sources
from cxrscale.data.spelling import Reading, check_same_spelling

#: Two public parsers find this name for Lung Opacity in the radiologist's file.
RADIOLOGIST_NAMES = {"Airspace Opacity": "Lung Opacity"}


def _either(stem: str) -> tuple[str, str]:
    return f"{stem}.csv.gz", f"{stem}.csv"


def sources(root: Path, chosen: Chosen) -> Sources:
    """The csv files that are read, by their role. Raises StudyError if one is missing."""
    files = {
        "metadata": _either("mimic-cxr-2.0.0-metadata"),
        "split": _either("mimic-cxr-2.0.0-split"),
        "labels": _either(f"mimic-cxr-2.0.0-{chosen.label_source}"),
    }
    if chosen.test_source == RADIOLOGIST:
        files["test_labels"] = _either("mimic-cxr-2.1.0-test-set-labeled")
    return {role: find_source(root, names) for role, names in files.items()}


def read_images(sources: Sources, reading: Reading) -> pd.DataFrame:
    """The images in the order of the metadata file: the columns of `contracts.IMAGES` without shard and order.

    reading: how ids are taken, and where what was found is noted.
    Raises StudyError for a missing column, a repeated or blank id, an unknown split or an image that has no split.
    """
    path = sources["metadata"]
    columns = ["dicom_id", "subject_id", "study_id", "Rows", "Columns"]
    meta = read_csv(path, columns, reading, optional=["ViewPosition"], groups=["ViewPosition"])
    check_unique(meta, "dicom_id", path)
    for column in ("subject_id", "study_id"):
        check_filled(meta, column, path)
    split = read_csv(sources["split"], ["dicom_id", "subject_id", "study_id", "split"], reading)
    check_unique(split, "dicom_id", sources["split"])
    check_one_of(split, "split", ["train", "validate", "test"], sources["split"])
    where, elsewhere = (f"{sources[role]}: dicom_id" for role in ("split", "metadata"))
    check_same_spelling(split["dicom_id"], meta["dicom_id"], where, elsewhere, reading)
    frame = pd.DataFrame(
        {
            "image_id": meta["dicom_id"],
            "subject_id": meta["subject_id"],
            "study_id": meta["study_id"],
            "view": meta["ViewPosition"],
            "path": "files/p"
            + meta["subject_id"].str[:2]
            + "/p"
            + meta["subject_id"]
            + "/s"
            + meta["study_id"]
            + "/"
            + meta["dicom_id"]
            + ".jpg",
            "native_height_px": _pixels(meta["Rows"], path),
            "native_width_px": _pixels(meta["Columns"], path),
            "official_split": meta["dicom_id"].map(split.set_index("dicom_id")["split"]),
        }
    )
    check_paths(frame, path)
    check_one_patient_an_examination(frame, path)
    return frame


def _pixels(raw: pd.Series, path: Path) -> pd.Series:
    values = numbers(raw)
    wrong = raw.notna().to_numpy() & ~(values % 1 == 0)
    if wrong.any():
        position = int(wrong.argmax())
        raise StudyError(
            f"{path} line {line_of(path, position)}: {raw.name} is {raw.iloc[position]!r}; "
            f"expected a whole number of pixels or blank. Correct the row."
        )
    return pd.Series(values, index=raw.index).astype("Int32")


def read_labels(sources: Sources, findings: Sequence[str] | None, reading: Reading) -> pd.DataFrame:
    """Raw labels per image, patients in the order of the label file: the columns of `contracts.LABELS`.

    findings: which of the 14 to read, None for all. reading: how ids are taken, and where what was found is noted. With
    a `test_labels` source, its examinations take the radiologist's labels instead, and the column source says so.
    Raises StudyError for a missing column, a repeated or blank id or a value outside the coding.
    """
    findings = list(findings or CHEXPERT_FINDINGS)
    path, metadata = sources["labels"], sources["metadata"]
    examinations = read_csv(path, ["subject_id", "study_id", *findings], reading)
    check_unique(examinations, "study_id", path)
    check_filled(examinations, "subject_id", path)
    for finding in findings:
        examinations[finding] = parse_labels(examinations[finding], path, finding)
    examinations["source"] = "negbio" if "negbio" in path.name else "chexpert"
    if "test_labels" in sources:
        examinations = _with_radiologist(examinations, sources["test_labels"], findings, path, reading)
    images = read_csv(metadata, ["dicom_id", "subject_id", "study_id"], reading)
    merged = examinations.merge(images, on=["subject_id", "study_id"], how="inner")
    if merged.empty:
        raise StudyError(
            f"no examination of {path} has an image in {metadata}: study_id and subject_id must match. "
            f"Fetch both files again."
        )
    _check_matched(examinations, images, path, metadata, reading)
    renamed = {"dicom_id": "image_id"} | {f: f"label:{f}" for f in findings}
    columns = ["image_id", "subject_id", "study_id", "source", *(f"label:{f}" for f in findings)]
    return merged.rename(columns=renamed)[columns]


def _check_matched(
    examinations: pd.DataFrame, images: pd.DataFrame, path: Path, metadata: Path, reading: Reading
) -> None:
    """Note examinations without an image and images without a label row; stop where another spelling may be why, or a
    examination is of two patients."""
    for column in ("subject_id", "study_id"):
        check_same_spelling(examinations[column], images[column], f"{path}: {column}", f"{metadata}: {column}", reading)
    both = examinations[["study_id", "subject_id"]].merge(
        images[["study_id", "subject_id"]].drop_duplicates(), on="study_id", suffixes=("", "_of_image")
    )
    other = both[both["subject_id"] != both["subject_id_of_image"]]
    if len(other):
        first = other.iloc[0]
        raise StudyError(
            f"examination {first['study_id']} belongs to patient {first['subject_id']} in {path} and to "
            f"{first['subject_id_of_image']} in {metadata}; expected one patient. Fetch both files again."
        )
    of_labels, of_images = (set(frame["study_id"].tolist()) for frame in (examinations, images))
    unlabelled = images[[examination not in of_labels for examination in images["study_id"].tolist()]]
    if len(unlabelled):
        reading.note(
            "labels",
            f"{len(unlabelled):,} of {len(images):,} images belong to {unlabelled['study_id'].nunique():,} "
            f"examinations without a row in {path.name}; they are left out.",
            f"examinations {examples(unlabelled['study_id'].unique())}",
        )
    without = examinations[[examination not in of_images for examination in examinations["study_id"].tolist()]]
    if len(without):
        reading.note(
            "labels",
            f"{len(without):,} of {len(examinations):,} examinations of {path.name} have no image in {metadata.name}.",
            f"examinations {examples(without['study_id'])}",
        )


def _with_radiologist(
    examinations: pd.DataFrame, path: Path, findings: list[str], labels: Path, reading: Reading
) -> pd.DataFrame:
    head = csv_header(path)
    alias = {new: old for old, new in RADIOLOGIST_NAMES.items() if old in head}
    for other, name in RADIOLOGIST_NAMES.items():
        if name in findings and not {other, name} & set(head):
            raise StudyError(f"{path}: there is no column {name!r} or {other!r}; it has {head}. Expected one of them.")
    test = read_csv(path, ["study_id", *(alias.get(f, f) for f in findings)], reading)
    check_unique(test, "study_id", path)
    check_same_spelling(test["study_id"], examinations["study_id"], f"{path}: study_id", f"{labels}: study_id", reading)
    test = test.rename(columns={old: new for new, old in alias.items()}).set_index("study_id")
    examinations = examinations.set_index("study_id", drop=False)
    both = examinations.index.intersection(test.index)
    if not len(both):
        raise StudyError(f"no examination of {path} is in {labels}: study_id must match. Fetch both files again.")
    for finding in findings:
        examinations.loc[both, finding] = parse_labels(test[finding], path, finding).loc[both]
    examinations.loc[both, "source"] = RADIOLOGIST
    return examinations.reset_index(drop=True)


FORMAT = Format(
    name="mimic-cxr-jpg",
    sources=sources,
    image_roles=("metadata", "split"),
    label_roles=("metadata", "labels", "test_labels"),
    read_images=read_images,
    read_labels=read_labels,
    findings=CHEXPERT_FINDINGS,
    label_sources=("chexpert", "negbio"),
    test_sources=("same", RADIOLOGIST),
    official_split="always",
    synthetic=True,
)
