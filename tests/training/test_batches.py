"""A step on its way from a worker: nothing of it changes, and small tensors take no memory that is shared."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler

import torch

from unlabeled.data.batches import SMALL, Broken, Step


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
