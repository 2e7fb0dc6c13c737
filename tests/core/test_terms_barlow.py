"""Barlow Twins against loops over columns and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toy import ToyEncoder, compare, passes, slow
from unlabeled.errors import UserError
from unlabeled.terms.barlow import Barlow, redundancy, standardise


def naive(one: Tensor, other: Tensor, off_weight: float) -> Tensor:
    """Σᵢ(1 − Cᵢᵢ)² + λ Σ_{i≠j} C²ᵢⱼ, column by column."""
    N, D = one.shape
    total = one.new_zeros(())
    for i in range(D):
        for j in range(D):
            a, b = one[:, i] - one[:, i].mean(), other[:, j] - other[:, j].mean()
            C = (a * b).sum() / N / ((a * a).sum() / N + 1e-5).sqrt() / ((b * b).sum() / N + 1e-5).sqrt()
            total = total + ((1 - C) ** 2 if i == j else off_weight * C**2)
    return total


@pytest.mark.parametrize("count", [2, 3])
def test_equals_the_naive_loss_and_its_gradients(count: int) -> None:
    def expected(term: Barlow, x: list[Tensor]) -> Tensor:
        z = [slow(term.projector, view) for view in x[0]]
        return torch.stack([naive(z[i], z[j], 0.05) for i in range(count) for j in range(i)]).mean()

    compare(
        Barlow(ToyEncoder(), off_weight=0.05, hidden=7, out=5),
        [torch.randn(count, 6, 16)],
        lambda term, x: term(passes({"global": x[0]}))["loss"],
        expected,
        rtol=1e-3,
    )


def test_does_not_change_under_affine_maps_of_columns() -> None:
    one, other = torch.randn(2, 32, 6)
    scale, shift = torch.rand(6) + 0.5, torch.randn(6)
    before, after = redundancy(one, other, 0.1), redundancy(one * scale + shift, other * 2 - 1, 0.1)
    torch.testing.assert_close(torch.stack(after), torch.stack(before), rtol=1e-3, atol=1e-4)


def test_equal_views_with_uncorrelated_columns_give_zero() -> None:
    q, _ = torch.linalg.qr(torch.cat([torch.ones(16, 1), torch.randn(16, 5)], 1))
    on, off = redundancy(5 * q[:, 1:], 5 * q[:, 1:], 1.0)
    assert on.item() == pytest.approx(0, abs=1e-6)
    assert off.item() == pytest.approx(0, abs=1e-6)


def test_equal_columns_give_every_pair() -> None:
    z = torch.randn(64, 1).expand(64, 4)
    on, off = redundancy(z, z, 0.1)
    assert on.item() == pytest.approx(0, abs=1e-6)
    assert off.item() == pytest.approx(0.1 * 12, rel=1e-3)
    assert redundancy(z, -z, 0.1)[0].item() == pytest.approx(16, rel=1e-3)


def test_falls_when_views_agree() -> None:
    one, other = torch.randn(2, 64, 6)
    losses = [sum(redundancy(one, one + noise * other, 5e-3)).item() for noise in (0.0, 0.5, 2.0)]
    assert losses == sorted(losses)


def test_constant_columns_are_finite() -> None:
    z = torch.zeros(4, 8, requires_grad=True)
    on, off = redundancy(z, z + 0, 5e-3)
    (on + off).backward()
    assert on.item() == pytest.approx(8)
    assert off.item() == 0
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert standardise(torch.full((4, 2), 7.0)).abs().max() == 0


def test_keeps_its_precision_under_autocast() -> None:
    z = torch.randn(2, 64, 8)
    with torch.autocast("cpu", torch.bfloat16):
        parts = redundancy(z[0], z[0] + 0.01 * z[1], 1.0)
    torch.testing.assert_close(parts, redundancy(z[0], z[0] + 0.01 * z[1], 1.0), rtol=1e-5, atol=1e-6)


def test_one_sample_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"'barlow'.*batch-size"):
        Barlow(ToyEncoder())(passes({"global": torch.randn(2, 1, 16)}))
