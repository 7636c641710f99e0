from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from cxrscale.config import StudyConfig, load, timm_model_names
from cxrscale.errors import StudyError

ROOT = Path(__file__).parents[2]


def test_config_yaml_equals_the_defaults():
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    assert load(raw) == StudyConfig()
    assert raw == StudyConfig().model_dump(mode="json")  # every key is written out, with its default


def merged(base, over):
    """As Snakemake lays --configfile over config.yaml."""
    return base | {k: merged(base[k], v) if isinstance(base.get(k), dict) else v for k, v in over.items()}


@pytest.mark.parametrize("file", ["config/demo.yaml", "config/truth.yaml", "tests/workflow/tiny.yaml"])
def test_the_smaller_studies_load(file):
    raw = merged(yaml.safe_load((ROOT / "config.yaml").read_text()), yaml.safe_load((ROOT / file).read_text()))
    study = load(raw)
    assert study.accelerator == "cpu"
    assert study.store.base_resolution_px == max(study.resolutions_px) == study.reference_px


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"sedes": [0]}, ["sedes: unknown key", "did you mean 'seeds'?", "expected one of study, accelerator"]),
        (
            {"training": {"lerning_rate": 1e-3}},
            ["training.lerning_rate: unknown key", "did you mean 'learning_rate'?", "expected one of epochs, "],
        ),
        (
            {"models": [{"name": "densenet121", "weight": None}]},
            ["models.0.weight: unknown key", "did you mean 'weights'?"],
        ),
        (
            {"dataset": {"synthetic": {"patients": 9, "rows_px": 64, "columns_px": 64,
                                       "planted": {"Edema": {"pattern": "heart", "contrst": 0.1}}}}},
            ["dataset.synthetic.planted.Edema.contrst: unknown key", "did you mean 'contrast'?"],
        ),
        (
            {"dataset": {"synthetic": {"patients": 9, "rows_px": 64, "columns_px": 64,
                                       "planted": {"Edema": {"pattern": "heart", "includes": ["Fracture"]}}}}},
            ["dataset.synthetic.planted.Edema: includes names the findings that the pattern 'any' is made of"],
        ),
        ({"models": [{"name": "densnet121"}]}, ["timm knows no model 'densnet121'", "did you mean 'densenet121'?"]),
        ({"models": [{"name": "densenet121"}] * 2}, ["models holds a name twice"]),
        ({"seeds": [1, 1]}, ["seeds: holds a value twice"]),
        ({"seeds": []}, ["seeds:", "at least 1", "got []"]),
        ({"resolutions_px": [4096, 256]}, ["holds 4096, above store.base_resolution_px 2048", "4.0 times the disk"]),
        ({"resolutions_px": [512.5]}, ["resolutions_px.0:", "integer", "got 512.5"]),
        ({"comparison": {"reference_px": 300}}, ["reference_px is 300", "expected one of resolutions_px [2048, 1024"]),
        ({"evaluation": {"groups": ["view", "sex"]}}, ["groups holds 'sex'", "without a file in subgroups"]),
        ({"findings": ["Edemma"]}, ["findings holds 'Edemma' (did you mean 'Edema'?)", "expected one of ['Atelect"]),
        (
            {"findings": ["Edema"], "labels": {"per_finding": {"Fracture": {"uncertain": "ones"}}}},
            ["labels.per_finding holds 'Fracture'", "expected one of ['Edema']"],
        ),
        ({"findings": ["Edema"], "report": {"findings": ["Pneumonia"]}}, ["report.findings holds 'Pneumonia'"]),
        ({"labels": {"uncertain": "one"}}, ["labels.uncertain:", "'zeros', 'ones' or 'ignore'", "got 'one'"]),
        ({"training": {"batch_images": 20}}, ["batch_images (20) must be a multiple of norm_group_images (8)"]),
        ({"training": {"epochs": "many"}}, ["training.epochs:", "integer", "got 'many'"]),
        ({"split": {"folds": 3, "use_folds": [0, 3]}}, ["use_folds holds 3, but kfold has the folds 0 to 2"]),
        ({"split": {"method": "official", "use_folds": [1]}}, ["use_folds holds 1, but official has the folds 0 to 0"]),
        ({"split": {"validate_fraction": 0.5, "combine_fraction": 0.5}}, ["leave nothing to train on"]),
        (
            {"dataset": {"format": "manifest", "synthetic": {"patients": 9, "rows_px": 64, "columns_px": 64,
                                                             "planted": {}}}},
            ["format must be mimic-cxr-jpg"],
        ),
        ({"study": "../elsewhere"}, ["study:", "got '../elsewhere'"]),
        ({"cam": {"method": "scorecam"}}, ["cam.method:", "'gradcam'", "got 'scorecam'"]),
        ({"cam": {"box_sizes": [0.1, 0.02]}}, ["cam.box_sizes: must ascend: 0.1 is not below 0.02"]),
        (
            {"dataset": {"synthetic": {"patients": 9, "rows_px": 64, "columns_px": 64, "planted": {}}},
             "cam": {"boxes": "boxes.csv"}},
            ["cam.boxes: a synthetic data set brings its own boxes"],
        ),
    ],
)  # fmt: skip
def test_a_wrong_config_names_key_value_and_choices(raw, said):
    with pytest.raises(StudyError) as error:
        load(raw)
    message = str(error.value)
    assert message.startswith("the configuration is not usable:\n")
    for part in said:
        assert part in message


