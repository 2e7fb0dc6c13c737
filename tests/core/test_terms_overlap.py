"""Volume contrast: boxes of views, and the term against loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare, look, passes, slow, unit
from unlabeled.branches import Look, Passes
from unlabeled.contract import Encoded, Kind, Tokens
from unlabeled.terms.base import Term
from unlabeled.terms.overlap import Overlap, boxes, overlap


def grid(low: Tensor, high: Tensor, sides: tuple[int, ...], valid: Tensor | None = None) -> Tokens:
    """Tokens at the middles of a grid of views that reach from `low` to `high` [B, P] of their samples."""
    axes = [(torch.arange(side) + 0.5) / side for side in sides]
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(1, -1, len(sides)).expand(len(low), -1, -1)
    where = low[:, None] + coords * (high - low)[:, None]
    there = torch.ones(coords.shape[:2], dtype=torch.bool) if valid is None else valid
    return Tokens(torch.zeros(*coords.shape[:2], 1), coords, there, {}, where=where)


def some(views: int, rows: int, seed: int) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    low = torch.rand(views * rows, 2, generator=chance) * 0.5
    return low, low + 0.2 + 0.3 * torch.rand(views * rows, 2, generator=chance)


def test_boxes_are_what_views_show() -> None:
    low, high = some(1, 5, 0)
    found = boxes(grid(low, high, (4, 3)))
    assert found is not None
    torch.testing.assert_close(found[0], low)
    torch.testing.assert_close(found[1], high)
    valid = torch.ones(5, 12, dtype=torch.bool)
    valid[:, :6] = False  # the upper half lies outside of the sample
    half = boxes(grid(low, high, (4, 3), valid))
    assert half is not None
    torch.testing.assert_close(half[0], torch.stack([(low + high)[:, 0] / 2, low[:, 1]], 1))


@pytest.mark.parametrize("seed", range(3))
def test_overlap_is_the_share_of_the_first(seed: int) -> None:
    one, other = some(1, 50, seed), some(1, 50, seed + 10)
    wanted = []
    for a, b, c, d in zip(*one, *other, strict=True):
        common = [max(0.0, float(min(b[i], d[i]) - max(a[i], c[i]))) for i in range(2)]
        wanted.append(common[0] * common[1] / float((b - a).prod()))
    torch.testing.assert_close(overlap(one, other), torch.tensor(wanted))
    torch.testing.assert_close(overlap(one, one), torch.ones(50))


def test_points_along_an_axis_and_views_of_nothing() -> None:
    low = torch.tensor([[0.2, 0.5], [0.4, 0.5]])
    tokens = grid(low, low + torch.tensor([0.4, 0.0]), (4, 1))
    found = boxes(tokens)
    assert found is not None
    first, second = ((found[0][i : i + 1], found[1][i : i + 1]) for i in range(2))
    torch.testing.assert_close(overlap(first, second), torch.tensor([0.5]), atol=1e-4, rtol=0)
    empty = boxes(grid(low, low + 0.1, (2, 2), torch.zeros(2, 4, dtype=torch.bool)))
    assert empty is not None
    assert (overlap(empty, found) == 0).all()
    assert boxes(Tokens(tokens.values, tokens.coords, tokens.valid, {})) is None


def made(instances: dict[Kind, Tensor], places: dict[Kind, tuple[Tensor, Tensor]], teacher: Tensor) -> Passes:
    """Passes over views with known places; the teacher's instances are its own."""
    looks = {}
    for kind, z in instances.items():
        looks[kind] = [Look(len(z), grid(*places[kind], (2, 2)), Encoded(None, z.flatten(0, 1)))]
    return Passes("ema", looks, {"global": look(teacher)}, CLOCK)


def naive(term: Overlap, z: list[Tensor], corners: list[tuple[Tensor, Tensor]], goals: list[Tensor]) -> Tensor:
    projected = [slow(term.projector, view) for view in z]
    losses, strange = [], []
    for i, here in enumerate(projected):
        for j, there in enumerate(goals):
            for row in range(len(here)):
                if i == j:
                    continue
                (a, b), (c, d) = (tuple(corner[row] for corner in corners[k]) for k in (i, j))
                y = float(((torch.minimum(b, d) - torch.maximum(a, c)).clamp(min=0) / (b - a)).prod())
                s = (unit(here[row]) * unit(there[row])).sum()
                s = s * (s > 0)
                right = 1 - (y - s) * (1 if y > s else -1)
                losses.append(-(right if right > 1e-6 else right * 0 + 1e-6).log())
    for i in range(len(projected)):
        for j in range(i + 1, len(projected)):
            for row in range(len(projected[i])):
                (a, b), (c, d) = (tuple(corner[row] for corner in corners[k]) for k in (i, j))
                if bool((torch.minimum(b, d) <= torch.maximum(a, c)).any()):
                    s = (unit(projected[i][row]) * unit(projected[j][row])).sum()
                    strange.append(s * (s > 0))
    return torch.stack(losses).mean() + term.apart * torch.stack(strange).mean()


def test_the_term_equals_the_naive_loss_and_its_gradients() -> None:
    torch.manual_seed(0)
    term = Overlap(ToyEncoder(), hidden=7, out=5, apart=0.5)
    term.attach("ema")
    for weight in term.projector.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    theirs = torch.randn(2, 4, 16)
    head = term.teacher_heads["projector"].module
    goals = [slow(head.double(), view).detach() for view in theirs.double()]
    head.float()
    places = {"global": some(2, 4, 1), "local": some(2, 4, 5)}
    corners = [(low[4 * k : 4 * k + 4], high[4 * k : 4 * k + 4]) for low, high in places.values() for k in range(2)]
    compare(
        term,
        [torch.randn(4, 4, 16)],
        lambda term, x: term(made({"global": x[0][:2], "local": x[0][2:]}, places, theirs))["loss"],  # type: ignore[dict-item]
        lambda term, x: naive(term, list(x[0]), corners, goals),  # type: ignore[arg-type]
    )


def loss_of(term: Term, *views: Tensor) -> float:
    return float(term(passes({"global": torch.stack(views)}, "shared"))["place"])


def test_views_that_show_the_same_have_no_loss_when_they_agree() -> None:
    """Without places all views show all: −log(1 − |1 − s|) is −log s, 0 for s = 1."""
    term = Overlap(ToyEncoder(), out=8)
    term.projector = torch.nn.Identity()
    x = torch.randn(6, 16)
    assert loss_of(term, x, x) == pytest.approx(0, abs=1e-5)
    assert loss_of(term, x, x + 0.5 * torch.randn(6, 16)) > 0.01
    assert loss_of(term, x, -x) == pytest.approx(13.8, abs=0.1), "the logarithm's floor"
