import json
import re
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import jsonschema
import pytest
import yaml

from cxrscale.common import settings as kinds_of_settings
from cxrscale.common.errors import StudyError
from cxrscale.common.places import SHARED_FOLDERS
from cxrscale.data.formats import formats
from cxrscale.train.settings import RunSettings, TrainingSettings
from cxrscale.workflow import config_page, settings_files
from cxrscale.workflow.config import StudyConfig, load, timm_model_names
from cxrscale.workflow.layout import Layout
from cxrscale.workflow.validation import RENAMED

ROOT = Path(__file__).parents[3]


def test_config_yaml_equals_the_defaults():
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    assert load(raw) == StudyConfig()
    assert raw == asdict(StudyConfig())  # every key is written out, with its default


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
        ({"models": [{"name": "densenet121"}] * 2}, ["models: holds 'densenet121' twice"]),
        ({"seeds": [1, 1]}, ["seeds: holds 1 twice; remove one"]),
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
                                                             "planted": {"Edema": {"pattern": "none"}}}}},
            ["format must be mimic-cxr-jpg"],
        ),
        ({"study": "../elsewhere"}, ["study:", "got '../elsewhere'"]),
        ({"cam": {"method": "scorecam"}}, ["cam.method:", "'gradcam'", "got 'scorecam'"]),
        ({"cam": {"box_sizes": [0.1, 0.02]}}, ["cam.box_sizes: must ascend: 0.1 is not below 0.02"]),
        (
            {"dataset": {"synthetic": {"patients": 9, "rows_px": 64, "columns_px": 64,
                                       "planted": {"Edema": {"pattern": "none"}}}},
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
    from cxrscale.store.pixels import BITS
    from cxrscale.store.settings import Accepted

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


def test_a_learner_has_the_settings_of_the_config():
    """One declaration: what trains takes what the config holds."""
    training = load({"training": {"epochs": 7, "overrides": [override({"mean": 0.3}, "densenet121")]}}).training
    assert training.settings_of("densenet121", 256) == TrainingSettings(epochs=7, mean=0.3)
    assert TrainingSettings(**training.of_learner("densenet121", 256)) == TrainingSettings(epochs=7, mean=0.3)
    assert RunSettings(**training.run()) == RunSettings()


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"overrides": [{"resolution_px": 256, "settings": {"epoch": 5}}]},
            "'epoch' is no setting of a learner (did you mean 'epochs'?)",
        ),
        (
            {"overrides": [{"resolution_px": 256, "settings": {"batch_images": 20}}]},
            "must be a multiple of norm_group_images",
        ),
        (
            {"normalisation": "synchronised", "gpus": 2, "activation_checkpointing": True},
            "on 2 GPUs, goes with activation_checkpointing auto or false",
        ),
        ({"normalisation": "synchronised", "nodes": 3}, r"needs batch_images (64) to be a multiple of the GPUs"),
        ({"normalisation": "per_micro_batch"}, "makes micro_batch_images a setting: give a number"),
    ],
)
def test_settings_of_learners_that_cannot_be_are_refused(training, message):
    with pytest.raises(StudyError) as error:
        load({"training": training})
    assert message in str(error.value)


def test_the_micro_batch_counts_where_statistics_depend_on_it():
    training = load({"training": {"normalisation": "per_micro_batch", "micro_batch_images": 4}}).training
    assert training.micro_batch_of("b4", 512) == 4
    assert load({"training": {"micro_batch_images": 4}}).training.micro_batch_of("b4", 512) == 0


def test_a_lossless_store_has_its_own_name_and_no_reduced_decode():
    lossless = load({"store": {"jpeg_quality": "lossless"}})
    assert lossless.store_name() != load({}).store_name()
    with pytest.raises(StudyError, match="store: filter dct decodes JPEG in part"):
        load({"store": {"jpeg_quality": "lossless", "filter": "dct"}})
    with pytest.raises(StudyError, match="jpeg_quality"):
        load({"store": {"jpeg_quality": "loss"}})


