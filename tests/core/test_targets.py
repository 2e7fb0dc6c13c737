"""Targets: what hidden tokens are predicted as, alone and as options of a method."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from toy import CLOCK, ToyEncoder, forward, method, views
from unlabeled.contract import Encoder, Tokens
from unlabeled.errors import UserError
from unlabeled.methods import Method, use
from unlabeled.objective import Objective
from unlabeled.plugins import core
from unlabeled.schedules import Clock
from unlabeled.targets import Checkpoint, Values, features_of

START = Clock(step=0, steps=100, epoch_steps=10)


def tokens() -> Tokens:
    return ToyEncoder().tokenize({"x": torch.randn(2, 5, 3)})


def save(encoder: Encoder, run: Path) -> str:
    (run / "encoder").mkdir(parents=True, exist_ok=True)
    save_file(encoder.state_dict(), run / "encoder" / "encoder.safetensors")
    return str(run)


def test_values_are_the_content() -> None:
    target = Values(ToyEncoder())
    made = tokens()
    assert target.width == 3
    assert torch.equal(target(made), made.values)


def test_a_checkpoint_is_the_earlier_encoder(tmp_path: Path) -> None:
    first, made = ToyEncoder().eval(), tokens()
    run = save(first, tmp_path)
    for folder in (run, run + "/encoder"):
        target = Checkpoint(ToyEncoder(), run=folder)
        torch.testing.assert_close(target(made), first(made).tokens)
    assert target.width == first.width
    layer = Checkpoint(ToyEncoder(), run=run, layer=1)
    torch.testing.assert_close(layer(made), first(made, layers=1).layers[0])
    assert (layer(made) - target(made)).abs().max() > 1e-3, "the last layer comes before the final norm"


def test_a_checkpoint_stays_as_it_is(tmp_path: Path) -> None:
    class Dropping(ToyEncoder):
        def __init__(self) -> None:
            super().__init__(norm=True)
            self.trunk.blocks[0].drop = nn.Dropout(0.5)

    trained = Dropping().train()
    target = Checkpoint(trained, run=save(Dropping(), tmp_path))
    before = {name: value.clone() for name, value in target.state_dict().items()}
    outer = nn.ModuleList([target]).train()
    assert trained.training
    assert not any(module.training for module in outer[0].modules())
    made = tokens()
    out = target(made)
    assert torch.equal(out, target(made)), "no dropout"
    assert not out.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    with torch.no_grad():
        next(trained.parameters()).add_(1)
    assert torch.equal(out, target(made)), "a copy, not the trained encoder itself"


@pytest.mark.parametrize(
    ("write", "options", "words"),
    [
        (lambda run: None, {}, "finds no encoder in .*; give the folder"),
        (lambda run: save(ToyEncoder(width=8), run), {}, "another encoder's weights: .*size mismatch"),
        (lambda run: save(ToyEncoder(), run), {"layer": 2}, "no layer 2: this encoder has 1"),
        (lambda run: save(ToyEncoder(), run), {"layer": -1}, "no layer -1"),
        (lambda run: (run / "encoder.safetensors").write_bytes(b"12345678{"), {}, "is damaged"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, write, options, words: str) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path)
    with pytest.raises(UserError, match=words):
        Checkpoint(ToyEncoder(), run=str(tmp_path), **options)


def second_iteration(name: str, run: str) -> Method:
    target = {"name": "checkpoint", "run": run, "layer": 1}
    return method(name, **{f"{'token_ids' if name == 'hubert' else 'rebuild'}__target": target})


@pytest.mark.parametrize("name", ["hubert", "maskfeat"])
def test_a_second_iteration_predicts_the_first(name: str, tmp_path: Path) -> None:
    row = second_iteration(name, save(ToyEncoder(), tmp_path / "first"))
    batches = views(row)
    made = Objective(ToyEncoder(), row, core()).train()
    forward(made, batches, START)["loss"].backward()
    frozen = [key for key, weight in made.named_parameters() if not weight.requires_grad]
    assert frozen
    assert all(".target.module." in key for key in frozen)
    assert all(weight.grad is not None for weight in made.parameters() if weight.requires_grad)


@pytest.mark.parametrize("name", ["hubert", "maskfeat"])
def test_a_resumed_run_goes_on_with_the_weights_it_started_with(name: str, tmp_path: Path) -> None:
    row = second_iteration(name, save(ToyEncoder(), tmp_path))
    batches = views(row)
    made = Objective(ToyEncoder(), row, core())
    goal = forward(made, batches, START)["loss"]
    save(ToyEncoder(), tmp_path)  # the earlier run was trained further
    again = Objective(ToyEncoder(), row, core())
    again.load_state_dict(made.state_dict())
    torch.testing.assert_close(forward(again, batches, CLOCK)["loss"], goal)


def test_a_domain_without_a_target_of_its_own_says_so() -> None:
    row = replace(method("maskfeat"), terms=(use("rebuild", depth=0, target="default"),))
    with pytest.raises(
        UserError, match=r"'mine' predicts features .* defines none; set rebuild.target to one of: values"
    ):
        Objective(ToyEncoder(), row, core(), ("mine", "toy"))


@pytest.mark.parametrize(
    ("target", "words"),
    [("valeus", "did you mean values"), ({"name": "checkpoint"}, "run"), ({"name": "values", "run": "x"}, "'run'")],
)
def test_targets_that_make_no_sense_are_refused(target: object, words: str) -> None:
    row = method("maskfeat", rebuild__target=target)
    with pytest.raises(UserError, match=words):
        Objective(ToyEncoder(), row, core())


class Rotated(nn.Module):
    """A formula with a matrix product, which autocast would round; or, with a parameter, a network."""

    def __init__(self, encoder: Any, network: bool = False):
        super().__init__()
        self.width = encoder.value_width
        matrix = torch.linalg.qr(torch.randn(self.width, self.width, generator=torch.Generator().manual_seed(0)))[0]
        self.matrix = nn.Buffer(matrix)
        self.weight = nn.Parameter(torch.ones(1)) if network else None

    def forward(self, tokens: Tokens) -> Tensor:
        return tokens.values @ self.matrix


def test_autocast_rounds_the_features_of_networks_alone() -> None:
    made = tokens()
    formula, network = Rotated(ToyEncoder()), Rotated(ToyEncoder(), network=True)
    exact = features_of(formula, made)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(features_of(formula, made), exact)
        rounded = features_of(network, made)
    assert rounded.dtype == torch.float32
    assert not rounded.requires_grad
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
    assert torch.equal(features_of(network, made), exact)
