"""Detection of changed tokens against loops, for dropped and for shown ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare
from unlabeled.branches import Look, Passes
from unlabeled.contract import Encoded, Tokens
from unlabeled.masking import Hidden
from unlabeled.terms.base import Term
from unlabeled.terms.moved import DetectMoved


def passes(latent: Tensor, valid: Tensor, moved: Tensor, hidden: Tensor) -> Passes:
    B, N, _ = latent.shape
    tokens = Tokens(torch.zeros(B, N, 3), torch.zeros(B, N, 1), valid, {})
    look = Look(1, tokens, Encoded(latent, latent.mean(1)), Hidden(hidden, (moved,)))
    return Passes("shared", {"plain": [look]}, {"plain": look}, CLOCK)


def test_equals_the_naive_loss_and_its_gradients() -> None:
    valid = torch.arange(7) < torch.tensor([7, 5, 3])[:, None]
    hidden = torch.zeros(3, 7, dtype=torch.bool)
    hidden[0, 0] = True
    moved = (torch.rand(3, 7) < 0.4) & valid & ~hidden
    shown = valid & ~hidden

    def naive(term: Term, x: list[Tensor]) -> Tensor:
        errors = []
        for b, n in shown.nonzero().tolist():
            p = 1 / (1 + (-(term.detector.weight[0] @ x[0][b, n] + term.detector.bias[0])).exp())
            errors.append(-(p if moved[b, n] else 1 - p).log())
        return torch.stack(errors).mean()

    compare(
        DetectMoved(ToyEncoder()),
        [torch.randn(3, 7, 16)],
        lambda term, x: term(passes(x[0], valid, moved, hidden))["loss"],
        naive,
    )


def test_an_undecided_head_costs_the_logarithm_of_two() -> None:
    term = DetectMoved(ToyEncoder())
    term.detector.weight.data.zero_()
    term.detector.bias.data.zero_()
    every = torch.ones(2, 4, dtype=torch.bool)
    moved = torch.tensor([[True, False, False, False]] * 2)
    out = term(passes(torch.randn(2, 4, 16), every, moved, ~every))
    assert abs(out["loss"].item() - math.log(2)) < 1e-6
    assert out["accuracy"].item() == 0.75
