"""What users get wrong: one clear message before hours are lost, and what exists stays as it is."""

import gzip
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrscale.data.findings import CHEXPERT_FINDINGS

from .conftest import TINY, copy_checkout, planned, snakemake, tables_of


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


def mimic_csv(root: Path, patients: int = 60) -> int:
    """MIMIC-CXR-JPG's csv files without any image. Returns the number of images."""
    rng = np.random.default_rng(0)
    images = [(f"1{p:07d}", f"5{p:07d}", f"{p:08x}-{i}") for p in range(patients) for i in range(2)]
    subject, study, dicom = (list(column) for column in zip(*images, strict=True))
    common = pd.DataFrame({"dicom_id": dicom, "subject_id": subject, "study_id": study})
    views = rng.choice(["AP", "PA", "LATERAL", ""], len(images))
    root.mkdir(parents=True)
    common.assign(ViewPosition=views, Rows=3056, Columns=2544).to_csv(
        root / "mimic-cxr-2.0.0-metadata.csv.gz", index=False
    )
    common.assign(split="train").to_csv(root / "mimic-cxr-2.0.0-split.csv.gz", index=False)
    studies = common.drop_duplicates("study_id")[["subject_id", "study_id"]].reset_index(drop=True)
    labels = pd.DataFrame(
        rng.choice([1.0, 0.0, -1.0, np.nan], (len(studies), len(CHEXPERT_FINDINGS))), columns=list(CHEXPERT_FINDINGS)
    )
    pd.concat([studies, labels], axis=1).to_csv(root / "mimic-cxr-2.0.0-chexpert.csv.gz", index=False)
    return len(images)


def test_default_config_plans_labels_and_stops_only_at_images(checkout: Path) -> None:
    count = mimic_csv(checkout / "data/mimic-cxr-jpg")
    jobs = planned(checkout, config=None)
    assert jobs["train"] == 8
    assert jobs["ingest_shard"] == 256
    assert jobs["downscale_together"] == 256  # three resolutions each
    built = snakemake(checkout, "targets", config=None)
    assert built.returncode == 0, built.stdout
    targets = pd.read_parquet(checkout / "results/mimic-resolution/targets/drawn/fold0.parquet")
    assert len(targets) == count
    assert sum(c.startswith("target:") for c in targets) == 14
    stopped = snakemake(checkout, "stores", config=None)
    assert stopped.returncode != 0
    assert f"{count} of {count} named files are absent under" in stopped.stdout
    assert "data/mimic-cxr-jpg" in stopped.stdout
    assert "files/p10/p10000" in stopped.stdout
    assert (checkout / "results/mimic-resolution/targets/drawn/fold0.parquet").is_file()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training={epoch: 3}", ["training.epoch: unknown key", "'epochs'"]),
        ("models=[{name: densnet121}]", ["densnet121", "did you mean 'densenet121'"]),
        ("resolutions_px=[96]", ["96", "store.base_resolution_px 48"]),
        ("findings=[Oedema]", ["Oedema", "Edema"]),
        ("dataset={synthetic: null, root: nowhere}", ["dataset.root", "nowhere"]),
        ("dataset={synthetic: null, root: tests}", ["mimic-cxr-2.0.0-metadata.csv.gz", "tests"]),
        ("split={use_folds: [3]}", ["use_folds", "0 to 2"]),
        ("seeds=[1, 1]", ["seeds", "twice"]),
        ("training={epochs: 1, epochs: 2}", ["--config: training.epochs stands twice", "Remove one"]),
    ],
)
def test_wrong_config_stops_before_any_job(checkout: Path, override: str, expected: list[str]) -> None:
    result = snakemake(checkout, "-n", "--config", override)
    assert result.returncode != 0
    assert "Traceback" not in result.stdout
    assert all(text in result.stdout for text in expected), result.stdout


def test_what_stands_twice_stops_before_any_job(checkout: Path, tmp_path: Path) -> None:
    twice = tmp_path / "twice.yaml"
    twice.write_text("labels: {uncertain: ones}\nseeds: [0]\nlabels: {missing: ignore}\n")
    given = [
        ([], str(twice), f"{twice}: labels stands twice, in lines 1 and 3"),
        (["--config", "seeds=[0]", "seeds=[1]"], TINY, "--config: seeds is given twice"),
        (["--config", "seeds=[0]", "--config", "study=a"], TINY, "the command line holds --config 2 times"),
    ]
    for arguments, config, said in given:
        result = snakemake(checkout, "-n", *arguments, config=config)
        assert result.returncode != 0
        assert "Traceback" not in result.stdout
        assert said in result.stdout


