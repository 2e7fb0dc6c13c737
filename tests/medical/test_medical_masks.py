"""Masks of volumes: what is tissue, and what Models Genesis' distortions change and leave."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unlabeled.contract import Tokens
from unlabeled.errors import UserError
from unlabeled.randomness import Draws, sample_keys
from unlabeled_medical.masks import Distort, TissueWindow, bezier, tissue
from unlabeled_medical.patches import centres

SIDE, V = 4, 8


def draws(rows: int, seed: int = 0) -> Draws:
    return Draws(sample_keys(seed, 0, torch.arange(rows)))


def tokens(rows: int = 16, seed: int = 0) -> Tokens:
    """Bright textured patches in one half, flat dark ones in the other; the last few are not valid."""
    chance = torch.Generator().manual_seed(seed)
    coords = centres([SIDE] * 3, torch.device("cpu")).expand(rows, -1, -1)
    bright = coords[..., 0] < 0.5
    values = torch.where(bright[..., None], 2 + torch.randn(rows, SIDE**3, V, generator=chance), -1.0)
    valid = torch.ones(rows, SIDE**3, dtype=torch.bool)
    valid[:, -5:] = False
    return Tokens(values * valid[..., None], coords, valid, {})


def test_windows_hide_tissue_and_nothing_else() -> None:
    data = tokens()
    hide = TissueWindow(0.6)(data, draws(16))
    bright = data.coords[..., 0] < 0.5
    assert not (hide.hidden & ~bright).any()
    assert (hide.hidden.sum(1) == round(0.6 * 32)).all()
    assert (torch.stack(hide.targets).any(0) == hide.hidden).all()
    assert (hide.hidden != hide.hidden[:1]).any(), "each sample has windows of its own"


def test_a_crop_without_tissue_is_hidden_anywhere() -> None:
    data = tokens(2)
    flat = Tokens(torch.full_like(data.values, 3.0), data.coords, data.valid, {})
    assert (tissue(flat) == data.valid).all()


def only(**shares: float) -> Distort:
    return Distort(**{"curve": 0.0, "shuffle": 0.0, "paint": 0.0, **shares})  # type: ignore[arg-type]


def shown(mask: Distort, data: Tokens, seed: int = 0) -> Tensor:
    hide = mask(data, draws(len(data.values), seed))
    assert not hide.hidden.any()
    assert (hide.targets[0] == data.valid).all()
    assert hide.values is not None
    assert (hide.values[~data.valid] == data.values[~data.valid]).all()
    return hide.values


def test_nothing_is_changed_with_no_share() -> None:
    data = tokens()
    torch.testing.assert_close(shown(only(), data), data.values)


def test_a_curve_keeps_the_order_of_values_or_turns_it_round() -> None:
    data = tokens()
    turned = 0
    for before, after, valid in zip(data.values, shown(only(curve=1.0), data), data.valid, strict=True):
        order = before[valid].flatten().argsort()
        steps = after[valid].flatten()[order].diff()
        assert (steps >= -1e-4).all() or (steps <= 1e-4).all()
        turned += int((steps <= 1e-4).all())
        assert after[valid].min() >= before[valid].min() - 1e-4
        assert after[valid].max() <= before[valid].max() + 1e-4
    assert 2 < turned < 14


def test_shuffling_stays_in_half_of_the_patches() -> None:
    data = tokens()
    after = shown(only(shuffle=1.0), data)
    torch.testing.assert_close(after.sort(-1).values, data.values.sort(-1).values)
    bright = (data.coords[..., 0] < 0.5) & data.valid
    moved = ((after - data.values).abs() > 1e-4).any(-1)[bright].float().mean()
    assert 0.4 < moved < 0.6


@pytest.mark.parametrize("inside", [0.0, 1.0])
def test_windows_are_painted_inside_or_all_around(inside: float) -> None:
    data = tokens()
    painted = ((shown(only(paint=1.0, inside=inside), data) - data.values).abs() > 1e-4).any(-1) & data.valid
    share = painted.sum(1) / data.valid.sum(1)
    assert (share - (0.3 if inside else 0.7)).abs().max() < 0.02
    assert (painted != painted[:1]).any()


def test_the_shares_are_of_samples() -> None:
    data = tokens(200)
    for name in ("curve", "shuffle", "paint"):
        changed = (shown(only(**{name: 0.5}), data, seed=3) - data.values).abs().amax((1, 2)) > 1e-4
        assert 70 < int(changed.sum()) < 130, name


def test_a_flat_sample_stays_finite_and_rows_are_their_own() -> None:
    data = tokens(6)
    flat = Tokens(torch.zeros_like(data.values), data.coords, data.valid, {})
    assert shown(Distort(), flat).isfinite().all()
    hide, part = Distort()(data, draws(6)), torch.tensor([4, 1])
    fewer = Tokens(data.values[part], data.coords[part], data.valid[part], {})
    again = Distort()(fewer, draws(6).rows(part)).values
    assert hide.values is not None
    torch.testing.assert_close(again, hide.values[part])


def test_bezier_by_its_definition() -> None:
    rows = draws(5)
    points = draws(5).uniform(2, 2).sort(-1).values.double()
    down = draws(5).fork("down").chance(0.5, 1)[:, 0]
    t = torch.linspace(0, 1, 64, dtype=torch.float64)
    for row in range(5):
        (a, b), (c, d) = points[row].tolist()
        x = 3 * t * (1 - t) ** 2 * a + 3 * t**2 * (1 - t) * b + t**3
        y = 3 * t * (1 - t) ** 2 * c + 3 * t**2 * (1 - t) * d + t**3
        wanted = 1 - y if down[row] else y
        got = bezier(x.float().expand(5, 1, 64), rows)[row, 0]
        rows._calls = 0
        torch.testing.assert_close(got.double(), wanted, rtol=0, atol=2e-2)


@pytest.mark.parametrize("options", [{"curve": 1.5}, {"paint": -0.1}, {"ratio": 1.2}, {"size": 0.0}])
def test_shares_that_are_none_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"share|from 0 to 1|between"):
        Distort(**options)  # type: ignore[arg-type]
