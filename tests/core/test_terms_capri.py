"""Contrastive prediction of token embeddings against loops."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare, unit
from unlabeled.branches import Look, Passes
from unlabeled.contract import Encoded, Tokens
from unlabeled.errors import UserError
from unlabeled.masking import Hidden
from unlabeled.targets import Values
from unlabeled.terms import capri as module
from unlabeled.terms.base import Term
from unlabeled.terms.capri import Capri, find


def passes(latent: Tensor, embedded: Tensor, hidden: Tensor) -> Passes:
    B, N, _ = latent.shape
    tokens = Tokens(torch.zeros(B, N, 3), torch.zeros(B, N, 1), torch.ones(B, N, dtype=torch.bool), {})
    look = Look(1, tokens, Encoded(latent, latent.mean(1)), Hidden(hidden, (hidden,)), True)
    return Passes("shared", {"plain": [look]}, {"plain": look}, CLOCK, embed=lambda _: embedded)


def test_equals_the_naive_loss_and_its_gradients() -> None:
    hidden = torch.rand(3, 5) < 0.5
    hidden[0, 0] = True

    def naive(term: Term, x: list[Tensor]) -> Tensor:
        places = hidden.nonzero().tolist()
        every = [unit(x[1][b, n]) for b, n in places]
        errors = []
        for own, (b, n) in enumerate(places):
            guess = unit(term.predictor.weight @ x[0][b, n] + term.predictor.bias)
            p = torch.stack([(guess @ other / 0.3).exp() for other in every])
            errors.append(-(p[own] / p.sum()).log())
        return torch.stack(errors).mean()

    compare(
        Capri(ToyEncoder(), temperature=0.3),
        [torch.randn(3, 5, 16), torch.randn(3, 5, 16)],
        lambda term, x: term(passes(x[0], x[1], hidden))["loss"],
        naive,
    )


def test_within_samples_fixed_values_are_found_among_their_samples_own() -> None:
    hidden = torch.rand(3, 5) < 0.6
    hidden[:2, 0] = True
    hidden[2] = torch.tensor([False, True, False, False, False])  # alone: found for nothing
    values = torch.randn(3, 5, 3)

    def seen(latent: Tensor) -> Passes:
        made = passes(latent, torch.zeros(3, 5, 16), hidden)
        look = made.student["plain"][0]
        return replace(made, embed=None, student={"plain": [replace(look, tokens=replace(look.tokens, values=values))]})

    def naive(term: Term, x: list[Tensor]) -> Tensor:
        errors = []
        for b, n in hidden.nonzero().tolist():
            guess = unit(term.predictor.weight @ x[0][b, n] + term.predictor.bias)
            p = {m: (guess @ unit(values[b, m].to(guess)) / 0.3).exp() for m in hidden[b].nonzero().flatten().tolist()}
            errors.append(-(p[n] / sum(p.values())).log())
        return torch.stack(errors).mean()

    encoder = ToyEncoder()
    term = Capri(encoder, temperature=0.3, within=True, target=Values(encoder))
    compare(term, [torch.randn(3, 5, 16)], lambda term, x: term(seen(x[0]))["loss"], naive)


def test_equal_embeddings_cost_the_logarithm_of_their_number() -> None:
    hidden = torch.zeros(3, 5, dtype=torch.bool)
    hidden[:, :2] = True
    loss = Capri(ToyEncoder())(passes(torch.randn(3, 5, 16), torch.ones(3, 5, 16), hidden))["loss"]
    assert loss.item() == pytest.approx(math.log(6), rel=1e-5)


def test_in_chunks_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.randn(2, 9, 4)
    whole = find(a, b, 0.2)
    monkeypatch.setattr(module, "CHUNK", 20)
    torch.testing.assert_close(find(a, b, 0.2), whole)
    owner = torch.arange(9) // 4
    parts = find(a, b, 0.2, owner)
    monkeypatch.setattr(module, "CHUNK", 1 << 20)
    torch.testing.assert_close(find(a, b, 0.2, owner), parts)


def test_nothing_hidden_costs_nothing_and_dropped_tokens_are_refused() -> None:
    nothing = torch.zeros(3, 5, dtype=torch.bool)
    seen = passes(torch.randn(3, 5, 16, requires_grad=True), torch.randn(3, 5, 16), nothing)
    loss = Capri(ToyEncoder())(seen)["loss"]
    loss.backward()
    assert loss.item() == 0
    with pytest.raises(UserError, match="in_place=true"):
        Capri(ToyEncoder())(replace(seen, student={"plain": [replace(seen.student["plain"][0], in_place=False)]}))
