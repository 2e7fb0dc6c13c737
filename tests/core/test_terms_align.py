"""Alignment across samples: which token is the same place, and the term against loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare, slow, unit
from unlabeled.branches import Look, Passes
from unlabeled.contract import Encoded, Tokens
from unlabeled.masking import Hidden
from unlabeled.terms.align import Align, by_sample, following, same_places

B, N, D = 4, 6, 16


def tokens(seed: int = 0, views: int = 1) -> Tokens:
    chance = torch.Generator().manual_seed(seed)
    valid = torch.rand(views * B, N, generator=chance) < 0.8
    where = torch.rand(views * B, N, 2, generator=chance)
    return Tokens(torch.zeros(views * B, N, 3), where * 0, valid, {}, where=where)


def naive_match(data: Tokens, latent: Tensor, radius: float, first: int, row: int, place: int) -> int | None:
    """The most alike valid token of the next of B rows that is within the radius, by loops; None: there is none."""
    other = first + (row + 1) % B
    assert data.where is not None
    here, best = data.where[first + row, place], (-2.0, None)
    for number in range(N):
        near = (data.where[other, number] - here).abs().max() <= radius
        alike = float(unit(latent[first + row, place]) @ unit(latent[other, number]))
        if data.valid[other, number] and near and alike > best[0]:
            best = (alike, number)  # type: ignore[assignment]
    return best[1] if data.valid[first + row, place] else None


@pytest.mark.parametrize("radius", [0.1, 0.4, 2.0])
def test_the_same_place_is_the_most_alike_within_the_radius(radius: float) -> None:
    data, latent = tokens(), torch.randn(B, N, D)
    assert data.where is not None
    match, near = same_places(data.valid, data.where, latent, radius)
    for row in range(B):
        for place in range(N):
            wanted = naive_match(data, latent, radius, 0, row, place)
            assert (wanted is not None) == bool(near[row, place])
            assert wanted is None or wanted == int(match[row, place])


def test_pieces_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    data, latent = tokens(), torch.randn(B, N, D)
    assert data.where is not None
    whole = same_places(data.valid, data.where, latent, 0.5)
    monkeypatch.setattr("unlabeled.terms.align.CHUNK", 1)
    for one, other in zip(whole, same_places(data.valid, data.where, latent, 0.5), strict=True):
        assert (one[whole[1]] == other[whole[1]]).all()


def test_what_follows_is_the_next_sample_and_the_first_after_the_last() -> None:
    x = torch.arange(3)[:, None, None].expand(3, 2, 1)
    assert following(x)[:, 0, 0].tolist() == [1, 2, 0]


def test_flat_storage_is_padded_sample_by_sample() -> None:
    owner = torch.tensor([[0, 1, 1, 0, 2, 1]])
    flat = Tokens(torch.zeros(1, 6, 1), torch.zeros(1, 6, 1), torch.ones(1, 6, dtype=torch.bool), {}, owner)
    (rows,) = by_sample(flat, 1, torch.arange(1.0, 7.0)[None, :, None])
    assert rows[..., 0].tolist() == [[1, 4, 0], [2, 3, 6], [5, 0, 0]]
    (rows,) = by_sample(flat, 2, torch.arange(1.0, 7.0)[None, :, None])
    assert rows[..., 0].tolist() == [[1, 4, 0], [2, 3, 6], [5, 0, 0], [0, 0, 0]], "the last of the second view is empty"


def made(data: Tokens, student: Tensor, teacher: Tensor, hidden: Tensor) -> Passes:
    def look(x: Tensor, hide: Hidden | None) -> Look:
        return Look(2, data, Encoded(x, x.mean(1)), hide)

    hide = Hidden(hidden & data.valid, (hidden & data.valid,))
    return Passes("ema", {"global": [look(student, hide)]}, {"global": look(teacher, None)}, CLOCK)


def naive(term: Align, data: Tokens, x: Tensor, teacher: Tensor, goals: Tensor, hidden: Tensor) -> Tensor:
    views = []
    for first in (0, B):
        losses = []
        for row in range(B):
            for place in range(N):
                match = naive_match(data, teacher, term.radius, first, row, place)
                if match is None or hidden[first + row, place]:
                    continue
                p = slow(term.predictor, slow(term.projector, x[first + row, place][None]))[0]  # type: ignore[arg-type]
                losses.append((unit(p) - unit(goals[first + (row + 1) % B, match])).square().sum())
        views.append(torch.stack(losses).mean())
    return torch.stack(views).mean()


def test_the_term_equals_the_naive_loss_and_its_gradients() -> None:
    torch.manual_seed(0)
    term = Align(ToyEncoder(), hidden=7, out=5, radius=0.4)
    term.attach("ema")
    for weight in term.projector.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    data, theirs, hidden = tokens(1, 2), torch.randn(2 * B, N, D), torch.rand(2 * B, N) < 0.3
    head = term.teacher_heads["projector"].module
    goals = torch.stack([slow(head.double(), row) for row in theirs.double()]).detach()
    head.float()
    compare(
        term,
        [torch.randn(2 * B, N, D)],
        lambda term, x: term(made(data, x[0], theirs, hidden))["loss"],
        lambda term, x: naive(term, data, x[0], theirs.double(), goals, hidden),  # type: ignore[arg-type]
    )


def test_a_sample_alone_is_its_own_next() -> None:
    term = Align(ToyEncoder(), out=8)
    term.attach("shared")
    term.projector = term.predictor = torch.nn.Identity()  # type: ignore[assignment]
    data = Tokens(torch.zeros(1, N, 3), torch.rand(1, N, 1), torch.ones(1, N, dtype=torch.bool), {})
    x = torch.randn(1, N, D)
    one = Look(1, data, Encoded(x, x.mean(1)))
    out = term(Passes("shared", {"plain": [one]}, {"plain": one}, CLOCK))
    assert float(out["loss"]) == pytest.approx(0, abs=1e-5)
    assert float(out["matched"]) == 1
