"""A step on its way from a worker: nothing of it changes, and small tensors take no memory that is shared."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
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


def test_small_tensors_are_bytes_and_large_ones_are_shared() -> None:
    step = Step({"global": {"large": torch.zeros(SMALL), "small": torch.zeros(3)}}, {}, torch.arange(2))
    state = step.__getstate__()
    assert isinstance(state["views"]["global"]["small"], np.ndarray)
    assert isinstance(state["views"]["global"]["large"], torch.Tensor)
    assert isinstance(state["samples"], np.ndarray)
