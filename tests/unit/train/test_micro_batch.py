import pytest
import torch
from torch import nn

from cxrscale.common.errors import StudyError
from cxrscale.train.micro_batch import MicroBatch, Way, possible_ways
from cxrscale.train.models import build_model

WAYS = [Way(16, False), Way(8, False), Way(16, True), Way(8, True)]


@pytest.fixture
def micro(monkeypatch):
    """A function that gives a MicroBatch of a pretended GPU, on which only the ways named fit; and what it tried."""
    tried = []
    monkeypatch.setattr(MicroBatch, "device_name", property(lambda self: self.device.type))

    def build(*fitting, channels_last=True, ways=WAYS, seconds=(1.0, 1.0)):
        monkeypatch.setattr(MicroBatch, "_fits", lambda self: tried.append(self.way) or self.way in fitting)
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


def test_the_first_way_that_fits_is_taken_and_not_tried_again(micro):
    chosen, tried = micro(Way(16, True), Way(8, True))
    chosen.choose()
    assert chosen.way == Way(16, True)
    assert tried == WAYS[:3]
    found = chosen.found
    again, tried = micro()
    again.choose(found)
    assert again.way == Way(16, True)
    assert tried == []


def test_what_was_found_for_something_else_is_found_anew(micro):
    chosen, _ = micro(Way(16, True))
    chosen.choose()
    other, tried = micro(Way(8, False), ways=WAYS[:2])
    other.choose(chosen.found)
    assert other.way == Way(8, False)
    assert tried == WAYS[:2]


def test_nothing_that_fits_is_an_error_that_says_what_helps(micro):
    chosen, tried = micro()
    with pytest.raises(
        StudyError, match=r"not even 8 images of 32 px fit .* Choose training.activation_checkpointing: true, or"
    ):
        chosen.choose()
    assert tried == WAYS


def test_after_an_update_that_did_not_fit_the_next_way_is_taken(micro):
    chosen, _ = micro(Way(16, False))
    chosen.choose()
    chosen.shrink()
    assert chosen.way == Way(8, False)
    again, _ = micro()
    again.choose(chosen.found)
    assert again.way == Way(8, False)


@pytest.mark.parametrize(("seconds", "faster"), [((1.0, 2.0), True), ((2.0, 1.0), False)])
def test_the_faster_memory_format_is_taken_if_none_is_asked_for(micro, seconds, faster):
    """The first pass of each is not counted."""
    chosen, _ = micro(Way(16, False), channels_last="auto", seconds=seconds)
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
