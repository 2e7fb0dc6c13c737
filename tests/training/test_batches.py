"""A step and its batches on their way from a worker: nothing changes, and small tensors take no shared memory."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler

import torch
from torch import Tensor
from torch.utils.data import Dataset

from unlabeled.data.batches import SMALL, Broken, Step, loader
from unlabeled.data.collate import padded


def test_a_step_comes_out_of_a_worker_as_it_went_in() -> None:
    few = {
        "label": torch.tensor(3),
        "strided": torch.arange(24).view(4, 6).T,
        "spread": torch.ones(1).expand(3, 5),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "none": torch.empty(0, 4),
        "mask": torch.tensor([True, False]),
    }
    step = Step(
        views={"global": {**few, "image": torch.randn(SMALL)}, "local": few},
        keys={"global": torch.arange(4)},
        samples=torch.tensor([7, 9]),
        broken=[Broken(1, "a", "why")],
        shared={"global": torch.zeros(4, dtype=torch.int64)},
    )
    sent = ForkingPickler.dumps(step)
    for made in (pickle.loads(sent), pickle.loads(pickle.dumps(step))):
        for name, tensor in step.views["global"].items():
            assert made.views["global"][name].equal(tensor), name
            assert made.views["global"][name].dtype == tensor.dtype
        made.views["local"]["mask"][0] = False  # nothing is read-only
        assert made.samples.tolist() == [7, 9]
        assert made.broken == step.broken
        assert made.transforms == {}
        assert made.shared["global"].equal(step.shared["global"])


def test_small_tensors_go_as_one_and_large_ones_by_themselves() -> None:
    large = torch.zeros(SMALL)
    step = Step({"global": {"large": large, "small": torch.zeros(3)}}, {"global": torch.arange(3)}, torch.arange(2))
    state = step.__getstate__()
    assert state["views"]["global"]["large"] is large
    assert not any(isinstance(x, torch.Tensor) for x in (state["views"]["global"]["small"], state["samples"]))
    assert len(state["small"]) == 16 + 32 + 16, "each begins where any dtype may"
    assert len(ForkingPickler.dumps(step)) < 4096, "a pipe that nobody reads holds many of them"


class Lengths(Dataset[tuple[Tensor, bool]]):
    """Batches of tensors of different lengths, and whether their memory is shared where they are made."""

    def __getitem__(self, index: int) -> tuple[Tensor, bool]:
        kind = (torch.float32, torch.int16, torch.bool)[index]
        out = padded([torch.ones(count, 3, dtype=kind) for count in (2, 0, 70_000, 1)])
        return out, out.is_shared()


def test_tensors_of_any_length_are_padded_by_zeros_alike_in_a_worker_and_outside() -> None:
    for workers in (0, 1):
        for index, (made, shared) in enumerate(loader(Lengths(), 0, 3, workers, False)):
            naive = torch.nn.utils.rnn.pad_sequence([torch.ones(count, 3) for count in (2, 0, 70_000, 1)], True)
            assert made.equal(naive.to(made.dtype))
            assert made.dtype == (torch.float32, torch.int16, torch.bool)[index]
            assert shared == (workers > 0), "nothing is copied on its way to the run"
            made[0, 0] = 0  # nor read-only


def test_tensors_without_elements_are_padded_too() -> None:
    assert padded([torch.zeros(0, 4), torch.zeros(0, 4)]).shape == (2, 0, 4)
