"""wav2vec 2.0's contrast of quantised embeddings against loops, and what its chance depends on."""

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
from unlabeled.schedules import Clock
from unlabeled.terms import quantised as module
from unlabeled.terms.base import Term
from unlabeled.terms.quantised import Quantised, _Chance, _draws


def look_of(latent: Tensor, hidden: Tensor, owner: Tensor | None = None) -> Look:
    B, N, _ = latent.shape
    tokens = Tokens(torch.zeros(B, N, 3), torch.zeros(B, N, 1), torch.ones(B, N, dtype=torch.bool), {}, owner)
    instances = latent.mean(1) if owner is None else torch.zeros(int(owner.max()) + 1, 16)
    return Look(1, tokens, Encoded(latent, instances), Hidden(hidden, (hidden,)), True)


def passes(latent: Tensor, embedded: Tensor, hidden: Tensor, samples: Tensor | None = None) -> Passes:
    look = look_of(latent, hidden)
    return Passes("shared", {"plain": [look]}, {"plain": look}, CLOCK, samples, embed=lambda _: embedded)


def made(**options: object) -> Quantised:
    return Quantised(ToyEncoder(), **{"books": 2, "codes": 4, "code_width": 6, "out": 5, "distractors": 3, **options})


def test_equals_the_naive_loss_and_its_gradients() -> None:
    hidden = torch.rand(3, 6) < 0.6
    hidden[0, :2], hidden[2] = True, torch.tensor([False, True, False, False, False, False])
    term = made(temperature=0.3, diversity=0.7).eval()
    seen = passes(torch.zeros(3, 6, 16), torch.zeros(3, 6, 16), hidden)
    chance = _Chance(seen.student["plain"][0], hidden, _draws(seen, seen.student["plain"][0]).fork(0))
    others = chance.others(3)
    where = hidden.nonzero().tolist()
    assert (others[-1] == -1).all(), "the last sample has one hidden token alone"
    assert all(where[j][0] == where[i][0] and i != j for i, row in enumerate(others.tolist()) for j in row if j >= 0)

    def naive(term: Term, x: list[Tensor]) -> Tensor:
        tau = term.cooled(CLOCK)
        codes, chosen, even = [], [], []
        for b, n in where:
            scores = (term.choose.weight @ x[1][b, n] + term.choose.bias).view(2, 4)
            even.append(scores.softmax(1))
            soft = (scores / tau).softmax(1)
            straight = torch.eye(4).to(soft)[soft.argmax(1)] + soft - soft.detach()
            code = torch.cat([row @ book for row, book in zip(straight, term.entries, strict=True)])
            codes.append(unit(term.projector.weight @ code + term.projector.bias))
            chosen.append(soft.argmax(1).tolist())
        errors = []
        for own, (b, n) in enumerate(where):
            guess = unit(term.predictor.weight @ x[0][b, n] + term.predictor.bias)
            right = (guess @ codes[own] / 0.3).exp()
            wrong = [
                (guess @ codes[j] / 0.3).exp() for j in others[own].tolist() if j >= 0 and chosen[j] != chosen[own]
            ]
            errors.append(-(right / (right + sum(wrong))).log())
        average = torch.stack(even).mean(0)
        spent = sum(math.e ** -(row * row.log()).sum() for row in average)
        return torch.stack(errors).mean() + 0.7 * (8 - spent) / 8

    compare(
        term,
        [torch.randn(3, 6, 16), torch.randn(3, 6, 16)],
        lambda term, x: term(passes(x[0], x[1], hidden))["loss"],
        naive,
    )


def test_chance_is_the_samples_own() -> None:
    hidden = torch.rand(4, 6) < 0.7
    numbers = torch.tensor([5, 2, 9, 7])
    latent, embedded = torch.randn(4, 6, 16), torch.randn(4, 6, 16)
    whole = passes(latent, embedded, hidden, numbers)

    def noise(part: slice) -> Tensor:
        seen = passes(latent[part], embedded[part], hidden[part], numbers[part])
        look = seen.student["plain"][0]
        return _Chance(look, hidden[part], _draws(seen, look)).gumbel(2, 4)

    assert torch.equal(noise(slice(4)), torch.cat([noise(slice(1)), noise(slice(1, 4))]))
    assert noise(slice(4)).flatten().unique().numel() == int(hidden.sum()) * 8
    term = made()
    one, two, later = term(whole), term(whole), term(replace(whole, clock=replace(CLOCK, step=CLOCK.step + 1)))
    assert torch.equal(one["loss"], two["loss"])
    assert not torch.equal(one["loss"], later["loss"])


def test_noise_is_gumbels() -> None:
    hidden = torch.ones(50, 40, dtype=torch.bool)
    look = look_of(torch.zeros(50, 40, 16), hidden)
    seen = Passes("shared", {"plain": [look]}, {"plain": look}, CLOCK)
    noise = _Chance(look, hidden, _draws(seen, look)).gumbel(10)
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.03)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.06)


def test_flat_storage_draws_within_samples() -> None:
    owner = torch.tensor([[0, 0, 0, 1, 1, 2, 1]])
    hidden = torch.ones(1, 7, dtype=torch.bool)
    look = look_of(torch.zeros(1, 7, 16), hidden, owner)
    seen = Passes("shared", {"plain": [look]}, {"plain": look}, CLOCK)
    others = _Chance(look, hidden, _draws(seen, look)).others(5)
    for token, row in enumerate(others.tolist()):
        alike = {j for j in range(7) if owner[0, j] == owner[0, token] and j != token}
        assert set(row) <= (alike or {-1})


def test_in_chunks_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = torch.rand(3, 6) < 0.7
    seen = passes(torch.randn(3, 6, 16), torch.randn(3, 6, 16), hidden)
    term = made()
    whole = term(seen)["loss"]
    monkeypatch.setattr(module, "CHUNK", 40)
    torch.testing.assert_close(term(seen)["loss"], whole)


def test_the_choice_cools_and_nothing_hidden_costs_no_more_than_diversity() -> None:
    term = made(gumbel=(2.0, 0.5))
    assert term.cooled(Clock(0, 100, 10)) == 2.0
    assert term.cooled(Clock(35, 100, 10)) == pytest.approx(1.0)
    assert term.cooled(Clock(90, 100, 10)) == pytest.approx(0.5)
    nothing = torch.zeros(2, 5, dtype=torch.bool)
    loss = term(passes(torch.randn(2, 5, 16, requires_grad=True), torch.randn(2, 5, 16), nothing))["loss"]
    loss.backward()
    assert loss.isfinite()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UserError, match="that its books divide"):
        made(books=4)
    with pytest.raises(UserError, match="two temperatures above 0"):
        made(gumbel=(2.0, 0.0))
    seen = passes(torch.randn(2, 5, 16), torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(UserError, match="in_place=true"):
        made()(replace(seen, student={"plain": [replace(seen.student["plain"][0], in_place=False)]}))
