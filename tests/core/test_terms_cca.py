"""Correlation losses against loops over entries, and the optima that theory gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toy import ToyEncoder, compare, passes, slow
from unlabeled.terms.cca import CCASSG, EYCCA, cca_ssg, ey_cca


def columns(z: Tensor, scale: bool) -> list[Tensor]:
    out = []
    for column in z.T:
        centred = column - sum(column) / len(column)
        out.append(centred / (sum(centred**2) / len(column) + 1e-8).sqrt() if scale else centred)
    return out


def entry(a: Tensor, b: Tensor) -> Tensor:
    return sum(a * b) / len(a)


def naive_ssg(z1: Tensor, z2: Tensor, weight: float) -> Tensor:
    one, two = columns(z1, True), columns(z2, True)
    loss = -sum(entry(a, b) for a, b in zip(one, two, strict=True))
    for view in (one, two):
        for i, a in enumerate(view):
            for j, b in enumerate(view):
                loss = loss + weight * (float(i == j) - entry(a, b)) ** 2
    return loss


def naive_ey(z1: Tensor, z2: Tensor, unbiased: bool) -> Tensor:
    one, two = columns(z1, False), columns(z2, False)
    loss = sum(-2 * (entry(a, b) + entry(b, a)) for a, b in zip(one, two, strict=True))
    for i in range(len(one)):
        for j in range(len(one)):
            cuts = [slice(0, None, 2), slice(1, None, 2)] if unbiased else [slice(None)] * 2
            left, right = (entry(one[i][c], one[j][c]) + entry(two[i][c], two[j][c]) for c in cuts)
            loss = loss + left * right
    return loss


@pytest.mark.parametrize("layers", [0, 2])
def test_cca_ssg_equals_the_naive_loss(layers: int) -> None:
    term = CCASSG(ToyEncoder(), off_weight=0.01, layers=layers, hidden=7, out=5)
    make = (lambda term, view: slow(term.projector, view)) if layers else (lambda term, view: view)
    compare(
        term,
        [torch.randn(2, 6, 16)],
        lambda term, inputs: term(passes({"global": inputs[0]}))["loss"],
        lambda term, inputs: naive_ssg(*(make(term, view) for view in inputs[0]), 0.01),
    )


@pytest.mark.parametrize("unbiased", [False, True])
def test_ey_cca_equals_the_naive_loss(unbiased: bool) -> None:
    compare(
        EYCCA(ToyEncoder(), layers=2, hidden=7, out=5, unbiased=unbiased),
        [torch.randn(2, 6, 16)],
        lambda term, inputs: term(passes({"global": inputs[0]}))["loss"],
        lambda term, inputs: naive_ey(*(slow(term.projector, view) for view in inputs[0]), unbiased),
    )


def white(rows: int, width: int) -> Tensor:
    z = torch.randn(rows, width, dtype=torch.float64)
    return torch.linalg.qr(z - z.mean(0))[0] * rows**0.5


def test_cca_ssg_of_equal_white_views_is_minus_their_width() -> None:
    z = white(64, 8)
    agree, apart = cca_ssg(z, z, 1.0)
    assert agree.item() == pytest.approx(-8, rel=1e-5)
    assert apart.item() == pytest.approx(0, abs=1e-6)


def test_cca_ssg_does_not_see_scale_and_shift() -> None:
    one, two = torch.randn(2, 32, 6)
    for loss in zip(cca_ssg(one, two, 0.1), cca_ssg(3 * one + 1, 0.5 * two - 4, 0.1), strict=True):
        torch.testing.assert_close(*loss, rtol=1e-4, atol=1e-4)


def test_ey_cca_at_the_optimum_is_minus_the_squared_correlations() -> None:
    z, noise = white(256, 8).split(4, 1)
    rho = torch.tensor([0.9, 0.7, 0.5, 0.3], dtype=torch.float64)
    other = rho * z + (1 - rho**2).sqrt() * noise  # canonical correlations are rho, exactly
    # at the optimum both covariances are rho/2: B = rho, A = rho²
    loss = sum(ey_cca(z * (rho / 2).sqrt(), other * (rho / 2).sqrt()))
    assert loss.item() == pytest.approx(-float((rho**2).sum()), rel=1e-4)
    for scale in (0.8, 1.2):
        worse = sum(ey_cca(scale * z * (rho / 2).sqrt(), scale * other * (rho / 2).sqrt()))
        assert worse.item() > loss.item()
