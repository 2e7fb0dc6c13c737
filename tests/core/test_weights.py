"""Weights that are given, that move, and that are solved for, against slow and independent arithmetic."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

import unlabeled.normaliser
from toy import CLOCK, ToyEncoder, forward, keys, views
from unlabeled.errors import UserError
from unlabeled.methods import Method, Views, use
from unlabeled.objective import Objective
from unlabeled.plugins import core
from unlabeled.schedules import Clock
from unlabeled.weights import Ramp, min_norm, ramp_of

TERMS = (use("contrast", out=8), use("rebuild", depth=1), use("vicreg", hidden=8, out=8))


def made(weights: str = "pareto", terms: tuple = TERMS) -> Objective:
    row = Method(Views(global_=2), terms, use("random", ratio=0.5), weights=weights)
    return Objective(ToyEncoder(), row, core(), ("mine", "toy")).train()


# ---- the shortest vector


def vectors(kind: str, T: int, P: int, seed: int) -> Tensor:
    """[T, P] gradients whose norms differ by a hundred, some of them special."""
    chance = torch.Generator().manual_seed(seed)
    size = 10 ** (2 * torch.rand(T, 1, generator=chance, dtype=torch.float64) - 1)
    found = torch.randn(T, P, generator=chance, dtype=torch.float64) * size
    if kind == "alike":
        found += 3 * torch.randn(P, generator=chance, dtype=torch.float64)
    if kind == "twice":
        found[-1] = found[0]
    if kind == "against":
        found[-1] = -2 * found[0]
    if kind == "zero":
        found[-1] = 0
    return found


@pytest.mark.parametrize("T", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("kind", ["any", "alike", "twice", "against", "zero"])
def test_the_shortest_vector_is_that_of_a_general_solver(kind: str, T: int) -> None:
    for seed, P in enumerate((2, 3, 20, 200)):
        v = vectors(kind, T, P, seed)
        gram = v @ v.T
        weights = min_norm(gram)
        assert (weights >= 0).all()
        assert float(weights.sum()) == pytest.approx(1)
        shortest = weights @ v
        most = float(gram.diag().max())
        # It is the shortest just where no gradient has less of it than itself.
        assert (v @ shortest).min() >= shortest.square().sum() - 1e-8 * most
        size, plain = gram.trace(), gram.numpy()
        found = minimize(
            lambda w, g=plain / float(size): w @ g @ w,
            np.full(T, 1 / T),
            jac=lambda w, g=plain / float(size): 2 * g @ w,
            bounds=[(0, 1)] * T,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(len(w))},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 300},
        )
        assert float(weights @ gram @ weights / size) == pytest.approx(found.fun, abs=1e-7)


def test_two_terms_have_the_papers_closed_form() -> None:
    for seed in range(50):
        one, two = vectors("alike" if seed % 2 else "any", 2, 5, seed)
        goal = (((two - one) @ two) / (one - two).square().sum()).clamp(0, 1)
        gram = torch.stack([one, two]) @ torch.stack([one, two]).T
        torch.testing.assert_close(min_norm(gram), torch.stack([goal, 1 - goal]), rtol=1e-6, atol=1e-9)


def test_the_shortest_vector_of_right_angles() -> None:
    gram = torch.diag(torch.tensor([1.0, 4.0, 16.0], dtype=torch.float64))
    torch.testing.assert_close(min_norm(gram), torch.tensor([16, 4, 1], dtype=torch.float64) / 21)
    assert min_norm(torch.full((3, 3), torch.nan).double()).isnan().all(), (
        "a broken gradient breaks the step, and is seen"
    )


# ---- terms on an encoder


def gradients(objective: Objective, name: str) -> Tensor:
    """[P] of one term's loss on the encoder, from a forward and backward pass of its own."""
    alone = copy.deepcopy(objective)
    term = alone.terms[name]
    passes = alone.look(*looked(alone), CLOCK)
    term(passes)["loss"].backward()
    return torch.cat(
        [torch.zeros_like(w).flatten() if w.grad is None else w.grad.flatten() for w in alone.encoder.parameters()]
    )


def looked(objective: Objective) -> tuple:
    """Batches, and the keys of their masks."""
    batches = views(objective.method)
    return batches, keys(batches)


