"""Histograms of oriented gradients of volumes: closed forms, loops, and what is not valid."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unlabeled.contract import Encoder
from unlabeled.errors import UserError
from unlabeled_medical.encoders import ViT
from unlabeled_medical.residual import ResUNet
from unlabeled_medical.targets import GOLDEN, HOG, NEAR, axes

FACTS: dict[str, Any] = {"channels": 1, "shape": [16, 16, 16], "intensity": "mr", "plane": "all"}


def encoder(patch: int = 4, channels: int = 1) -> ViT:
    return ViT({**FACTS, "channels": channels}, patch=patch, width=24, depth=1)


def ramp(direction: Tensor, side: int = 12) -> Tensor:
    """[1, 1, S, S, S] rising along a direction."""
    return torch.einsum(
        "idhw,i->dhw", torch.stack(torch.meshgrid(*[torch.arange(side) * 1.0] * 3, indexing="ij")), direction
    )[None, None]


def by_cell(out: Tensor) -> Tensor:
    """[N × cells, 10] of one channel."""
    return out.view(-1, 10, 8).mT.reshape(-1, 10)


def test_axes_are_a_dodecahedron() -> None:
    cosines = (axes() @ axes().T).abs()
    torch.testing.assert_close(axes().norm(dim=1), torch.ones(10))
    for row in cosines:  # each has three neighbours, six farther away, and itself
        assert sorted(round(float(x), 4) for x in row) == [0.3333] * 6 + [round(NEAR, 4)] * 3 + [1.0]


@pytest.mark.parametrize("which", range(10))
def test_a_ramp_along_an_axis_votes_for_it_alone_whichever_way_it_rises(which: int) -> None:
    model = encoder()
    up, down = (HOG(model)(model.tokenize({"image": sign * ramp(axes()[which])})) for sign in (1, -1))
    wanted = torch.zeros(10)
    wanted[which] = 1.0
    torch.testing.assert_close(by_cell(up), wanted.expand(27 * 8, 10), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(up, down)


def test_a_ramp_between_five_axes_votes_for_all_five() -> None:
    model = encoder()
    between = torch.tensor([0.0, GOLDEN, 1.0])  # a corner of the icosahedron: the middle of a dodecahedron's face
    out = by_cell(HOG(model)(model.tokenize({"image": ramp(between / between.norm())})))
    assert ((out - 1 / math.sqrt(5)).abs() < 1e-4).sum(1).eq(5).all()
    assert (out.abs() < 1e-4).sum(1).eq(5).all()


def naive(image: np.ndarray[Any, Any], patch: int, cell: int) -> np.ndarray[Any, Any]:
    """[N, C × 10 × cells] voxel by voxel."""
    C, side = image.shape[0], image.shape[1]
    count, p = side // cell, patch // cell
    cells = np.zeros((C, count, count, count, 10))
    known = axes().double().numpy()
    for at in np.ndindex(*image.shape):
        gradient = np.zeros(3)
        for axis in range(3):
            low, high = list(at), list(at)
            low[axis + 1], high[axis + 1] = max(at[axis + 1] - 1, 0), min(at[axis + 1] + 1, side - 1)
            gradient[axis] = (image[tuple(high)] - image[tuple(low)]) / (high[axis + 1] - low[axis + 1])
        length = np.linalg.norm(gradient)
        if length == 0:
            continue
        votes = np.maximum(np.abs(known @ gradient) / length - math.sqrt(5) / 3, 0)
        cells[(at[0], *(x // cell for x in at[1:]))] += length * votes / votes.sum()
    cells /= np.maximum(np.linalg.norm(cells, axis=-1, keepdims=True), 1e-12)
    rows = []
    for d, h, w in np.ndindex(*[side // patch] * 3):
        part = cells[:, d * p : (d + 1) * p, h * p : (h + 1) * p, w * p : (w + 1) * p]
        rows.append(part.transpose(0, 4, 1, 2, 3).reshape(-1))
    return np.stack(rows)


@pytest.mark.parametrize(("patch", "cell"), [(4, None), (4, 4), (4, 1), (3, None)])
def test_against_loops(patch: int, cell: int | None) -> None:
    model = encoder(patch, channels=2)
    image = torch.randn(1, 2, 2 * patch, 2 * patch, 2 * patch, generator=torch.Generator().manual_seed(0))
    out = HOG(model, cell=cell)(model.tokenize({"image": image}))[0]
    used = cell or (2 if patch == 4 else 3)
    np.testing.assert_allclose(out.numpy(), naive(image[0].double().numpy(), patch, used), rtol=1e-4, atol=1e-5)


def test_what_is_not_valid_makes_no_edge() -> None:
    """A volume of one value with an excluded part, or that ends inside of the crop, has no gradients at all."""
    model = encoder()
    image = torch.full((2, 1, 12, 12, 12), 5.0)
    excluded = torch.zeros(2, 12, 12, 12, dtype=torch.bool)
    excluded[0, :4] = True
    where = torch.cat([torch.eye(3), torch.zeros(3, 1)], 1).expand(2, -1, -1).clone()
    where[1, 0, 0] = 2.0  # the crop is twice as long as its volume
    tokens = model.tokenize({"image": image, "excluded": excluded, "where": where})
    assert not tokens.valid.all()
    assert float(HOG(model)(tokens).abs().max()) == 0.0
    assert float(HOG(model)(model.tokenize({"image": torch.where(excluded[:, None], 0.0, image)})).abs().max()) > 0.1


@pytest.mark.parametrize("model", [encoder(8), ResUNet(FACTS, planes=8, patch=4)], ids=["vit", "resunet"])
def test_they_fit_the_tokens(model: Encoder) -> None:
    tokens = model.tokenize({"image": torch.randn(2, 1, 16, 16, 16)})
    made = HOG(model)
    assert made(tokens).shape == (*tokens.valid.shape, made.width)
    assert made(tokens).isfinite().all()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UserError, match="cells divide a patch of 4 voxels a side, not 3"):
        HOG(encoder(), cell=3)
