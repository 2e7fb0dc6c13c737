"""Targets, masks and patches against loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unlabeled.contract import Encoder, Tokens
from unlabeled.errors import UserError
from unlabeled.randomness import Draws, sample_keys
from unlabeled_eo.masks import LocalWindow
from unlabeled_eo.patches import sines
from unlabeled_eo.targets import HOG, SarGradient, ratio_gradient
from unlabeled_eo.vit import ChannelViT, ViT

FACTS = {
    "channels": ["VV", "VH"],
    "bands": ["VV", "VH"],
    "scale": "db",
    "complex": False,
    "radar": True,
    "mean": [-12.0, -20.0],
    "std": [5.0, 6.0],
    "low": [-25.0, -30.0],
    "high": [0.0, -5.0],
    "chip": 64,
    "side": 32,
}


def batch(count: int = 2, side: int = 24) -> dict[str, torch.Tensor]:
    image = torch.randn(count, 2, side, side) * 5 - 15
    valid = torch.ones(count, side, side, dtype=torch.bool)
    return {"image": image, "valid": valid}


def by_loops(image: torch.Tensor, k: int) -> torch.Tensor:
    H, W = image.shape
    out = torch.zeros(H, W)

    def at(r: int, c: int) -> float:
        return float(image[min(max(r, 0), H - 1), min(max(c, 0), W - 1)])

    reach = range(-k, k + 1)
    for r in range(H):
        for c in range(W):
            left = sum(at(r + i, c - j) for i in reach for j in range(1, k + 1))
            right = sum(at(r + i, c + j) for i in reach for j in range(1, k + 1))
            top = sum(at(r - j, c + i) for i in reach for j in range(1, k + 1))
            bottom = sum(at(r + j, c + i) for i in reach for j in range(1, k + 1))
            out[r, c] = math.hypot(math.log(left / right), math.log(top / bottom))
    return out


@pytest.mark.parametrize("k", [1, 3, 5])
def test_ratio_gradient_against_loops(k: int) -> None:
    image = torch.rand(9, 11) + 0.05
    torch.testing.assert_close(ratio_gradient(image[None, None], k)[0, 0], by_loops(image, k), rtol=1e-5, atol=1e-6)


def test_ratio_gradient_of_an_edge_is_the_logarithm_of_its_contrast() -> None:
    image = torch.ones(1, 1, 21, 21)
    image[..., 11:] = math.e  # to the right of column 10, whose own values take no part
    assert float(ratio_gradient(image, 4)[0, 0, 10, 10]) == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(ratio_gradient(100 * image, 4), ratio_gradient(image, 4))
    assert float(ratio_gradient(torch.ones(1, 1, 9, 9), 3).abs().max()) < 1e-7


@pytest.mark.parametrize("kind", [ViT, ChannelViT])
@pytest.mark.parametrize("target", [SarGradient, HOG])
def test_targets_fit_their_tokens(kind: type[Encoder], target: type[SarGradient]) -> None:
    encoder = kind(FACTS, patch=8)
    tokens = encoder.tokenize(batch())
    made = target(encoder)
    out = made(tokens)
    assert out.shape == (*tokens.valid.shape, made.width)
    assert out.isfinite().all()


def test_gradients_are_cut_as_pixels_are() -> None:
    encoder = ViT(FACTS, patch=8)
    both = batch()
    tokens = encoder.tokenize(both)
    target = SarGradient(encoder, scales=(3, 5))
    out = target(tokens).view(2, 3, 3, 2, 2, 8, 8)  # [B, rows, columns, C, K, p, p]
    amplitude = 10 ** (both["image"] / 20)
    amplitude = amplitude / amplitude.mean((2, 3), keepdim=True)
    wanted = ratio_gradient(amplitude + 0.01, 5)
    torch.testing.assert_close(out[1, 2, 0, 1, 1], wanted[1, 1, 16:24, 0:8], rtol=1e-3, atol=1e-4)


def test_hog_of_a_ramp_is_in_one_bin() -> None:
    """A picture that rises from left to right has gradients of angle 0 alone; one that falls down, of 90 degrees."""
    encoder = ViT({**FACTS, "channels": ["VV"], "mean": [0.0], "std": [1.0]}, patch=8)
    ramp = torch.arange(24.0).expand(1, 1, 24, 24).clone()
    valid = torch.ones(1, 24, 24, dtype=torch.bool)
    across = HOG(encoder)(encoder.tokenize({"image": ramp, "valid": valid})).view(9, 9)
    assert (across.argmax(1) == 0).all()
    down = HOG(encoder, bins=8)(encoder.tokenize({"image": ramp.mT.contiguous(), "valid": valid})).view(9, 8)
    assert (down.argmax(1) == 4).all()
    torch.testing.assert_close(across.norm(dim=1), torch.ones(9))


def test_hog_against_loops() -> None:
    encoder = ViT({**FACTS, "channels": ["VV"], "mean": [0.0], "std": [1.0]}, patch=4)
    image = torch.randn(1, 1, 8, 8)
    out = HOG(encoder, bins=9)(encoder.tokenize({"image": image, "valid": torch.ones(1, 8, 8, dtype=torch.bool)}))
    x = np.pad(image[0, 0].numpy(), 1, mode="edge")
    cells = np.zeros((2, 2, 9))
    for r in range(8):
        for c in range(8):
            dx, dy = x[r + 1, c + 2] - x[r + 1, c], x[r + 2, c + 1] - x[r, c + 1]
            turn = (math.atan2(dy, dx) % math.pi) / math.pi * 9
            low, share = int(turn) % 9, turn - int(turn)
            cells[r // 4, c // 4, low] += math.hypot(dx, dy) * (1 - share)
            cells[r // 4, c // 4, (low + 1) % 9] += math.hypot(dx, dy) * share
    cells /= np.linalg.norm(cells, axis=2, keepdims=True)
    np.testing.assert_allclose(out[0].numpy(), cells.reshape(4, 9), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [ViT, ChannelViT])
def test_patches_go_together_again(kind: type[Encoder]) -> None:
    encoder = kind(FACTS, patch=8)
    both = batch(side=24)
    mean, std = (torch.tensor(FACTS[name])[:, None, None] for name in ("mean", "std"))
    torch.testing.assert_close(encoder.pixels(encoder.tokenize(both)), (both["image"] - mean) / std)  # type: ignore[operator]


def test_local_window_shows_and_asks_inside_of_one_window() -> None:
    coords = torch.stack(torch.meshgrid(*(torch.arange(14) + 0.5,) * 2, indexing="ij"), -1).view(1, -1, 2) / 14
    valid = torch.ones(3, 196, dtype=torch.bool)
    valid[2, 100:] = False
    tokens = Tokens(torch.zeros(3, 196, 1), coords.expand(3, -1, -1), valid, {})
    made = LocalWindow()(tokens, Draws(sample_keys(0, 0, torch.arange(3))))
    shown = tokens.valid & ~made.hidden
    (asked,) = made.targets
    for row, count in enumerate(valid.sum(1).tolist()):
        size = round(0.25 * count)
        assert int(asked[row].sum()) == round(0.8 * size)
        assert int(shown[row].sum()) == size - round(0.8 * size)
    assert not (asked & ~tokens.valid).any()
    assert not (asked & shown).any()
    inside = (asked | shown)[0].nonzero()[:, 0]
    span = coords[0, inside].amax(0) - coords[0, inside].amin(0)
    assert float(span.max()) <= 10.5 / 14  # at an edge a window is longer than wide


def test_sines_tell_every_place_apart() -> None:
    table = sines((5, 7), 32)[0]
    assert torch.cdist(table, table).add(torch.eye(35) * 9).min() > 0.1


def test_targets_refuse_what_makes_no_sense() -> None:
    encoder = ViT(FACTS, patch=8)
    with pytest.raises(UserError, match="scales are pixels"):
        SarGradient(encoder, scales=())
    with pytest.raises(UserError, match="cells divide a patch of 8"):
        HOG(encoder, cell=3)
