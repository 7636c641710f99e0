"""The csv files of MIMIC-CXR-JPG at their full size, filled at random: for tests and benchmarks of what reads them.

    python -m cxrscale.data.random_mimic FOLDER [--fraction F] [--seed S]

No image and no data of anyone is in them: ids are random numbers in the data set's ranges, and labels are dealt out at
random until they have the published counts. Those are of MIMIC-CXR-JPG 2.0.0 (Johnson et al. 2019, arXiv:1901.07042,
and physionet.org/content/mimic-cxr-jpg): images, examinations and patients of each official split, views, and the
CheXpert labeler's counts per finding in train. Patients and examinations of each split were held against the published
totals only. What is not published is made up and says so here: validate and test
have train's shares of labels, the NegBio file has CheXpert's counts, all examinations without a label row are in train.
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
import pandas as pd

from cxrscale.common.errors import StudyError
from cxrscale.data.findings import CHEXPERT_FINDINGS
from cxrscale.data.synthetic import MARKER

#: Patients, examinations and images of each official split.
SPLIT_COUNTS = {
    "train": (64_586, 222_758, 368_960),
    "validate": (500, 1_808, 2_991),
    "test": (293, 3_269, 5_159),
}
PATIENTS, STUDIES, IMAGES = (sum(counts) for counts in zip(*SPLIT_COUNTS.values(), strict=True))

#: Images of each view. 36 images lie in rarer positions; "" is not recorded.
VIEWS = {"AP": 147_169, "PA": 96_155, "LATERAL": 82_852, "LL": 35_129, "rare": 36, "": 15_769}
RARE_VIEWS = ("AP AXIAL", "AP LLD", "AP RLD", "LAO", "LPO", "PA LLD", "PA RLD", "RAO", "SWIMMERS", "XTABLE LATERAL")

#: Examinations of train that are positive, negative and uncertain.
TRAIN_LABELS = {
    "Atelectasis": (44_012, 921, 9_623),
    "Cardiomegaly": (38_002, 15_563, 5_753),
    "Consolidation": (10_199, 7_791, 2_913),
    "Edema": (25_549, 24_746, 11_426),
    "Enlarged Cardiomediastinum": (6_798, 5_158, 9_015),
    "Fracture": (3_675, 871, 295),
    "Lung Lesion": (5_939, 822, 996),
    "Lung Opacity": (49_512, 2_794, 2_052),
    "No Finding": (74_019, 0, 0),
    "Pleural Effusion": (51_680, 26_532, 5_184),
    "Pleural Other": (1_884, 120, 707),
    "Pneumonia": (15_333, 23_771, 17_313),
    "Pneumothorax": (9_159, 41_250, 848),
    "Support Devices": (63_971, 3_014, 95),
}
UNLABELLED = 8  # examinations without a label row
BLANK = 2_414  # label rows without any label
READ_BY_RADIOLOGIST = 687  # examinations of test that the radiologist of version 2.1.0 read

SMALLEST_FRACTION = 0.002  # below it a finding's count exceeds the examinations that can hold it


def scaled(count: int, fraction: float) -> int:
    """A full count in a slice: rounded, but one at least of what there is."""
    return max(round(count * fraction), min(count, 1))


def write_tables(folder: Path, fraction: float = 1.0, seed: int = 0) -> None:
    """Write the five csv files into `folder`: metadata, split, chexpert and negbio zipped, the radiologist's not.

    The same fraction and seed give the same files. Raises StudyError for a fraction that `build` refuses or a folder
    that holds something else, so that no real file is written over.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise StudyError(f"{folder} is not empty and was not made by cxrscale. Name a new folder.")
    frames = build(fraction, seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("Made by cxrscale; no patient is in it. It may be deleted and made again.\n")
    for name, frame in frames.items():
        text = frame.to_csv(index=False, lineterminator="\n").encode()
        # mtime 0: the same bytes on every day. Level 1: made in seconds, and read as fast as any other.
        (folder / name).write_bytes(gzip.compress(text, compresslevel=1, mtime=0) if name.endswith(".gz") else text)


def build(fraction: float = 1.0, seed: int = 0) -> dict[str, pd.DataFrame]:
    """The tables by the name of their file, rows sorted by patient, examination and image as in the data set.

    fraction: part of every count, rounded; one at least. Raises StudyError if it is not within SMALLEST_FRACTION to 1.
    Columns and values are those of the csv files; label columns are float with NaN for blank, blank texts are "".
    """
    if not SMALLEST_FRACTION <= fraction <= 1:
        raise StudyError(f"fraction is {fraction}; expected {SMALLEST_FRACTION} to 1.")
    rng = np.random.default_rng(seed)
    examinations = _examinations(fraction, rng)
    images = _images(examinations, fraction, rng)
    metadata, split = _metadata(images, rng), images[["dicom_id", "study_id", "subject_id", "split"]]
    unlabelled = rng.choice(
        np.flatnonzero(examinations["split"] == "train"), scaled(UNLABELLED, fraction), replace=False
    )
    labelled = examinations.drop(index=examinations.index[unlabelled]).reset_index(drop=True)
    chexpert, negbio = _labels(labelled, fraction, rng), _labels(labelled, fraction, rng)
    read = np.sort(
        rng.choice(np.flatnonzero(labelled["split"] == "test"), scaled(READ_BY_RADIOLOGIST, fraction), False)
    )
    radiologist = chexpert.drop(columns="subject_id").iloc[read].rename(columns={"Lung Opacity": "Airspace Opacity"})
    return {
        "mimic-cxr-2.0.0-metadata.csv.gz": metadata,
        "mimic-cxr-2.0.0-split.csv.gz": split,
        "mimic-cxr-2.0.0-chexpert.csv.gz": chexpert,
        "mimic-cxr-2.0.0-negbio.csv.gz": negbio,
        "mimic-cxr-2.1.0-test-set-labeled.csv": radiologist,
    }


def _deal(things: int, holders: int, skew: float, rng: np.random.Generator) -> np.ndarray:
    """How many of the things each holder has: one at least, a few have many. Returns int (holder,), sum `things`."""
    weights = rng.gamma(skew, size=holders)
    return 1 + rng.multinomial(things - holders, weights / weights.sum())


def _examinations(fraction: float, rng: np.random.Generator) -> pd.DataFrame:
    """subject_id, study_id, split and the number of images of each examination, sorted by patient and examination."""
    split, per_patient, per_examination = [], [], []
    for name, counts in SPLIT_COUNTS.items():
        patients, examinations, images = (scaled(count, fraction) for count in counts)
        split += [name] * examinations
        per_patient.append(_deal(examinations, patients, 0.5, rng))
        per_examination.append(_deal(images, examinations, 4.0, rng))
    number = np.concatenate(per_patient)
    subjects = 10_000_000 + rng.choice(10_000_000, len(number), replace=False)
    frame = pd.DataFrame(
        {
            "subject_id": np.repeat(subjects, number),
            "study_id": 50_000_000 + rng.choice(10_000_000, number.sum(), replace=False),
            "split": split,
            "images": np.concatenate(per_examination),
        }
    )
    return frame.sort_values(["subject_id", "study_id"], ignore_index=True)


def _images(examinations: pd.DataFrame, fraction: float, rng: np.random.Generator) -> pd.DataFrame:
    """The examinations' rows once an image, with dicom_id, ViewPosition, StudyDate and StudyTime."""
    count = len(examinations)
    clock = rng.integers([0, 0, 0], [24, 60, 60], (count, 3)) @ [10_000, 100, 1] + rng.integers(0, 1000, count) / 1000
    years, months, days = 2110 + rng.integers(0, 100, count), rng.integers(1, 13, count), rng.integers(1, 29, count)
    examinations = examinations.assign(StudyDate=years * 10_000 + months * 100 + days, StudyTime=clock)
    frame = examinations.loc[examinations.index.repeat(examinations["images"])].reset_index(drop=True)
    digits = rng.bytes(20 * len(frame)).hex(sep="-", bytes_per_sep=4).split("-")
    frame["dicom_id"] = list(map("-".join, zip(*[iter(digits)] * 5, strict=True)))
    frame["ViewPosition"] = _views(len(frame), fraction, rng)
    return frame.sort_values(["subject_id", "study_id", "dicom_id"], ignore_index=True)


def _views(images: int, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """The view of each image; what rounding leaves over goes to the commonest."""
    counts = {view: scaled(count, fraction) for view, count in VIEWS.items()}
    counts["AP"] += images - sum(counts.values())
    rare = [RARE_VIEWS[i % len(RARE_VIEWS)] for i in range(counts.pop("rare"))]
    return rng.permutation(np.array([*rare, *np.repeat(list(counts), list(counts.values()))], dtype=object))


def _metadata(images: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The metadata file; Rows and Columns in pixels, StudyTime as hours, minutes and seconds in one number."""
    view = images["ViewPosition"]
    procedure = pd.Series(np.where(view == "AP", "CHEST (PORTABLE AP)", "CHEST (PA AND LAT)"))
    sizes = np.array([(3056, 2544), (2544, 3056), (2539, 2705), (2022, 1736)])[rng.integers(0, 4, len(images))]
    projections = {"AP": "antero-posterior", "PA": "postero-anterior", "LATERAL": "lateral", "LL": "left lateral"}
    return pd.DataFrame(
        {
            "dicom_id": images["dicom_id"],
            "subject_id": images["subject_id"],
            "study_id": images["study_id"],
            "PerformedProcedureStepDescription": procedure.where(rng.random(len(images)) < 0.9, ""),
            "ViewPosition": view,
            "Rows": sizes[:, 0],
            "Columns": sizes[:, 1],
            "StudyDate": images["StudyDate"],
            "StudyTime": images["StudyTime"],
            "ProcedureCodeSequence_CodeMeaning": procedure,
            "ViewCodeSequence_CodeMeaning": view.map(projections).fillna(""),
            "PatientOrientationCodeSequence_CodeMeaning": rng.choice(["Erect", "Recumbent", ""], len(images)),
        }
    )


def _labels(examinations: pd.DataFrame, fraction: float, rng: np.random.Generator) -> pd.DataFrame:
    """The label file of the examinations: each split has train's shares, rounded, and train its counts."""
    values = np.full((len(examinations), len(CHEXPERT_FINDINGS)), np.nan)
    blank_left = scaled(BLANK, fraction)
    for name in ("validate", "test", "train"):
        rows = rng.permutation(np.flatnonzero(examinations["split"] == name))
        blank = blank_left if name == "train" else round(blank_left * len(rows) / len(examinations))
        blank_left -= blank
        share = fraction * (1 if name == "train" else SPLIT_COUNTS[name][1] / SPLIT_COUNTS["train"][1])
        counts = {f: tuple(scaled(count, share) for count in TRAIN_LABELS[f]) for f in CHEXPERT_FINDINGS}
        values[rows[blank:]] = _dealt_labels(len(rows) - blank, counts, rng)
    labels = pd.DataFrame(values, columns=list(CHEXPERT_FINDINGS))
    return pd.concat([examinations[["subject_id", "study_id"]], labels], axis=1)


def _dealt_labels(rows: int, counts: dict[str, tuple[int, ...]], rng: np.random.Generator) -> np.ndarray:
    """Labels with exactly these counts, no row blank, by the labelers' rules: an examination with No Finding has no
    positive and no uncertain finding but Support Devices, any other has one at least. Returns float (row, finding)."""
    values = np.full((rows, len(counts)), np.nan)
    place = {finding: column for column, finding in enumerate(counts)}
    normal = counts["No Finding"][0]
    values[:normal, place["No Finding"]] = 1
    abnormal = np.arange(normal, rows)
    # First a finding for every abnormal examination, in proportion to the findings' counts; then the rest anywhere.
    free = ("No Finding", "Support Devices")
    total = {f: positive + uncertain for f, (positive, _, uncertain) in counts.items() if f not in free}
    first = rng.permutation(np.repeat(list(total), list(total.values())))[: len(abnormal)]
    for finding, (positive, negative, uncertain) in counts.items():
        column = values[:, place[finding]]
        if finding in total:
            own, others = abnormal[first == finding], abnormal[first != finding]
            more = rng.choice(others, total[finding] - len(own), replace=False)
            chosen = rng.permutation(np.concatenate([own, more]))
        else:
            chosen = rng.permutation(rows)[: positive + uncertain]
        if finding != "No Finding":
            column[chosen[:positive]], column[chosen[positive:]] = 1, -1
        column[rng.choice(np.flatnonzero(np.isnan(column)), negative, replace=False)] = 0
    return values


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m cxrscale.data.random_mimic",
        description="Write csv files of the size and layout of MIMIC-CXR-JPG's, filled at random, without images.",
    )
    parser.add_argument("folder", type=Path, help="new folder, or one that this command has filled")
    parser.add_argument("--fraction", type=float, default=1.0, help="part of every count (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files (default 0)")
    arguments = parser.parse_args()
    try:
        write_tables(arguments.folder, arguments.fraction, arguments.seed)
    except StudyError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
