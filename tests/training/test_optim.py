"""Optimisers and rates against what their papers say, step by step."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest_training import metrics
from unlabeled.config import Training
from unlabeled.errors import UserError
from unlabeled.schedules import Clock
from unlabeled.training.optim import LARS, in_steps, learning_rate, make_optimizer, set_rates
from unlabeled.training.pretrain import pretrain


def test_lars_is_its_formula() -> None:
    """Three steps of arXiv 1708.03888 by hand, in plain numbers, for a matrix and a bias."""
    layer = nn.Linear(2, 2)
    optimizer = make_optimizer(layer, Training(optimizer="lars", lr=0.5, weight_decay=0.1))
    assert isinstance(optimizer, LARS)
    weight, bias = layer.weight.detach().double().clone(), layer.bias.detach().double().clone()
    moved_weight, moved_bias = torch.zeros(2, 2).double(), torch.zeros(2).double()
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        slope, slope_bias = torch.randn(2, 2, generator=generator), torch.randn(2, generator=generator)
        layer.weight.grad, layer.bias.grad = slope.clone(), slope_bias.clone()
        optimizer.step()
        full = slope.double() + 0.1 * weight
        trust = 0.001 * math.sqrt(float((weight**2).sum())) / math.sqrt(float((full**2).sum()))
        moved_weight = 0.9 * moved_weight + trust * full
        moved_bias = 0.9 * moved_bias + slope_bias.double()
        weight, bias = weight - 0.5 * moved_weight, bias - 0.5 * moved_bias
    assert torch.allclose(layer.weight.double(), weight, atol=1e-6)
    assert torch.allclose(layer.bias.double(), bias, atol=1e-6)


def test_adam_takes_weight_decay_for_a_part_of_the_gradient() -> None:
    """Two steps of arXiv 1412.6980 on a matrix by hand; AdamW's would differ by the size of its gradient."""
    layer = nn.Linear(2, 2)
    optimizer = make_optimizer(layer, Training(optimizer="adam", lr=0.1, weight_decay=0.5, beta2=0.99))
    weight = layer.weight.detach().double().clone()
    first, second = torch.zeros(2, 2).double(), torch.zeros(2, 2).double()
    for step in (1, 2):
        slope = torch.full((2, 2), 0.3 * step)
        layer.weight.grad, layer.bias.grad = slope.clone(), torch.zeros(2)
        optimizer.step()
        full = slope.double() + 0.5 * weight
        first, second = 0.9 * first + 0.1 * full, 0.99 * second + 0.01 * full**2
        weight = weight - 0.1 * (first / (1 - 0.9**step)) / ((second / (1 - 0.99**step)).sqrt() + 1e-8)
    assert torch.allclose(layer.weight.double(), weight, atol=1e-6)


def test_vectors_do_not_decay() -> None:
    layer = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    optimizer = make_optimizer(layer, Training(lr=1.0, weight_decay=0.5))
    before = [p.detach().clone() for p in layer.parameters()]
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, old in zip(layer.parameters(), before, strict=True):
        assert torch.allclose(parameter, old * (0.5 if parameter.ndim > 1 else 1.0))


def test_rates_follow_the_clock() -> None:
    training = Training(lr=2.0, lr_end=0.5, warmup=0.1, weight_decay=0.04, weight_decay_end=0.4)
    optimizer = make_optimizer(nn.Linear(2, 2), training)
    rates, decays = [], []
    for step in range(101):
        rates.append(set_rates(optimizer, training, Clock(step, 100, 10)))
        decays.append(optimizer.param_groups[0]["weight_decay"])
        assert all(group["lr"] == rates[-1] for group in optimizer.param_groups)
        assert optimizer.param_groups[1]["weight_decay"] == 0
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.25)
    assert rates[100] == pytest.approx(0.5)
    assert (decays[0], decays[50], decays[100]) == pytest.approx((0.04, 0.22, 0.4))


def rates_of(steps: int, **options: object) -> list[float]:
    training = in_steps(Training(lr=2.0, **options), steps)  # type: ignore[arg-type]
    return [learning_rate(training, Clock(step, steps, 10)) for step in range(steps + 1)]


