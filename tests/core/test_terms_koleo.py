"""KoLeo against loops, and what it wants."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toy import ToyEncoder, compare, passes, unit
from unlabeled.terms import koleo as module
from unlabeled.terms.base import Term
from unlabeled.terms.koleo import KoLeo, koleo


def naive(z: Tensor) -> Tensor:
    rows = [unit(row) for row in z]
    losses = []
    for i, row in enumerate(rows):
        far = torch.stack([((row - other) ** 2).sum() for j, other in enumerate(rows) if j != i])
        losses.append(-(far.min().sqrt() + 1e-8).log())
    return torch.stack(losses).mean()


class Scaled(KoLeo):
    """With a weight, as `compare` wants one."""

    def __init__(self) -> None:
        super().__init__(ToyEncoder())
        self.weight = torch.nn.Parameter(torch.randn(16))


def test_equals_the_naive_loss_and_its_gradients() -> None:
    def loss(term: Term, x: list[Tensor]) -> Tensor:
        return term(passes({"global": x[0] * term.weight, "local": x[0][:1]}))["loss"]

    def expected(term: Term, x: list[Tensor]) -> Tensor:
        return sum(naive(view * term.weight) for view in x[0])

    compare(Scaled(), [torch.randn(2, 6, 16)], loss, expected)


def test_spread_rows_cost_less_and_equal_ones_are_finite() -> None:
    near = torch.ones(8, 4) + 0.01 * torch.randn(8, 4)
    assert koleo(torch.eye(8)).item() < koleo(near).item()
    assert koleo(torch.eye(8)).item() == pytest.approx(-0.5 * torch.tensor(2.0).log().item(), rel=1e-5)
    same = torch.ones(4, 4, requires_grad=True)
    loss = koleo(same)
    loss.backward()
    assert loss.isfinite()
    assert same.grad.isfinite().all()


def test_in_chunks_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(9, 5)
    whole = koleo(z)
    monkeypatch.setattr(module, "CHUNK", 20)
    assert torch.equal(koleo(z), whole)