def refused(raw):
    """What `load` says of a config that cannot be."""
    with pytest.raises(StudyError) as error:
        load(raw)
    return str(error.value)


def override(settings, model=None, resolution_px=256):
    return {"model": model, "resolution_px": resolution_px, "settings": settings}


SYNTHETIC = {"patients": 9, "rows_px": 64, "columns_px": 64}
MANIFEST = {"format": "manifest"}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"split": {"use_folds": [0, 0]}}, ["split.use_folds: holds 0 twice; remove one"]),
        ({"resolutions_px": [256, "256"]}, ["resolutions_px: holds 256 twice"]),
        ({"store": {"together_px": [256, 512, 256]}}, ["store.together_px", "holds 256 twice"]),
        ({"dataset": {"views": ["AP", "AP"]}}, ["dataset.views: holds 'AP' twice"]),
        ({"dataset": {"views": ["AP", "PA", "ap"]}}, ["dataset.views: holds 'AP' and 'ap', two spellings"]),
        ({"dataset": {"views": ["", ""]}}, ["dataset.views: holds '' twice"]),
        ({"findings": ["Edema", "edema"]}, ["findings: holds 'Edema' and 'edema', two spellings of one value"]),
        ({"dataset": MANIFEST, "findings": ["\u00c4", "A\u0308"]}, ["findings: holds", "two spellings of one value"]),
        ({"report": {"findings": ["Edema", "Edema"]}}, ["report.findings: holds 'Edema' twice"]),
        ({"evaluation": {"groups": ["sex", "Sex"], "subgroups": "a.csv"}}, ["evaluation.groups: holds 'sex' and 'Sex"]),
        ({"models": [{"name": "densenet121"}, {"name": "DenseNet121"}]}, ["models: holds 'densenet121' and 'DenseNet"]),
        (
            {"dataset": {"synthetic": SYNTHETIC | {"planted": {"Edema": {"pattern": "none"}, "Lung Opacity": {
                "pattern": "any", "includes": ["Edema", "Edema"]}}}}},
            ["planted.Lung Opacity.includes: holds 'Edema' twice"],
        ),
    ],
)  # fmt: skip
def test_no_list_holds_a_value_twice_however_it_is_spelled(raw, said):
    message = refused(raw)
    assert [part for part in said if part not in message] == []


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "inf", "nan", "1e400", "-Infinity"])
@pytest.mark.parametrize("key", ["learning_rate", "standard_deviation", "warmup_epochs", "clip_grad_norm", "mean"])
def test_no_number_is_infinite_or_none(key, value):
    assert f"training.{key}: Input should be a finite number" in refused({"training": {key: value}})
    message = refused({"training": {"overrides": [override({key: value})]}})
    assert f"densenet121 at 256 px has {key}: Input should be a finite number" in message


def test_no_number_in_a_list_or_below_a_name_is_infinite():
    assert "cam.box_sizes.1: Input should be a finite number" in refused({"cam": {"box_sizes": [0.1, "inf"]}})
    planted = {"Edema": {"pattern": "heart", "contrast": float("nan")}}
    message = refused({"dataset": {"synthetic": SYNTHETIC | {"planted": planted}}})
    assert "planted.Edema.contrast: Input should be a finite number" in message


def test_every_number_and_list_of_the_config_is_of_the_kinds_that_check_it():
    """So that a key that is added later is checked too."""
    sections = [StudyConfig, *config_page.sections_within(StudyConfig)]
    no_truth_value, distinct = kinds_of_settings._no_truth_value, kinds_of_settings._distinct
    for section in sections:
        assert section.__pydantic_config__ == {"extra": "forbid", "allow_inf_nan": False}
        for name, hint in get_type_hints(section, include_extras=True).items():
            if name not in config_page.meanings(StudyConfig) and name.startswith("__"):
                continue
            for kind, checks in kinds(hint):
                where = f"{section.__name__}.{name}"
                assert kind not in (int, float) or no_truth_value in checks, f"{where}: use Whole or Real"
                is_list = get_origin(kind) is list or (get_origin(kind) is dict and kind != dict[str, Any])
                assert not is_list or distinct in checks, f"{where}: add Distinct"
    assert len(sections) == 20


