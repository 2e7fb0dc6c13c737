"""Every encoder learns by every method, and recipes name only what exists."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import fields

import pytest
import torch

from unlabeled import plugins
from unlabeled.config import Training, config_from
from unlabeled.data.batches import finish, read_views
from unlabeled.objective import Objective
from unlabeled.randomness import sample_keys
from unlabeled.schedules import Clock
from unlabeled_tabular.readers import TableReader
from unlabeled_tabular.recipes import RECIPES

REGISTRY = plugins.load("tabular")
SMALL = {"ft_transformer": {"width": 32, "depth": 1}, "mlp": {"width": 32, "depth": 1, "cell": 8}}
SAMPLES = torch.arange(32)
STEPS = 20
LONG = 80  # DINO's loss starts low, as all rows share one prototype; it rises until the centre has taken that away


def train(reader: TableReader, encoder: str, method: str, view: str, steps: int = STEPS) -> list[float]:
    """The losses of steps on one batch that stays as it is."""
    config = config_from({"domain": "tabular", "data": "x", "method": method}, REGISTRY)
    objective = Objective(REGISTRY.make("encoder", encoder, reader.facts, **SMALL[encoder]), config.method, REGISTRY)
    made = REGISTRY.make("view", view, reader.facts)
    keys = sample_keys(0, 0, SAMPLES)
    step = finish(read_views(reader, made, objective.kinds(), SAMPLES, keys, SAMPLES, REGISTRY), made)
    optimiser = torch.optim.AdamW(objective.parameters(), 2e-3)
    losses = []
    for number in range(steps):
        clock = Clock(number, 10 * steps, 10 * steps)
        loss = objective(step.views, step.keys, clock)["loss"]
        optimiser.zero_grad()
        loss.backward()
        objective.after_backward(clock)
        optimiser.step()
        objective.after_step(clock)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("method", REGISTRY.methods)
@pytest.mark.parametrize("encoder", REGISTRY.encoders)
def test_every_method_trains_every_encoder(reader: TableReader, encoder: str, method: str) -> None:
    dino = method == "dino"
    losses = train(reader, encoder, method, "column_subset" if dino else "scarf", LONG if dino else STEPS)
    assert all(math.isfinite(loss) for loss in losses)
    before = max(losses) if dino else losses[0]
    assert min(losses[-3:]) < before - 0.02 * abs(before)


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