def test_the_infinite_schedule_has_its_four_phases() -> None:
    rates = rates_of(100, schedule="infinite", warmup=0.1, cooldown=0.3, anneal=0.2, lr_constant=1.0, lr_end=0.1)
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert rates[25] == pytest.approx(1.5), "half of the cosine"
    assert rates[40:81] == [1.0] * 41
    assert rates[90] == pytest.approx(0.1**0.5), "half of an exponential"
    assert rates[100] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_the_infinite_schedule_has_the_papers_figures() -> None:
    rates = rates_of(100, schedule="infinite", anneal=1.0)
    assert rates[40] == pytest.approx(2 * 0.55), "the annealing waits for the first phases"
    assert rates[100] == pytest.approx(2 * 0.055)


def test_before_the_annealing_the_length_of_a_run_does_not_matter() -> None:
    for schedule in ("infinite", "constant"):
        first = in_steps(Training(lr=2.0, schedule=schedule, anneal=0.0), 100)
        assert (first.warmup, first.cooldown) == (10, 30)
        longer = replace(first, anneal=0.1)
        assert in_steps(longer, 1000) == longer
        for step in range(0, 100, 3):
            assert learning_rate(first, Clock(step, 100, 10)) == learning_rate(longer, Clock(step, 1000, 10))


def test_a_later_stage_goes_on_from_the_constant() -> None:
    assert rates_of(10, schedule="infinite", warmup=0, cooldown=0, anneal=0) == [1.1] * 11
    assert rates_of(10, schedule="infinite", warmup=5, cooldown=0, anneal=0)[4:] == pytest.approx([1.1] * 7)
    assert rates_of(4, schedule="constant", warmup=2) == [1.0, 2.0, 2.0, 2.0, 2.0]
    assert rates_of(4, schedule="constant", warmup=0) == [2.0] * 5


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    """SGD would move by lr × clip at most; with LARS on a bias alone that is exact, so the whole run is compared."""
    small = {"steps": 6, "batch_size": 64, "log_every": 1, "quiet": True, "encoder": {"name": "vit", "dropout": 0.0}}
    for clip in (None, 1e6, 1e-3):
        pretrain("toy", "digits", "simclr", out=tmp_path / str(clip), optimizer="lars", lr=5.0, clip=clip, **small)
    free, loose, tight = (metrics(tmp_path / name) for name in ("None", "1000000.0", "0.001"))
    assert free == loose, "a bound that is never reached changes nothing"
    assert free[-2]["loss"] != tight[-2]["loss"]


# dynamo looks at .grad of whatever passes a graph break, here where kept tokens are counted; it says so, no more
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch 2.11 itself calls it
def test_compiled_encoders_train_as_plain_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced by dynamo and differentiated by AOTAutograd; what a C++ compiler makes of it is left to torch."""
    compiled, compile_it = [], nn.Module.compile

    def eagerly(module: nn.Module) -> None:
        compiled.append(module)
        compile_it(module, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", eagerly)
    small = {"steps": 3, "batch_size": 64, "log_every": 1, "quiet": True, "encoder": {"name": "vit", "dropout": 0.0}}
    for name in ("plain", "compiled"):
        pretrain("toy", "digits", "simclr", out=tmp_path / name, compile=name == "compiled", **small)
    assert len(compiled) == 1
    for one, other in zip(metrics(tmp_path / "plain"), metrics(tmp_path / "compiled"), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"lr": 0.0}, "lr must be above 0"),
        ({"warmup": 1.5}, "warmup is a share"),
        ({"cooldown": -0.1}, "cooldown is a share"),
        ({"anneal": 2.0}, "anneal is a share"),
        ({"lr_constant": 0.0}, "lr_constant must be above 0"),
        ({"lora": 0}, "lora must be at least 1"),
        ({"schedule": "cosin"}, "no schedule is called 'cosin'; did you mean cosine"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Training(**wrong)  # type: ignore[arg-type]