def manifest_study(folder: Path, images: int = 30) -> pd.DataFrame:
    """A manifest of JPEG and 16-bit PNG pictures."""
    rng = np.random.default_rng(1)
    rows = []
    (folder / "own/images").mkdir(parents=True)
    for i in range(images):
        pixels = rng.integers(0, 256, (50 + i, 60), dtype=np.uint8)
        name = f"images/{i}.{'png' if i % 2 else 'jpg'}"
        picture = Image.fromarray(pixels.astype(np.uint16) * 257) if i % 2 else Image.fromarray(pixels)
        picture.save(folder / "own" / name)
        rows.append((f"i{i}", f"p{i // 2}", f"s{i}", name, "PA", i % 3 % 2, rng.choice(["1", "0", "-1", ""])))
    columns = ["image_id", "subject_id", "study_id", "path", "view", "Nodule", "Mass"]
    frame = pd.DataFrame(rows, columns=columns)
    frame.to_csv(folder / "own/manifest.csv", index=False)
    (folder / "own.yaml").write_text(
        "study: own\naccelerator: cpu\nfindings: [Nodule, Mass]\n"
        "dataset: {name: own, format: manifest, root: own}\n"
        "store: {base_resolution_px: 32, shards: 2, max_unreadable_fraction: 0.05}\n"
        "resolutions_px: [16, 32]\nmodels: [{name: test_resnet}]\n"
        "split: {folds: 3, validate_fraction: 0.2, combine_fraction: 0.2}\n"
        "training: {epochs: 1, batch_images: 8, workers: 0}\n"
    )
    return frame


def test_broken_image_is_quarantined_and_too_many_stop_the_run(tmp_path: Path) -> None:
    folder = copy_checkout(tmp_path)
    manifest_study(folder)
    (folder / "own/images/4.jpg").write_bytes(b"not a picture")
    result = snakemake(folder, "stores", config="own.yaml")
    assert result.returncode == 0, result.stdout
    (quarantine,) = (folder / "results/stores").glob("own-*/base/quarantine.csv")
    table = pd.read_csv(quarantine)
    assert table["image_id"].tolist() == ["i4"]
    assert "cannot be decoded" in table["reason"][0]
    for name in ("base", "16"):
        assert len(pd.read_parquet(quarantine.parents[1] / name / "index.parquet")) == 29

    (folder / "own/images/7.png").unlink()
    result = snakemake(folder, "stores", "--forceall", config="own.yaml")
    assert result.returncode != 0
    assert "2 of 30 images cannot be used" in result.stdout or "named files are absent" in result.stdout


def test_a_picture_of_many_patients_stops_and_of_a_few_is_kept_in_one_split(tmp_path: Path) -> None:
    folder = copy_checkout(tmp_path)
    frame = manifest_study(folder, images=40)
    frame["view"] = ["AP erect", "LPO"] * 20
    frame.loc[frame.index % 2 == 0, "path"] = "images/0.jpg"
    frame.to_csv(folder / "own/manifest.csv", index=False)
    drawn = snakemake(folder, "targets", config="own.yaml")
    assert drawn.returncode == 0, drawn.stdout
    stopped = snakemake(folder, "results/own/targets/fold0.parquet", config="own.yaml")
    assert stopped.returncode != 0
    assert (
        "20 patients share 1 pictures, the same files byte by byte (images/0.jpg of p0, p5, p6 and 17" in stopped.stdout
    )
    assert "split.most_sharing_patients = 10" in stopped.stdout

    frame.loc[frame.index > 4, "path"] = [f"images/{i}.{'png' if i % 2 else 'jpg'}" for i in range(5, 40)]
    frame.to_csv(folder / "own/manifest.csv", index=False)
    (store,) = (folder / "results/stores").glob("own-*")
    assert snakemake(folder, "check_sources", config="own.yaml").returncode == 0
    made = snakemake(folder, "results/own/notes/pictures.csv", config="own.yaml")
    assert made.returncode == 0, made.stdout
    notes = pd.concat(pd.read_csv(path) for path in sorted((folder / "results/own/notes").glob("*.csv")))
    assert "3 patients share 1 pictures" in " ".join(notes["note"])
    assert "leave out" in " ".join(notes["note"])
    targets = pd.read_parquet(folder / "results/own/targets/fold0.parquet")
    assert targets.loc[targets["subject_id"].isin(["p0", "p1", "p2"]), "split"].nunique() == 1
    assert len(pd.read_csv(store / "base/shared.csv")) == 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("dataset={views: [PA, P A]}", ["dataset.views: no image has the view 'P A' (did you mean 'PA'?)"]),
        ("report={findings: [Nodul]}", ["report.findings names 'Nodul' (did you mean 'Nodule'?)"]),
        ("labels={per_finding: {Masss: {uncertain: ones}}}", ["labels.per_finding names 'Masss'", "'Mass'"]),
        ("cam={boxes: boxes.csv}", ["cam.boxes", "no box is of one of the study's images", "nobody"]),
        (
            "evaluation={groups: [sex], subgroups: own/sex.csv}",
            ["evaluation.subgroups: no subject_id of own/sex.csv is one of the study's"],
        ),
        ("split={folds: 50}", ["15 patients cannot fill 50 folds"]),
    ],
)
def test_what_matches_nothing_stops_when_labels_are_read(
    own_pictures: Path, settings: str, expected: list[str]
) -> None:
    result = snakemake(own_pictures, "targets", "--config", "findings=null", settings, config="own.yaml")
    assert result.returncode != 0
    assert "Traceback" not in result.stdout
    assert all(text in result.stdout for text in expected), result.stdout