@pytest.mark.parametrize("name", config_page.FILES)
def test_what_is_written_from_the_settings_is_up_to_date(name):
    assert (ROOT / name).read_text() == config_page.FILES[name](), "run python -m cxrscale.workflow.config_page"


def test_every_setting_says_what_it_means():
    for section in (StudyConfig, *config_page.sections_within(StudyConfig)):
        unsaid = {f.name for f in fields(section)} - config_page.meanings(section).keys()
        assert all(is_dataclass(get_type_hints(section)[name]) for name in unsaid), (section, unsaid)


@pytest.mark.parametrize("file", ["config.yaml", *ROOT.glob("config/*.yaml"), "tests/workflow/tiny.yaml"], ids=str)
def test_the_schema_holds_for_the_configs_that_are_here(file):
    jsonschema.validate(
        yaml.safe_load((ROOT / file).read_text()), json.loads((ROOT / "config/schema.json").read_text())
    )


@pytest.mark.parametrize("key", RENAMED)
def test_an_old_key_names_the_new_one(key):
    section, name = key.split(".")
    assert f"{key}: unknown key; it is now called {RENAMED[key]}" in refused({section: {name: 1}})
    if section == "training" and f"training.{name}" != "training.recompute":
        message = refused({"training": {"overrides": [override({name: 1})]}})
        assert f"{name!r} is no setting of a learner; it is now called {RENAMED[key].split('.')[1]}" in message


def kinds(annotation, metadata=()):
    """(type, its checks) of an annotation and of all in it."""
    checks = [getattr(check, "function", check) for check in metadata]
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        yield from kinds(inner, (*metadata, *more))
        return
    yield annotation, checks
    for part in get_args(annotation) if get_origin(annotation) is not Literal else ():
        yield from kinds(part)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"seeds": [True]}, "seeds.0: is true (YAML reads yes, no, on and off so); expected a number"),
        ({"training": {"epochs": True}}, "training.epochs: is true"),
        ({"training": {"weight_decay": False}}, "training.weight_decay: is false"),
        ({"training": {"learning_rate": 1e30}}, "training.learning_rate: Input should be less than or equal to 10"),
        ({"training": {"learning_rate": 1e-300}}, "training.learning_rate: Input should be greater than or equal"),
        ({"training": {"standard_deviation": 1e-300}}, "training.standard_deviation: Input should be greater than"),
        ({"training": {"weight_decay": 1e9}}, "training.weight_decay: Input should be less than or equal to 10"),
        ({"training": {"epochs": 10**9}}, "training.epochs: Input should be less than or equal to 1000000"),
        ({"stacking": {"tolerance": 1e-300}}, "stacking.tolerance: Input should be greater than or equal to"),
        ({"report": {"title": "  "}}, "report.title: is blank ('  ')"),
        ({"dataset": {"root": ""}}, "dataset.root: is blank"),
        ({"cam": {"boxes": ""}}, "cam.boxes: is blank"),
        ({"training": {"stage_dir": "None"}}, "training.stage_dir: is the text 'None'; write null for no folder"),
        (
            {"models": [{"name": "densenet121", "weights": {"file": "a/{x}.pth"}}]},
            "file: is 'a/{x}.pth'; Snakemake would",
        ),
        (
            {"dataset": {"root": "a{b", "synthetic": SYNTHETIC | {"planted": {"Edema": {"pattern": "none"}}}}},
            "dataset.root is 'a{b'; Snakemake would take braces for a wildcard",
        ),
        ({"study": "a" * 300}, "study: String should have at most 100 characters"),
        (
            {"evaluation": {"replicates": 100, "confidence": 0.999}},
            "evaluation.replicates is 100: too few for evaluation.confidence 0.999, whose ends would lie beyond all of "
            "them; expected at least 1000",
        ),
        ({"comparison": {"joint_confidence": 0.99999}}, "evaluation.replicates is 2000: too few for comparison.joint"),
        (
            {"evaluation": {"confidence": 0.999}},
            "stacking.scale_weight_replicates is 200: too few for evaluation.confidence",
        ),
    ],
)
def test_values_that_make_no_sense_are_refused(raw, said):
    assert said in refused(raw)


