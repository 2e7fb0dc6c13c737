"""KoLeo against loops, and what it wants."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toy import ToyEncoder, compare, passes, unit
from unlabeled.normaliser import unit as unit_rows
from unlabeled.terms import koleo as module
from unlabeled.terms.base import Term
from unlabeled.terms.koleo import KoLeo, koleo, nearest_others


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


@pytest.mark.parametrize("rows", [2, 7, 9, 40])
def test_in_blocks_as_in_one_piece(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    z = torch.randn(rows, 5, requires_grad=True)
    whole = koleo(z)
    whole.backward()
    slope, z.grad = z.grad, None
    monkeypatch.setattr(module, "LEAST", 2)
    parts = koleo(z)
    parts.backward()
    assert torch.equal(parts, whole)
    assert torch.equal(z.grad, slope)
    alike = torch.nn.functional.normalize(z.detach(), dim=-1)
    alike = (alike @ alike.T).fill_diagonal_(-2)
    assert torch.equal(nearest_others(*[unit_rows(z.detach())] * 2), alike.argmax(1))
