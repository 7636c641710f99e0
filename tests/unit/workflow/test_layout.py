import re
from pathlib import Path

import pytest

from cxrscale.common.errors import StudyError
from cxrscale.workflow.config import load
from cxrscale.workflow.layout import Layout, file_label

ROOT = Path(__file__).parents[3]


@pytest.fixture
def layout():
    return Layout(
        load(
            {
                "study": "mine",
                "resolutions_px": [512, 256],
                "store": {"base_resolution_px": 512, "shards": 3},
                "models": [
                    {"name": "test_resnet"},
                    {"name": "densenet121", "weights": {"timm_tag": "tv_in1k"}},
                    {"name": "test_vit", "weights": {"file": "/somewhere/mae.pth"}},
                ],
                "seeds": [7, 0],
                "split": {"folds": 5, "use_folds": [2]},
            }
        )
    )


def test_learners_are_every_model_resolution_fold_and_seed(layout):
    learners = layout.learners
    assert len(learners) == len(set(map(tuple, learners))) == 3 * 2 * 1 * 2
    assert learners[0] == ["test_resnet", 256, 2, 7]
    assert layout.of_learners("cost.json")[0] == "results/mine/learners/test_resnet/256px/fold2-seed7/cost.json"


def test_a_path_with_its_wildcards_left_open_is_a_pattern(layout):
    assert layout.learner("x") == "results/mine/learners/{model}/{resolution}px/fold{fold}-seed{seed}/x"
    assert layout.table("metrics") == layout.learner("metrics.csv")
    filled = layout.table("metrics").format(model="test_vit", resolution=512, fold=2, seed=0)
    assert filled in layout.tables("metrics")
    assert layout.table("targets") == "results/mine/targets/fold{fold}.parquet"


def test_a_table_lies_where_its_declaration_says(layout):
    assert layout.tables("targets") == ["results/mine/targets/fold2.parquet"]
    assert layout.tables("auroc") == [layout.table("auroc")] == ["results/mine/comparison/auroc.csv"]
    assert layout.tables("summary") == [f"{layout.store}/256/summary.csv", f"{layout.store}/base/summary.csv"]
    assert layout.tables("erf", resolution_px=512) == [p for p in layout.tables("erf") if "/512px/" in p]
    assert layout.tables("notes")[0] == f"{layout.store}/notes.csv"
    assert layout.notes("targets-fold2") in layout.tables("notes")


def test_the_base_resolution_is_the_base_not_a_copy(layout):
    assert layout.index(512) == layout.index("512") == f"{layout.store}/base/index.parquet"
    assert layout.index(256) == f"{layout.store}/256/index.parquet"
    assert layout.shards == ["00000", "00001", "00002"]
    assert [layout.resolution_of(folder) for folder in ("base", "256")] == [512, 256]


def test_weights_say_where_they_came_from(layout):
    assert layout.weights("test_resnet") is None
    assert layout.weights("densenet121") == "results/weights/densenet121.tv_in1k.safetensors"
    assert layout.weights("test_vit") == "results/weights/test_vit.local-mae.safetensors"


@pytest.mark.parametrize(
    "path", ["a/my weights.pth", "b/my weights.pth", "a/my_weights.pth", "a/Gewichte (\u00e4).bin"]
)
def test_the_name_of_a_copy_of_weights_fits_the_rule_that_makes_it(path):
    rule = re.search(r'file=r"(.+)"', (ROOT / "workflow/rules/train.smk").read_text())[1]
    copy = Layout(load({"models": [{"name": "test_vit", "weights": {"file": path}}]})).weights("test_vit")
    assert re.fullmatch(f"results/weights/{rule}", copy)


def test_two_files_of_weights_share_no_name():
    paths = ["a/my weights.pth", "b/my weights.pth", "a/my_weights.pth", "a/my-weights.pth", "a/my  weights.pth"]
    paths += ["a/" + "w" * 200, "a/" + "w" * 199]
    assert len({file_label(path) for path in paths}) == len(paths)
    assert file_label("/somewhere/mae-1.2_x.pth") == "mae-1.2_x"


def test_a_file_of_weights_that_is_gone_may_be_stood_for_by_a_copy_that_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def layout_of(**more):
        return Layout(load({"models": [{"name": "test_vit", "weights": {"file": "a/w.pth", **more}}]}))

    expected = "models: test_vit.weights.file is a/w.pth, and there is no such file"
    with pytest.raises(StudyError, match=expected):
        layout_of().check_weights_files()
    (tmp_path / "results/weights").mkdir(parents=True)
    copy = tmp_path / layout_of().weights("test_vit")
    copy.write_bytes(b"weights")
    copy.with_name(f"{copy.name}.sha256").write_text(f"{'a' * 64}  {copy.name}\n")
    with pytest.raises(StudyError, match=f"{expected}.*give sha256: {'a' * 64}"):
        layout_of().check_weights_files()
    with pytest.raises(StudyError, match=expected):
        layout_of(sha256="b" * 64).check_weights_files()
    layout_of(sha256="a" * 64).check_weights_files()
    (tmp_path / "a/w.pth").mkdir(parents=True)
    with pytest.raises(StudyError, match=expected):
        layout_of().check_weights_files()
    (tmp_path / "a/w.pth").rmdir()
    (tmp_path / "a/w.pth").touch()
    layout_of().check_weights_files()
