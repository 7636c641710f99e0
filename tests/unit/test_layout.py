import pytest

from cxrscale.config import load
from cxrscale.layout import Layout, Learner


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
    learners = layout.learners()
    assert len(learners) == len(set(learners)) == 3 * 2 * 1 * 2
    assert learners[0] == Learner("test_resnet", 256, 2, 7)
    assert layout.of_learners("cost.json")[0] == "results/mine/learners/test_resnet/256px/fold2-seed7/cost.json"


def test_a_path_with_its_wildcards_left_open_is_a_pattern(layout):
    assert layout.learner() == "results/mine/learners/{model}/{resolution}px/fold{fold}-seed{seed}"
    assert layout.learner().format(model="m", resolution=8, fold=0, seed=1) == layout.learner("m", 8, 0, 1)
    assert layout.targets() == "results/mine/targets/fold{fold}.parquet"


def test_the_base_resolution_is_the_base_not_a_copy(layout):
    assert layout.manifest(512) == layout.manifest("512") == f"{layout.store}/base/manifest.parquet"
    assert layout.manifest(256) == f"{layout.store}/256/manifest.parquet"
    assert layout.shards == ["00000", "00001", "00002"]
    assert [layout.resolution_of(folder) for folder in ("base", "256")] == [512, 256]


def test_weights_say_where_they_came_from(layout):
    assert layout.weights("test_resnet") is None
    assert layout.weights("densenet121") == "results/weights/densenet121.tv_in1k.safetensors"
    assert layout.weights("test_vit") == "results/weights/test_vit.local-mae.safetensors"