@pytest.mark.parametrize("name", ["stores", "data", "weights", "Stores", "DATA"])
def test_no_study_takes_a_folder_that_all_share(name):
    assert f"study: is {name!r}, but results/{name.lower()} is shared by all studies" in refused({"study": name})


def test_what_rules_write_below_results_is_a_study_or_shared():
    """No rule names a folder of results by itself, so that the list of shared ones stays whole."""
    for file in (ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")):
        assert not re.search(r"[\"']results/", file.read_text()), file
    study = Layout(load({}))
    assert {Path(p).parts[1] for p in (study.store, study.weights("densenet121"))} < set(SHARED_FOLDERS)


@pytest.mark.parametrize(
    ("root", "inside"),
    [
        ("results/mimic-resolution", "mimic-resolution"),
        ("./results/stores/x", "stores"),
        ("results/weights", "weights"),
    ],
)
def test_data_do_not_lie_among_results(root, inside):
    assert f"dataset.root is {root}, inside results/{inside}, where results go" in refused({"dataset": {"root": root}})


@pytest.mark.parametrize(
    ("store", "base"),
    [({"together_px": [4096]}, 2048), ({"together_px": [512, 2048]}, 2048),
     ({"together_px": [1024, 512], "base_resolution_px": 600}, 600)],
)  # fmt: skip
def test_resolutions_made_together_lie_below_the_base(store, base):
    resolutions = [r for r in (512, 256) if r <= base]
    message = refused({"store": store, "resolutions_px": resolutions})
    assert f"store.together_px holds {max(store['together_px'])}, but only resolutions below" in message
    assert f"store.base_resolution_px {base}" in message


def test_unnamed_the_resolutions_made_together_are_those_below_the_base():
    assert StudyConfig().together_px() == [1024, 512, 256]
    smaller = {"resolutions_px": [256, 600], "store": {"base_resolution_px": 600}}
    assert load(smaller).together_px() == [512, 256]
    smaller["store"]["together_px"] = [128]
    assert load(smaller).together_px() == [128]
    smaller["store"]["together_px"] = []
    assert load(smaller).together_px() == []


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            [override({"epochs": 9}, "densenet12")],
            ["0.model is 'densenet12' (did you mean 'densenet121'?)", "models ["],
        ),
        ([override({"epochs": 9}, None, 2047)], ["0.resolution_px is 2047 (did you mean '2048'?)", "resolutions_px ["]),
        ([override({"epochs": 9}, None, None)], ["overrides.0: names neither model nor resolution_px"]),
        ([override({})], ["overrides.0: settings is empty"]),
        ([override({"epochs": 30})], ["overrides.0 (every model at 256 px) changes nothing"]),
        ([override({"learning_rate": "5e-4"}, "densenet121", None)], ["overrides.0 (densenet121) changes nothing"]),
        (
            [override({"epochs": 9}, "densenet121"), override({"epochs": 8})],
            ["overrides.0 (densenet121 at 256 px) changes nothing", "a later override hides them"],
        ),
        ([override({"epochs": 9}), override({"epochs": "9"}, "densenet121")], ["overrides.1", "changes nothing"]),
        ([override({"epochs": 9})] * 2, ["training.overrides: holds", "twice"]),
        (
            [override({"plateau_patience": 2})],
            ["overrides.0", "sets plateau_patience, which counts with schedule plateau"],
        ),
        (
            [override({"norm_group_images": 4, "normalisation": "frozen"})],
            ["sets norm_group_images, which counts with normalisation groups alone; its learners have frozen"],
        ),
        ([override({"batch_images": 20})], ["densenet121 at 256 px has batch_images (20) must be a multiple"]),
        ([override({"epochs": "many"})], ["densenet121 at 256 px has epochs: Input should be a valid integer"]),
        ([override({"normalisation": "per_micro_batch"})], ["of densenet121 at 256 px, makes micro_batch_images a"]),
    ],
)
def test_overrides_that_name_nothing_or_change_nothing_are_refused(overrides, said):
    message = refused({"training": {"overrides": overrides}})
    assert [part for part in said if part not in message] == []


