import pytest
import torch
from safetensors.torch import load_file, save_file

from cxrscale.common.errors import StudyError
from cxrscale.common.provenance import file_digest
from cxrscale.train.initial_weights import fetch
from cxrscale.train.models import build_model


@pytest.fixture
def local(tmp_path):
    path = tmp_path / "local.safetensors"
    save_file({"a": torch.arange(3.0)}, path)
    return path


def get(tmp_path, file, sha256=None, tag=None):
    output = tmp_path / "out" / "m.safetensors"
    fetch("test_resnet", tag, file, sha256, output)
    return output


def test_a_local_file_is_copied_and_its_checksum_recorded(tmp_path, local):
    output = get(tmp_path, local, file_digest(local))
    assert output.read_bytes() == local.read_bytes()
    recorded = (tmp_path / "out" / "m.safetensors.sha256").read_text()
    assert recorded == f"{file_digest(local)}  m.safetensors\n"


def test_a_wrong_checksum_is_refused_and_nothing_is_written(tmp_path, local):
    with pytest.raises(StudyError) as error:
        get(tmp_path, local, "0" * 64)
    assert f"models.test_resnet.weights: SHA-256 is {file_digest(local)}, expected {'0' * 64}" in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_weights_that_changed_since_the_first_fetch_are_refused(tmp_path, local):
    output = get(tmp_path, local)
    before = output.read_bytes()
    get(tmp_path, local)  # the same again is fine
    save_file({"a": torch.arange(4.0)}, local)
    with pytest.raises(StudyError, match=r"expected .*correct sha256 in the config and delete .*m.safetensors.sha256"):
        get(tmp_path, local)
    assert output.read_bytes() == before


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pth_file_becomes_safetensors(tmp_path, wrapped):
    state = {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.zeros(1)}
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "w.pth")
    loaded = load_file(get(tmp_path, tmp_path / "w.pth"))
    assert set(loaded) == {"a", "b"}
    assert torch.equal(loaded["a"], state["a"])


def test_a_file_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"models.weights.file: there is no file .*absent.safetensors"):
        get(tmp_path, tmp_path / "absent.safetensors")
    (tmp_path / "w.pth").write_bytes(b"no weights")
    with pytest.raises(StudyError, match=r"w.pth cannot be read as a state dict"):
        get(tmp_path, tmp_path / "w.pth")


def test_an_unknown_tag_lists_the_known_ones(tmp_path):
    with pytest.raises(StudyError, match=r"timm has no pretrained test_resnet.no_such_tag; expected one of r160_in1k"):
        get(tmp_path, None, tag="no_such_tag")


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    import timm

    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(StudyError, match=r"test_resnet.r160_in1k cannot be downloaded: no route to host. Run this"):
        get(tmp_path, None, tag="r160_in1k")


def test_fetched_weights_start_a_model(tmp_path):
    import timm

    source = timm.create_model("test_resnet", pretrained=False)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    output = get(tmp_path, tmp_path / "w.safetensors")
    model = build_model("test_resnet", 2, 0, output).state_dict()
    first = next(k for k, v in source.state_dict().items() if v.ndim == 4)
    assert torch.allclose(model[first], source.state_dict()[first].sum(dim=1, keepdim=True), atol=1e-6)