def test_boxes_of_own_pictures_are_measured_against_and_count_by_content(tmp_path: Path) -> None:
    folder = copy_checkout(tmp_path)
    pictures = manifest_study(folder)
    with (folder / "own.yaml").open("a") as handle:
        handle.write("cam: {boxes: boxes.csv}\n")
    missing = snakemake(folder, "-n", config="own.yaml")
    assert missing.returncode != 0
    assert "cam.boxes: there is no file own/boxes.csv" in missing.stdout
    shown = pictures.loc[pictures["Nodule"] == 1, ["image_id"]]
    boxes = shown.assign(finding="Nodule", x_min=0, y_min=0, x_max=30, y_max=50)
    boxes.to_csv(folder / "own/boxes.csv", index=False)
    table = "results/own/learners/test_resnet/32px/fold0-seed0/localisation.csv"
    result = snakemake(folder, table, config="own.yaml")
    assert result.returncode == 0, result.stdout
    found = pd.read_csv(folder / table).set_index(["finding", "size", "measure"])
    targets = pd.read_parquet(folder / "results/own/targets/fold0.parquet")
    in_test = (targets["split"] == "test") & (targets["target:Nodule"] == 1)
    assert found.loc[("Nodule", "all", "energy"), "n_maps"] == in_test.sum() > 0
    assert found.loc[("Mass", "all", "energy"), "n_maps"] == 0
    heights = 50 + targets.loc[in_test, "image_id"].str[1:].astype(int)
    # Half the width; of the height 50 px, to the cell.
    assert found.loc[("Nodule", "all", "energy"), "chance"] == pytest.approx((25 / heights).mean(), abs=1 / 256)
    assert planned(folder, table, config="own.yaml") == {}
    boxes.assign(x_max=20).to_csv(folder / "own/boxes.csv", index=False)
    assert planned(folder, table, config="own.yaml") == {"localise": 1}


@pytest.fixture
def own_pictures(tmp_path: Path) -> Path:
    """A study of a manifest, with boxes and subgroups of nobody in it."""
    folder = copy_checkout(tmp_path)
    manifest_study(folder)
    header = "image_id,finding,x_min,y_min,x_max,y_max"
    (folder / "own/boxes.csv").write_text(f"{header}\nnobody,Nodule,1,1,9,9\n")
    (folder / "own/sex.csv").write_text("subject_id,sex\nnobody,F\n")
    return folder


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("subject_id", "P0", ["'p0' on line 2", "'P0' on line 5", "which may be the same", "dataset.ids to exact"]),
        ("subject_id", "nan", ["subject_id is 'nan' on line 5, which says that there is none"]),
        ("view", "pa", ["view is 'PA' on line 2 and 'pa' on line 5", "which may be the same"]),
        ("Mass", "2", ["manifest.csv line 5", "Mass is '2'", "expected 1, 0, -1"]),
        ("path", "../elsewhere.jpg", ["manifest.csv line 5", "leads out of dataset.root"]),
        ("image_id", "i0", ["lines 2 and 5", "'i0' stands twice"]),
        ("study_id", "s0", ["study_id s0", "p0 and p1"]),
        ("split", "training", ["line 5", "'training'", "train, validate"]),
    ],
)
def test_wrong_row_is_named(checkout: Path, tmp_path: Path, column: str, value: str, expected: list[str]) -> None:
    frame = manifest_study(tmp_path)
    if column == "split":
        frame["split"] = ""
    frame[column] = frame[column].astype(object)
    frame.loc[3, column] = value
    frame.to_csv(tmp_path / "own/manifest.csv", index=False)
    override = f"dataset={{root: {tmp_path / 'own'}}}"
    result = snakemake(checkout, "targets", "--config", override, config=str(tmp_path / "own.yaml"))
    assert result.returncode != 0
    assert "Traceback" not in result.stdout
    assert all(text in result.stdout for text in expected), result.stdout