def test_overrides_that_fit_only_together_and_that_hide_each_other_in_part_are_allowed():
    together = [override({"batch_images": 20}), override({"norm_group_images": 10}, "densenet121")]
    assert "efficientnet_b4 at 256 px has batch_images (20)" in refused({"training": {"overrides": together}})
    together = [override({"batch_images": 20}, "densenet121"), override({"norm_group_images": 10}, "densenet121")]
    training = load({"training": {"overrides": together}}).training
    assert training.of_learner("densenet121", 256) == {"batch_images": 20, "norm_group_images": 10}
    in_part = [override({"epochs": 9}), override({"epochs": 8}, "densenet121", None)]
    training = load({"training": {"overrides": in_part}}).training
    assert [training.settings_of(m, 256).epochs for m in ("densenet121", "efficientnet_b4")] == [8, 9]


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"epochs": 5, "early_stopping_patience": 5}, "early_stopping_patience (5) can stop nothing in 5 epochs"),
        ({"epochs": 5, "early_stopping_patience": 4}, "expected at most epochs - 2 (3), or null"),
        ({"epochs": 5, "warmup_epochs": 5}, "warmup_epochs (5) leaves nothing of epochs (5)"),
        ({"epochs": 4, "schedule": "plateau"}, "plateau_patience (3) can lower no learning rate in 4 epochs"),
        (
            {"schedule": "plateau", "early_stopping_patience": 3},
            "early_stopping_patience (3) stops before plateau_patience",
        ),
    ],
)
def test_what_waits_for_epochs_must_be_able_to_happen(training, said):
    assert said in refused({"training": training})