@pytest.mark.parametrize("weights", ["pareto", "pareto_unit"])
def test_a_step_makes_no_term_worse(weights: str) -> None:
    objective = made(weights)
    out = objective(*looked(objective), CLOCK)
    out["loss"].backward()
    step = torch.cat([w.grad.flatten() for w in objective.encoder.parameters()])
    each = {name: gradients(objective, name) for name in objective.terms}
    found = {name: out[f"{name}/weight"] for name in each}
    assert float(sum(found.values())) == pytest.approx(1)
    torch.testing.assert_close(step, sum(found[name] * each[name] for name in each), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(
        out["loss"].detach(), sum(found[name] * out[f"{name}/loss"] for name in each), rtol=1e-6, atol=0
    )
    lengths = {name: 1.0 if weights == "pareto" else float(grad.norm()) for name, grad in each.items()}
    gain = [float(grad @ step) / lengths[name] for name, grad in each.items()]
    used = [gain for gain, weight in zip(gain, found.values(), strict=True) if weight > 0]
    assert min(gain) > 0
    assert min(gain) > 0.999 * max(used), "as much for each that has a weight, and no less for the others"
    if weights == "pareto":
        assert min(gain) > 0.999 * float(step.square().sum())


def test_the_units_of_a_loss_matter_only_where_gradients_are_taken_as_they_are() -> None:
    for weights, matter in (("pareto", True), ("pareto_unit", False)):
        shares = []
        for scale in (1.0, 100.0):
            objective = made(weights)
            contrast = objective.terms["contrast"]
            contrast.register_forward_hook(lambda m, i, out, s=scale: {**out, "loss": s * out["loss"]})
            torch.manual_seed(0)
            for weight in objective.parameters():
                torch.nn.init.normal_(weight, std=0.2)
            out = objective(*looked(objective), CLOCK)
            parts = torch.stack([out[f"{name}/weight"] for name in objective.terms])
            parts[0] *= scale
            shares.append(parts / parts.sum())
        assert torch.allclose(*shares, rtol=1e-3, atol=1e-5) is not matter


def test_losses_in_chunks_can_be_solved_for(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = made()
    whole = copy.deepcopy(objective)(*looked(objective), CLOCK)
    monkeypatch.setattr(unlabeled.normaliser, "CHUNK", 16)
    out = objective(*looked(objective), CLOCK)
    out["loss"].backward()
    for name in objective.terms:
        torch.testing.assert_close(out[f"{name}/weight"], whole[f"{name}/weight"], rtol=1e-4, atol=1e-6)


def test_frozen_weights_take_no_part() -> None:
    objective = made()
    objective.encoder.enter.requires_grad_(False)
    again = Objective(objective.encoder, objective.method, core())
    assert len(again.weigh.shared) == len(list(objective.encoder.parameters())) - 2
    assert forward(again, views(again.method))["loss"].isfinite()


def test_one_term_needs_no_solution() -> None:
    objective = made(terms=TERMS[:1])
    out = objective(*looked(objective), CLOCK)
    assert "contrast/weight" not in out


def test_a_weight_beside_a_solution_is_refused() -> None:
    with pytest.raises(UserError, match=r"term 'rebuild' has one of its own: set rebuild\.weight=1"):
        made(terms=(use("contrast"), use("rebuild", 0.5)))


# ---- weights that move


def test_a_ramp_at_the_points_where_it_is_known() -> None:
    clocks = [Clock(step, 100, 10) for step in (0, 10, 30, 50, 70, 99)]
    cosine = ramp_of("gram", {"start": 0, "end": 1, "from": 0.1, "to": 0.5})
    assert [cosine(clock) for clock in clocks] == pytest.approx([0, 0, 0.5, 1, 1, 1])
    line = ramp_of("gram", {"start": 2, "end": 1, "along": "line"})
    assert [line(clock) for clock in clocks] == pytest.approx([2, 1.9, 1.7, 1.5, 1.3, 1.01])
    assert ramp_of("gram", {"start": 0, "end": 1}) == Ramp(0, 1, 0, 1, "cosine")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"start": 0, "stop": 1}, "gram.weight has no 'stop'"),
        ({"start": 0, "end": 1, "form": 0.1}, "gram.weight has no 'form'; did you mean from"),
        ({"start": 0}, "at least start and end in numbers"),
        ({"start": 0, "end": "much"}, "at least start and end in numbers"),
        ({"start": 0, "end": 1, "from": 0.5, "to": 0.2}, "to a later one, not 0.5 to 0.2"),
        ({"start": 0, "end": 1, "along": "lin"}, "no curve of gram.weight is called 'lin'; did you mean line"),
    ],
)
def test_what_is_no_ramp_is_refused(data: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ramp_of("gram", data)


def test_moving_weights_weigh_and_are_logged() -> None:
    objective = made("fixed", (TERMS[0], use("rebuild", {"start": 0, "end": 2, "along": "line"}, depth=1)))
    for step in (0, 25, 100):
        out = objective(*looked(objective), Clock(step, 100, 10))
        assert float(out["rebuild/weight"]) == pytest.approx(step / 50)
        assert "contrast/weight" not in out
        goal = out["contrast/loss"] + step / 50 * out["rebuild/loss"]
        torch.testing.assert_close(out["loss"].detach(), goal)