def test_missing_column_is_named(checkout: Path, tmp_path: Path) -> None:
    manifest_study(tmp_path).drop(columns="view").to_csv(tmp_path / "own/manifest.csv", index=False)
    override = f"dataset={{root: {tmp_path / 'own'}}}"
    result = snakemake(checkout, "targets", "--config", override, config=str(tmp_path / "own.yaml"))
    assert result.returncode != 0
    assert "there is no column 'view'" in result.stdout


def test_truncated_csv_is_named(checkout: Path, tmp_path: Path) -> None:
    root = tmp_path / "mimic"
    mimic_csv(root)
    whole = (root / "mimic-cxr-2.0.0-metadata.csv.gz").read_bytes()
    assert gzip.decompress(whole)
    (root / "mimic-cxr-2.0.0-metadata.csv.gz").write_bytes(whole[: len(whole) // 2])
    result = snakemake(checkout, "targets", "--config", f"dataset={{root: {root}}}", "study=cut", config=None)
    assert result.returncode != 0
    assert "metadata.csv.gz: cannot be read as csv" in result.stdout


def test_a_second_run_elsewhere_gives_the_same_bytes_and_blanks_in_names_do_no_harm(
    finished: Path, tmp_path: Path
) -> None:
    folder = copy_checkout(tmp_path / "my study & (co); #1")
    (folder / "data").mkdir()
    shutil.copy(finished / "data/test_resnet.safetensors", folder / "data/test resnet.safetensors")
    config = (folder / TINY).read_text().replace("data/test_resnet", "data/test resnet")
    (folder / "my tiny.yaml").write_text(config)
    learner = "results/tiny/learners/test_resnet/32px/fold0-seed0"
    result = snakemake(folder, config="my tiny.yaml")
    assert result.returncode == 0, result.stdout
    (copy,) = (folder / "results/weights").glob("*.safetensors")
    first, second = tables_of(finished), tables_of(folder)
    for name in [f"weights/{copy.name}", "weights/test_resnet.local-test_resnet.safetensors"]:
        assert bool(first.pop(name, None)) != bool(second.pop(name, None))  # named after the user's file
    assert first.keys() == second.keys()
    assert len(first) > 60
    assert [name for name in first if first[name] != second[name]] == []
    assert copy.read_bytes() == (folder / "data/test resnet.safetensors").read_bytes()
    assert planned(folder, f"{learner}/predictions.parquet", config="my tiny.yaml") == {}

    # Without the file, the copy stands for it once its SHA-256 is given, and for no other file of that name.
    (folder / "data/test resnet.safetensors").unlink()
    gone = snakemake(folder, "-n", config="my tiny.yaml")
    assert gone.returncode != 0
    assert "test_resnet.weights.file is data/test resnet.safetensors, and there is no such file" in gone.stdout
    assert "Traceback" not in gone.stdout
    known = hashlib.sha256(copy.read_bytes()).hexdigest()
    assert f"give sha256: {known}" in gone.stdout
    (folder / "my tiny.yaml").write_text(config.replace("resnet.safetensors", f"resnet.safetensors, sha256: {known}"))
    assert planned(folder, f"{learner}/predictions.parquet", config="my tiny.yaml") == {}


def test_a_training_over_several_nodes_is_started_by_srun(checkout: Path) -> None:
    training = 'training={"nodes": 2, "gpus": 4, "workers": 3}'
    demo = "config/demo.yaml"
    result = snakemake(checkout, "-n", "-p", "learners", "--config", training, "accelerator=cuda", config=demo)
    assert result.returncode == 0, result.stdout
    started = [line for line in result.stdout.splitlines() if "workflow/scripts/train.py" in line]
    assert started
    assert all(
        "Shell command: srun --kill-on-bad-exit=1 -n 8 --ntasks-per-node=4 -c 4 python " in line for line in started
    )
    assert all("--processes 4 --nodes 2" in line for line in started)