def test_what_waits_for_epochs_happens_in_the_last_one_at_the_latest():
    """The bounds are those at which it first has an effect."""
    from cxrscale.train.optimisation import learning_rate_at, stops_early

    flat = [0.5, 0.4, 0.4, 0.4]  # of four epochs; a fifth is left
    stop = load({"training": {"epochs": 5, "early_stopping_patience": 3}}).training
    assert stops_early(stop, flat)
    plateau = load({"training": {"epochs": 5, "schedule": "plateau"}}).training
    assert learning_rate_at(plateau, 4, 1, flat) == pytest.approx(5e-5)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"dataset": {"views": []}}, ["dataset.views: is empty", "or null for all"]),
        ({"report": {"findings": []}}, ["report.findings: is empty", "or null for all"]),
        ({"findings": None, "labels": {"per_finding": {"Edemma": {"missing": "ignore"}}}},
         ["labels.per_finding holds 'Edemma' (did you mean 'Edema'?)"]),
        ({"findings": None, "report": {"findings": ["Nodule"]}}, ["report.findings holds 'Nodule'"]),
        ({"dataset": MANIFEST, "findings": ["Mass"], "report": {"findings": ["mass"]}},
         ["report.findings holds 'mass' (did you mean 'Mass'?)"]),
        ({"labels": {"per_finding": {"Edema": {}}}}, ["labels.per_finding.Edema: says nothing"]),
        ({"labels": {"per_finding": {"Edema": {"missing": None}}}}, ["labels.per_finding.Edema: says nothing"]),
        ({"evaluation": {"subgroups": "a.csv"}}, ["subgroups is 'a.csv', but groups names no column of it"]),
        ({"store": {"upscale": "exclude"}, "comparison": {"native_at_least_px": 2048}},
         ["comparison.native_at_least_px is 2048", "store.upscale exclude"]),
        ({"dataset": {"synthetic": SYNTHETIC | {"planted": {}}}}, ["planted: Dictionary should have at least 1 item"]),
        ({"dataset": {"synthetic": SYNTHETIC | {"planted": {"Edemma": {"pattern": "heart"}}}}},
         ["planted: holds 'Edemma' (did you mean 'Edema'?)"]),
        ({"dataset": {"synthetic": SYNTHETIC | {"planted": {"Edema": {"pattern": "any", "includes": ["Fracture"]}}}}},
         ["planted: Edema.includes holds 'Fracture'"]),
        ({"dataset": {"synthetic": SYNTHETIC | {"planted": {"Edema": {"pattern": "line", "contrast": 0.1}}}}},
         ["planted.Edema: wavelength is 0 and the pattern is 'line'"]),
        ({"dataset": {"synthetic": SYNTHETIC | {"planted": {"Edema": {"pattern": "effusion"}}}}},
         ["planted.Edema: contrast is 0: the pattern 'effusion' would not be seen"]),
    ],
)  # fmt: skip
def test_selectors_that_match_nothing_or_all_are_refused(raw, said):
    message = refused(raw)
    assert [part for part in said if part not in message] == []


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"dataset": MANIFEST, "findings": ["A"], "labels": {"source": "negbio"}}, ["labels.source is negbio",
                                                                                  "dataset.format manifest"]),
        ({"dataset": MANIFEST, "findings": ["A"], "labels": {"test_source": "radiologist"}},
         ["labels.test_source is radiologist", "dataset.format manifest"]),
        ({"labels": {"test_source": "radiologist"}}, ["labels.test_source is radiologist, but split.method is kfold"]),
        ({"dataset": {"options": {"file": "mine.csv"}}}, ["dataset.options.file is no option of", "mimic-cxr-jpg",
                                                         "it is one of dataset.format manifest"]),
        ({"dataset": MANIFEST | {"options": {"fil": "a.csv"}}}, ["dataset.options.fil", "did you mean 'file'?"]),
        ({"dataset": MANIFEST | {"options": {"file": " "}}}, ["dataset.options.file: is blank"]),
        ({"dataset": {"format": "dicomdir"}}, ["dataset.format is 'dicomdir'", *map(repr, formats())]),
        ({"labels": {"source": "manifest"}}, ["labels.source is manifest", "expected chexpert or negbio"]),
        ({"labels": {"test_source": "radiologist"}, "split": {"method": "official"},
          "dataset": {"synthetic": SYNTHETIC | {"planted": {"Edema": {"pattern": "none"}}}}},
         ["labels.test_source is radiologist, but dataset.synthetic makes no labels of his"]),
    ],
)  # fmt: skip
def test_labels_that_the_data_set_cannot_have_are_refused(raw, said):
    message = refused(raw)
    assert [part for part in said if part not in message] == []


def test_the_radiologists_labels_go_with_the_official_split():
    study = load({"labels": {"test_source": "radiologist"}, "split": {"method": "official"}})
    assert study.labels.test_source == "radiologist"


