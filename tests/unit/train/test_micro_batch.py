from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cxrscale.common.errors import StudyError
from cxrscale.train import micro_batch
from cxrscale.train.memory import lacks_memory
from cxrscale.train.micro_batch import MicroBatch, Way, possible_ways, ways_of
from cxrscale.train.models import build_model
from cxrscale.train.settings import RunSettings, TrainingSettings

WAYS = [Way(16, False), Way(8, False), Way(16, True), Way(8, True)]


@pytest.fixture
def micro(monkeypatch):
    """A function that gives a MicroBatch of a pretended GPU, on which only the ways named fit; and what it tried."""
    tried = []
    monkeypatch.setattr(MicroBatch, "device_name", property(lambda self: self.device.type))

    def build(*fitting, channels_last=True, ways=WAYS, seconds=(1.0, 1.0)):
        monkeypatch.setattr(MicroBatch, "_fits", lambda self, _: tried.append(self.way) or self.way in fitting)
        clock = iter([9.0, seconds[0], 9.0, 9.0, 9.0, seconds[1], 9.0, 9.0])
        monkeypatch.setattr(MicroBatch, "_timed_pass", lambda _: next(clock))
        model = build_model("test_resnet", 2, 0)
        tried.clear()
        return MicroBatch(model, torch.device("cuda"), ways, channels_last, lambda n: None, "32 px"), tried

    return build


def test_micro_batches_are_whole_groups_that_divide_the_share_the_largest_first():
    assert possible_ways(48, 8, 48, False) == [Way(n, False) for n in (48, 24, 16, 8)]
    assert possible_ways(48, 8, 20, True) == [Way(n, True) for n in (16, 8)]
    assert possible_ways(4, 8, 64, False) == [Way(8, False)]  # a share smaller than a group is one part
    assert possible_ways(16, 8, 16, "auto") == WAYS


def test_the_best_way_that_fits_is_taken_and_not_tried_again(micro):
    chosen, tried = micro(Way(16, True), Way(8, True))
    chosen.choose()
    assert chosen.way == Way(16, True)
    assert chosen.model.grad_checkpointing
    assert tried == [Way(8, False), Way(8, True), Way(16, True)]
    found = chosen.found
    again, tried = micro()
    again.choose(found)
    assert again.way == Way(16, True)
    assert tried == []


def test_what_was_found_for_something_else_is_found_anew(micro):
    chosen, _ = micro(Way(16, True), Way(8, True))
    chosen.choose()
    other, tried = micro(Way(8, False), ways=WAYS[:2])
    other.choose(chosen.found)
    assert other.way == Way(8, False)
    assert tried == [Way(8, False), Way(16, False)]


def test_nothing_that_fits_is_an_error_that_says_what_helps(micro):
    chosen, tried = micro()
    with pytest.raises(
        StudyError, match=r"not even 8 images of 32 px fit .* Choose training.activation_checkpointing: true, or"
    ):
        chosen.choose()
    assert tried == [Way(8, False), Way(8, True)]


def test_after_an_update_that_did_not_fit_the_next_way_is_taken(micro):
    chosen, _ = micro(Way(16, False), Way(8, False))
    chosen.choose()
    chosen.shrink()
    assert chosen.way == Way(8, False)
    again, _ = micro()
    again.choose(chosen.found)
    assert again.way == Way(8, False)


@pytest.mark.parametrize(("seconds", "faster"), [((1.0, 2.0), True), ((2.0, 1.0), False)])
def test_the_faster_memory_format_is_taken_if_none_is_asked_for(micro, seconds, faster):
    """The first pass of each is not counted."""
    chosen, _ = micro(*WAYS, channels_last="auto", seconds=seconds)
    chosen.choose()
    assert chosen.found["channels_last"] == faster
    convolutions = [m.weight for m in chosen.model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert convolutions[1].is_contiguous(memory_format=torch.channels_last) == faster
    again, _ = micro(channels_last="auto")
    again.choose(chosen.found)
    assert (again.memory_format == torch.channels_last) == faster


def test_a_model_that_cannot_checkpoint_activations_says_so():
    def build(activation_checkpointing):
        ways = possible_ways(8, 8, 8, activation_checkpointing)
        return MicroBatch(nn.Sequential(nn.Conv2d(1, 1, 1)), torch.device("cpu"), ways, True, lambda n: None, "32 px")

    build(False).choose()
    with pytest.raises(
        StudyError,
        match=r"training.activation_checkpointing: Sequential cannot compute its activations again. Choose",
    ):
        build(True).choose()


#: As libraries say it on a GPU.
ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("Expected canUse32BitIndexMath(input) && canUse32BitIndexMath(output) to be true, but got false."),
    RuntimeError("integer out of range"),
)


@pytest.fixture
def tried_on(monkeypatch):
    """A function that chooses for a pretended GPU, with 8 to 64 images a pass, and gives what it took and tried."""
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=10**9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "pretended")

    def choose(try_pass):
        tried = []
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1))

        def noted(n):
            tried.append(n)
            try_pass(model, n)

        chosen = MicroBatch(model, torch.device("cuda"), possible_ways(64, 8, 64, False), True, noted, "32 px")
        chosen.choose()
        return chosen.images, tried

    return choose


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_tries_go_up_from_one_group_and_end_at_the_first_that_does_not_fit(tried_on, error):
    def limited(_, n):
        if n > 16:
            raise error

    assert tried_on(limited) == (16, [8, 16, 32])


def test_no_tensor_grows_beyond_what_32_bits_count(tried_on, monkeypatch):
    """A picture of 10 x 10 px has four channels: 400 elements an image."""
    monkeypatch.setattr(micro_batch, "MOST_ELEMENTS", 400 * 40)
    assert tried_on(lambda model, n: model(torch.zeros(n, 1, 10, 10))) == (32, [8, 16, 32])


def test_another_error_is_none_of_memory_where_nothing_fitted_yet(tried_on):
    def broken(_, n):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        tried_on(broken)


@pytest.mark.parametrize("error", [RuntimeError("no kernel image"), ValueError("out of memory"), KeyError("x")])
def test_other_errors_do_not_lack_memory(error):
    assert not lacks_memory(error)


def test_gpus_that_normalise_together_keep_their_activations():
    settings = TrainingSettings(normalisation="synchronised", batch_images=16)
    assert ways_of(settings, RunSettings(), 2, torch.device("cuda")) == [Way(8, False)]
    assert ways_of(settings, RunSettings(activation_checkpointing=True), 1, torch.device("cuda")) == [Way(16, True)]
    with pytest.raises(StudyError, match=r"activation_checkpointing: true is not possible with normalisation synchro"):
        ways_of(settings, RunSettings(activation_checkpointing=True), 2, torch.device("cuda"))
