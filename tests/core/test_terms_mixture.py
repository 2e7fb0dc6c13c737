"""Soft-label InfoNCE of mixtures against loops, and what it is at its ends."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare, look, slow, unit
from unlabeled import normaliser
from unlabeled.branches import Look, Passes
from unlabeled.masking import Hidden
from unlabeled.terms.base import Term
from unlabeled.terms.infonce import info_nce
from unlabeled.terms.mixture import Mixture, mixture

PARTNER = torch.tensor([2, 3, 1, 0])
PART = torch.tensor([0.9, 0.6, 0.5, 1.0])


def passes(mixed: Tensor, clean: Tensor) -> Passes:
    """One plain view of four samples: mixed for the student, clean for the teacher."""
    seen, nothing = look(mixed[None]), torch.zeros(4, 1, dtype=torch.bool)
    hide = Hidden(nothing, (nothing,), partner=PARTNER, part=PART)
    return Passes("shared", {"plain": [Look(1, seen.tokens, seen.encoded, hide)]}, {"plain": look(clean[None])}, CLOCK)


def naive(mixed: Tensor, clean: Tensor, temperature: float) -> Tensor:
    losses = []
    for i, row in enumerate(mixed):
        p = torch.stack([(unit(row) @ unit(other) / temperature).exp() for other in clean])
        p = p / p.sum()
        losses.append(-PART[i] * p[i].log() - (1 - PART[i]) * p[PARTNER[i]].log())
    return torch.stack(losses).mean()


def test_equals_the_naive_loss_and_its_gradients() -> None:
    def expected(term: Term, x: list[Tensor]) -> Tensor:
        both = slow(term.projector, x[0]), slow(term.projector, x[1])
        return naive(*both, 0.3)

    compare(
        Mixture(ToyEncoder(), temperature=0.3, hidden=7, out=5),
        [torch.randn(4, 16), torch.randn(4, 16)],
        lambda term, x: term(passes(x[0], x[1]))["loss"],
        expected,
    )


def test_nothing_mixed_in_is_info_nce() -> None:
    one, two = torch.randn(2, 6, 8)
    order = torch.arange(6).roll(1)
    torch.testing.assert_close(mixture(one, two, order, torch.ones(6), 0.2), info_nce(one, two, 0.2))
    turned = mixture(one, two, order, torch.zeros(6), 0.2)
    torch.testing.assert_close(turned, info_nce(one, two[order], 0.2))


def test_in_chunks_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = torch.randn(2, 7, 8)
    inputs = (one, two, torch.arange(7).roll(2), torch.rand(7), 0.2)
    whole = mixture(*inputs)
    monkeypatch.setattr(normaliser, "CHUNK", 20)
    torch.testing.assert_close(mixture(*inputs), whole)
