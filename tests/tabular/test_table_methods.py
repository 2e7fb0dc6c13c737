"""Methods and encoders learn, and recipes name only what exists."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from itertools import cycle

import pytest
import torch

from unlabeled import plugins
from unlabeled.config import Training, config_from
from unlabeled.testing import Bout
from unlabeled_tabular.readers import TableReader
from unlabeled_tabular.recipes import RECIPES

REGISTRY = plugins.load("tabular")
SMALL = {"ft_transformer": {"width": 32, "depth": 1}, "mlp": {"width": 32, "depth": 1, "cell": 8}}
SAMPLES = torch.arange(32)
STEPS = 24
LONG = {"wav2vec2": 80}  # steps, where the noise of a choice hides the first ones


def train(reader: TableReader, encoder: str, method: str, view: str, steps: int = STEPS) -> list[float]:
    """The losses of steps on one batch that stays as it is."""
    made = REGISTRY.make("encoder", encoder, reader.facts, **SMALL[encoder])
    seen = REGISTRY.make("view", view, reader.facts)
    return Bout(REGISTRY, reader, seen, made, (method, encoder), SAMPLES, rate=2e-3).learn(steps, settle=30)


PAIRS = list(zip(REGISTRY.methods, cycle(REGISTRY.encoders)))


@pytest.mark.parametrize(("method", "encoder"), PAIRS)
def test_every_method_trains_an_encoder_that_takes_its_turn(reader: TableReader, encoder: str, method: str) -> None:
    """That every other pair takes steps too is the conformance kit's to say."""
    view = "column_subset" if "prototypes" in [part.name for part in REGISTRY.methods[method].terms] else "scarf"
    losses = train(reader, encoder, method, view, LONG.get(method, STEPS))
    assert min(losses[-3:]) < losses[0] - 0.02 * abs(losses[0])


@pytest.mark.parametrize("view", REGISTRY.views)
def test_every_view_trains(reader: TableReader, view: str) -> None:
    losses = train(reader, "ft_transformer", "simclr", view)
    assert losses[-1] < losses[0]


def test_recipes_are_configurations() -> None:
    names = {field.name for field in fields(Training)}
    assert set(RECIPES) <= {"default", "demo", *REGISTRY.methods}
    for name, recipe in RECIPES.items():
        assert name == "demo" or set(recipe) <= names | {"set", "view"}
    for method in REGISTRY.methods:
        config = config_from({"domain": "tabular", "data": "x", "method": method}, REGISTRY)
        assert config.training.lr == RECIPES["default"]["lr"]


def test_the_plugin_is_light_until_it_is_used() -> None:
    code = "import sys, unlabeled_tabular; print({'torch', 'pyarrow', 'sklearn', 'numpy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