def test_numbers_may_come_as_text():
    """YAML 1.1 reads 1e-3 as text, and --config gives text."""
    study = load(yaml.safe_load("training: {learning_rate: 1e-3, epochs: '4'}"))
    assert (study.training.learning_rate, study.training.epochs) == (0.001, 4)


def test_several_mistakes_are_told_at_once():
    with pytest.raises(StudyError) as error:
        load({"sedes": [0], "training": {"epochs": 0}, "cam": {"images_per_finding": -1}})
    assert len(str(error.value).splitlines()) == 4


def test_manifest_findings_are_the_users_own():
    study = load({"dataset": {"format": "manifest"}, "findings": ["Scoliosis"]})
    assert study.findings == ["Scoliosis"]
    assert load({"findings": None}).findings is None


def test_timm_names_are_those_of_timm():
    import timm

    assert {"densenet121", "efficientnet_b4", "test_resnet"} <= timm_model_names()
    assert set(timm.list_models()) <= timm_model_names()


def test_the_store_is_shared_by_studies_whose_pixels_are_the_same():
    study = StudyConfig()
    same = load({"study": "other", "seeds": [1], "resolutions_px": [512], "labels": {"uncertain": "ones"},
                 "dataset": {"root": "/elsewhere"}})  # fmt: skip
    assert same.store_name() == study.store_name()
    others = [
        {"geometry": "pad"},
        {"filter": "area"},
        {"jpeg_quality": 75},
        {"shards": 8},
        {"base_resolution_px": 3000},
        {"bits": 12},
        {"bits": 14},
        {"least_levels": 2},
        {"least_side_px": 100},
        {"most_aspect": 2},
    ]
    names = {load({"store": s}).store_name() for s in others} | {study.store_name()}
    assert len(names) == 11


def test_a_store_keeps_its_name_where_later_settings_are_at_their_default():
    default = {"bits": "auto", "least_levels": 32, "least_side_px": 32, "most_aspect": 4.0}
    assert load({"store": default}).store_settings() == {
        "base_resolution_px": 2048, "geometry": "stretch", "filter": "bilinear", "jpeg_quality": 95, "shards": 256,
        "format": "mimic-cxr-jpg",
    }  # fmt: skip
    assert load({"store": {"bits": "12"}}).store_settings()["bits"] == 12  # --config gives text


def test_the_defaults_of_what_is_accepted_are_those_of_the_store():
    from cxrscale.store.pixels import BITS, Accepted

    assert asdict(Accepted()) == StudyConfig().store.accepted()
    assert [load({"store": {"bits": bits}}).store.bits for bits in BITS] == list(BITS)


@pytest.mark.parametrize(
    ("store", "key"),
    [
        ({"bits": 9}, "store.bits"),
        ({"bits": 18}, "store.bits"),
        ({"bits": "all"}, "store.bits"),
        ({"least_levels": 1}, "store.least_levels"),
        ({"least_levels": 257}, "store.least_levels"),
        ({"least_side_px": 0}, "store.least_side_px"),
        ({"most_aspect": 0.5}, "store.most_aspect"),
    ],
)
def test_no_picture_can_be_accepted_that_shows_nothing(store, key):
    with pytest.raises(StudyError) as error:
        load({"store": store})
    assert key in str(error.value)


def test_overrides_are_laid_over_the_settings_of_the_learners_they_name():
    training = load(
        {
            "training": {
                "learning_rate": 1e-3,
                "overrides": [
                    {"resolution_px": 256, "settings": {"epochs": 5, "learning_rate": 1e-4}},
                    {"model": "densenet121", "resolution_px": 256, "settings": {"epochs": 7}},
                ],
            }
        }
    ).training
    dense, other, large = (training.of_learner(m, r) for m, r in (("densenet121", 256), ("b4", 256), ("b4", 512)))
    assert (dense["epochs"], dense["learning_rate"]) == (7, 1e-4)
    assert (other["epochs"], other["learning_rate"]) == (5, 1e-4)
    assert large == {"learning_rate": 1e-3}  # what is at its default is left out


def test_defaults_of_config_and_training_are_the_same():
    from cxrscale.config import LearnerSettings
    from cxrscale.training import TrainingSettings

    assert asdict(TrainingSettings()) == LearnerSettings().model_dump() | {"micro_batch_images": None}


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"overrides": [{"settings": {"epoch": 5}}]}, "'epoch' is no setting of a learner (did you mean 'epochs'?)"),
        ({"overrides": [{"settings": {"batch_images": 20}}]}, "must be a multiple of norm_group_images"),
        ({"normalisation": "per_micro_batch"}, "makes micro_batch_images a setting: give a number"),
    ],
)
def test_settings_of_learners_that_cannot_be_are_refused(training, message):
    with pytest.raises(StudyError) as error:
        load({"training": training})
    assert message in str(error.value)


def test_the_micro_batch_counts_where_statistics_depend_on_it():
    training = load({"training": {"normalisation": "per_micro_batch", "micro_batch_images": 4}}).training
    assert training.of_learner("b4", 512)["micro_batch_images"] == 4


def test_a_lossless_store_has_its_own_name_and_no_reduced_decode():
    lossless = load({"store": {"jpeg_quality": "lossless"}})
    assert lossless.store_name() != load({}).store_name()
    with pytest.raises(StudyError, match="store: filter dct decodes JPEG in part"):
        load({"store": {"jpeg_quality": "lossless", "filter": "dct"}})
    with pytest.raises(StudyError, match="jpeg_quality"):
        load({"store": {"jpeg_quality": "loss"}})