@pytest.mark.parametrize("name", ["(mean)", "(all)", "(strongest)", "view", "split", "All", "image_id", " ", "Edema "])
def test_reserved_names_are_no_findings_wherever_findings_are_named(name):
    own = {"dataset": MANIFEST}
    said = repr(name)
    assert f"findings.1: {said}" in refused(own | {"findings": ["Mass", name]})
    assert f"report.findings.0: {said}" in refused(own | {"findings": ["Mass"], "report": {"findings": [name]}})
    per_finding = {"labels": {"per_finding": {name: {"missing": "ignore"}}}}
    assert f"labels.per_finding.{name}: {said}" in refused(own | {"findings": ["Mass"]} | per_finding)


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("seeds: [0]\nsplit: {folds: 3}\nseeds: [1]\n", "seeds", (1, 3)),
        ("training:\n  epochs: 1\n  workers: 0\n  'epochs': 2\n", "training.epochs", (2, 4)),
        ("models:\n  - {name: a}\n  - {name: b, weights: null, name: c}\n", "models.1.name", (3, 3)),
        ("labels: &x {source: negbio}\ncopy: {<<: *x, source: chexpert, source: negbio}\n", "copy.source", (2, 2)),
        ('{\n\t"seeds": [0],\n\t"seeds": [1]\n}\n', "seeds", (2, 3)),
        ('{"labels": {"per_finding": {"Edema": 1, "Ed\\u0065ma": 2}}}', "labels.per_finding.Edema", (1, 1)),
    ],
)
def test_a_key_that_stands_twice_in_a_file_is_named_with_its_lines(tmp_path, text, key, lines):
    file = tmp_path / "my.yaml"
    file.write_text(text)
    with pytest.raises(StudyError) as error:
        settings_files.check([ROOT / "config.yaml", file], [], [])
    assert f"{file}: {key} stands twice, in lines {lines[0]} and {lines[1]}" in str(error.value)
    assert "Remove one" in str(error.value)


def test_what_stands_once_or_is_merged_may_stand(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(
        "a: &a {x: 1}\nb: &b {x: 2}\nc: {<<: *a, x: 3}\nd: {<<: [*a, *b]}\ne: [{x: 1}, {x: 1}, *a]\nx: *a\n"
    )
    absent = tmp_path / "none.yaml"
    settings_files.check([file, absent, *ROOT.glob("config/*.yaml")], ["a={x: 1}", "b=1", "c=[{x: 1}]"], ["pytest"])
    settings_files.check([], ["labels={source: negbio}", "labels={missing: ignore}"], [])
    settings_files.check([], ["study=a=b", "report={title: 'a", "training={}"], [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["training={epochs: 1, epochs: 2}"], "--config: training.epochs stands twice"),
        (["seeds=[0]", "seeds=[1]"], "--config: seeds is given twice, by 'seeds=[0]' and 'seeds=[1]'"),
        (["models=[{name: a, name: b}]"], "--config: models.0.name stands twice"),
        (
            ["labels={missing: ignore}", "study=a", "labels={missing: negative}"],
            "--config: labels.missing is given twice",
        ),
        (["labels={per_finding: {A: {missing: ignore}}}", "labels={per_finding: null}"], "labels.per_finding is given"),
        (["labels=null", "labels={missing: negative}"], "--config: labels is given twice"),
    ],
)
def test_settings_given_twice_to_config_are_refused(arguments, said):
    with pytest.raises(StudyError) as error:
        settings_files.check([], arguments, [])
    assert said in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "seeds=[0]", "-n", "--config", "study=a"],
        ["-C", "seeds=[0]", "--config=study=a"],
        ["-Cseeds=[0]", "-C", "study=a"],
        ["--configfile", "a.yaml", "--configfiles", "b.yaml"],
    ],
)
def test_options_that_forget_what_was_given_before_are_refused(arguments):
    with pytest.raises(StudyError, match=r"the command line holds --config(file)? 2 times"):
        settings_files.check_command(["/usr/bin/snakemake", *arguments])
    with pytest.raises(StudyError, match="2 times"):
        settings_files.check_command(["/lib/snakemake/__main__.py", *arguments])
    settings_files.check_command(["pytest", *arguments])
    settings_files.check_command(["snakemake", "--configfile", "x", "--config", "a=1", "--", *arguments])
