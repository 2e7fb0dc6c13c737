"""Clusters of features, and cross-entropy over them, against loops."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare, unit
from unlabeled.branches import Look, Passes
from unlabeled.contract import Encoded, Tokens
from unlabeled.errors import UserError
from unlabeled.masking import Hidden
from unlabeled.targets import Values
from unlabeled.terms.token_ids import TokenIds, _some


def tokens_of(values: Tensor) -> Tokens:
    B, N, _ = values.shape
    coords = torch.linspace(0, 1, N)[None, :, None].expand(B, N, 1)
    return Tokens(values, coords, torch.ones(B, N, dtype=torch.bool), {})


class Blobs:
    """Tokens around three points far from each other."""

    points = torch.tensor([[0.0, 0, 9], [9, 0, 0], [0, 9, 0]])

    def __init__(self) -> None:
        self.which = torch.arange(60).view(6, 10) % 3
        self.batch = tokens_of(self.points[self.which] + 0.1 * torch.randn(6, 10, 3))

    def tokens(self, samples: int) -> Iterator[Tokens]:
        yield self.batch

    def instances(self) -> Tensor:
        raise AssertionError("nobody asks")


def made(**options: object) -> TokenIds:
    encoder = ToyEncoder()
    return TokenIds(encoder, target=Values(encoder), **{"codes": 3, "out": 8, **options})


def test_clusters_are_found_once_and_saved() -> None:
    blobs, term = Blobs(), made(codes=5)
    term.prepare(CLOCK, blobs)
    assert term.count.tolist() == [5]
    term = made(codes=3)
    term.prepare(CLOCK, blobs)
    ids = term.ids(blobs.batch)
    assert all(len(ids[blobs.which == k].unique()) == 1 for k in range(3))
    assert len(ids.unique()) == 3
    before = copy.deepcopy(term.state_dict())
    term.prepare(CLOCK, Blobs())
    assert all(torch.equal(value, before[name]) for name, value in term.state_dict().items())
    other = made(codes=3)
    other.load_state_dict(before)
    assert torch.equal(other.ids(blobs.batch), ids)


def test_fewer_different_features_than_codes() -> None:
    blobs, term = Blobs(), made(codes=7)
    blobs.batch = tokens_of(blobs.points[blobs.which])
    term.prepare(CLOCK, blobs)
    assert term.count.tolist() == [3]
    assert set(term.ids(blobs.batch).unique().tolist()) == {0, 1, 2}


def test_equals_the_naive_loss_and_its_gradients() -> None:
    blobs, term = Blobs(), made(temperature=0.3)
    term.prepare(CLOCK, blobs)
    hidden = torch.rand(6, 10) < 0.5
    ids = term.ids(blobs.batch)

    def passes(latent: Tensor) -> Passes:
        look = Look(1, blobs.batch, Encoded(latent, latent.mean(1)), Hidden(hidden, (hidden,)), True)
        return Passes("shared", {"plain": [look]}, {"plain": look}, CLOCK)

    def naive(term: TokenIds, inputs: list[Tensor]) -> Tensor:
        errors = []
        codes = [row / (row @ row) ** 0.5 for row in term.code[0]]
        for b, n in hidden.nonzero().tolist():
            guess = term.predictor.weight @ inputs[0][b, n] + term.predictor.bias
            guess = guess / (guess @ guess) ** 0.5
            score = torch.stack([(guess @ code / 0.3).exp() for code in codes])
            errors.append(-(score[ids[b, n]] / score.sum()).log())
        return torch.stack(errors).mean()

    compare(term, [torch.randn(6, 10, 16)], lambda term, x: term(passes(x[0]))["loss"], naive)


def test_books_cluster_what_is_left_over_and_are_all_predicted() -> None:
    blobs, term = Blobs(), made(codes=3, books=2, temperature=0.3)
    offsets = torch.tensor([[0.5, 0, 0], [0, 0, 0.5]])
    which = torch.randint(2, (6, 10))
    blobs.batch = tokens_of(blobs.points[blobs.which] + offsets[which] + 0.01 * torch.randn(6, 10, 3))
    term.prepare(CLOCK, blobs)
    ids = term.ids(blobs.batch)
    assert all(len(ids[..., 0][blobs.which == k].unique()) == 1 for k in range(3))
    assert not set(ids[..., 1][which == 0].tolist()) & set(ids[..., 1][which == 1].tolist()), "the rest tells offsets"
    latent, hidden = torch.randn(6, 10, 16), torch.rand(6, 10) < 0.5

    def passes(latent: Tensor) -> Passes:
        look = Look(1, blobs.batch, Encoded(latent, latent.mean(1)), Hidden(hidden, (hidden,)), True)
        return Passes("shared", {"plain": [look]}, {"plain": look}, CLOCK)

    def naive(term: TokenIds, inputs: list[Tensor]) -> Tensor:
        errors = []
        for b, n in hidden.nonzero().tolist():
            guesses = (term.predictor.weight @ inputs[0][b, n] + term.predictor.bias).view(2, 8)
            for guess, book, goal in zip(guesses, term.code, ids[b, n], strict=True):
                score = torch.stack([unit(guess) @ unit(code) / 0.3 for code in book])
                errors.append(-score.log_softmax(0)[goal])
        return torch.stack(errors).mean()

    compare(term, [latent], lambda term, x: term(passes(x[0]))["loss"], naive)


def test_codes_beyond_the_clusters_take_no_part() -> None:
    blobs, term = Blobs(), made(codes=7)
    blobs.batch = tokens_of(blobs.points[blobs.which])
    term.prepare(CLOCK, blobs)
    latent, hidden = torch.randn(6, 10, 16), torch.rand(6, 10) < 0.5
    look = Look(1, blobs.batch, Encoded(latent, latent.mean(1)), Hidden(hidden, (hidden,)), True)
    passes = Passes("shared", {"plain": [look]}, {"plain": look}, CLOCK)
    before = term(passes)["loss"]
    with torch.no_grad():
        term.code[:, 3:] = term.predictor.bias  # a code that would attract
    torch.testing.assert_close(term(passes)["loss"], before, rtol=0, atol=0)
    with torch.no_grad():
        term.code[:, :3] = 1.0
    torch.testing.assert_close(term(passes)["loss"].item(), math.log(3))


def test_a_predictor_sees_nothing_of_hidden_places() -> None:
    blobs, term = Blobs(), made(depth=1)
    term.prepare(CLOCK, blobs)
    hidden = torch.rand(6, 10) < 0.5
    latent = torch.randn(6, 10, 16)

    def loss(latent: Tensor) -> Tensor:
        look = Look(1, blobs.batch, Encoded(latent, latent.mean(1)), Hidden(hidden, (hidden,)))
        return term(Passes("shared", {"plain": [look]}, {"plain": look}, CLOCK))["loss"]

    torch.testing.assert_close(loss(latent + 7 * hidden[..., None]), loss(latent), rtol=0, atol=0)
    assert (loss(latent + 7 * torch.randn(6, 10, 16)) - loss(latent)).abs() > 1e-4


def test_clusters_do_not_depend_on_batches_or_on_what_was_drawn_before() -> None:
    blobs, whole = Blobs(), made()
    whole.prepare(CLOCK, blobs)

    class Parts(Blobs):
        def tokens(self, samples: int) -> Iterator[Tokens]:
            torch.rand(7)
            yield from (tokens_of(part) for part in blobs.batch.values.split([1, 3, 2]))

    parts = made()
    parts.prepare(CLOCK, Parts())
    torch.testing.assert_close(parts.centres, whole.centres)


def test_the_sample_of_features_is_even_and_bounded() -> None:
    parts = [torch.arange(start, start + 250.0)[:, None] for start in range(0, 1000, 250)]
    some = _some(iter(parts), 200)
    assert some.shape == (200, 1)
    assert len(some.unique()) == 200
    assert torch.histc(some, 4, 0, 1000).min() > 30
    assert len((some % 10).unique()) == 10, "a stride would always take the same places of a sample"
    assert torch.equal(_some(iter(parts), 1000), torch.cat(parts))
    assert torch.equal(_some([torch.cat(parts)], 200), some)


class Nobody(Blobs):
    def tokens(self, samples: int) -> Iterator[Tokens]:
        yield from ()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UserError, match="at least 2"):
        made(codes=1)
    with pytest.raises(UserError, match="books 1"):
        made(books=0)
    with pytest.raises(UserError, match="no sample"):
        made().prepare(CLOCK, Nobody())
    blobs, term = Blobs(), made()
    term.prepare(CLOCK, blobs)
    hidden = torch.rand(6, 10) < 0.5
    look = Look(1, blobs.batch, Encoded(torch.randn(6, 10, 16), torch.randn(6, 16)), Hidden(hidden, (hidden,)))
    with pytest.raises(UserError, match="in_place=true"):
        term(Passes("shared", {"plain": [look]}, {"plain": look}, CLOCK))
