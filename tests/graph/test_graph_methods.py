"""The loss of every method falls on a fixed batch."""

from __future__ import annotations

from itertools import cycle

import pytest
import torch

from unlabeled import plugins
from unlabeled.config import config_from
from unlabeled.methods import Method
from unlabeled.testing import Bout, unable
from unlabeled_graph.readers import GraphReader

REGISTRY = plugins.load("graph")
SMALL = {
    "gps": {"width": 16, "depth": 1, "heads": 2},
    "gat": {"width": 16, "heads": 2, "dropout": 0.0, "attention_dropout": 0.0},
}
STEPS, SETTLE = 16, 12
SLOW = {"dino": 40, "ibot": 40}  # steps until their centres stand still
LONG = {"wav2vec2": 80}  # steps, where the noise of a choice hides the first ones


def held_still(method: str) -> Method:
    """The domain's method with a teacher that stays as it is, and a queue that is full: then the loss has to fall."""
    row = config_from({"domain": "graph", "data": "", "method": method}, REGISTRY).method
    still = {"ema.momentum": 1.0, "ema.end": 1.0} if row.teacher.name == "ema" else {}
    return row.with_options(still | ({"infonce.queue": 24} if method == "moco_v2" else {}))


PAIRS = list(zip(REGISTRY.methods, cycle(REGISTRY.encoders)))


@pytest.mark.parametrize(("method", "encoder"), PAIRS)
def test_every_method_trains_an_encoder_that_takes_its_turn(many: GraphReader, encoder: str, method: str) -> None:
    """That every other pair takes steps too is the conformance kit's to say."""
    names = (method, encoder)
    view = REGISTRY.make("view", None, many.facts)
    made = REGISTRY.make("encoder", encoder, many.facts, **SMALL.get(encoder, {"width": 16}))
    if unable(REGISTRY, many, view, made, names):
        return
    bout = Bout(REGISTRY, many, view, made, names, torch.arange(12), held_still(method), rate=5e-3)
    losses = bout.learn(LONG.get(method, STEPS), SLOW.get(method, SETTLE))
    assert min(losses[-3:]) < losses[0] - 0.005 * abs(losses[0])
