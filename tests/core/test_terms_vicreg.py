"""VICReg against loops over columns and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toy import ToyEncoder, compare, passes, slow
from unlabeled.errors import UserError
from unlabeled.terms.vicreg import VICReg, variance_covariance


def naive_parts(z: Tensor) -> tuple[Tensor, Tensor]:
    """mean relu(1 − std) and Σ_{i≠j} cov²/D, column by column, unbiased."""
    N, D = z.shape
    hinge = cov = z.new_zeros(())
    for i in range(D):
        a = z[:, i] - z[:, i].sum() / N
        hinge = hinge + (1 - ((a * a).sum() / (N - 1) + 1e-4).sqrt()).clamp(min=0) / D
        for j in range(D):
            if i != j:
                b = z[:, j] - z[:, j].sum() / N
                cov = cov + ((a * b).sum() / (N - 1)) ** 2 / D
    return hinge, cov


def naive(one: Tensor, other: Tensor) -> Tensor:
    """25 × MSE + 25 × mean of the hinges + sum of the covariances, of two views."""
    (hinge1, cov1), (hinge2, cov2) = naive_parts(one), naive_parts(other)
    agree = sum((a - b) ** 2 for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)) / one.numel()
    return 25 * agree + 25 * (hinge1 + hinge2) / 2 + cov1 + cov2


def test_equals_the_naive_loss_and_its_gradients() -> None:
    compare(
        VICReg(ToyEncoder(), hidden=7, out=5),
        [torch.randn(2, 6, 16)],
        lambda term, x: term(passes({"global": x[0]}))["loss"],
        lambda term, x: naive(*(slow(term.projector, view) for view in x[0])),
        rtol=1e-3,
    )


def test_more_views_are_the_mean_over_pairs() -> None:
    term = VICReg(ToyEncoder(), hidden=7, out=5)
    z = torch.randn(3, 6, 16)
    pairs = [term(passes({"global": z[[i, j]]}))["loss"] for i, j in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(term(passes({"global": z}))["loss"], torch.stack(pairs).mean())


def test_equal_wide_and_uncorrelated_views_give_zero() -> None:
    q, _ = torch.linalg.qr(torch.cat([torch.ones(16, 1), torch.randn(16, 5)], 1))
    term = VICReg(ToyEncoder(width=5))
    term.projector = torch.nn.Sequential()
    z = (q[:, 1:] * 15**0.5 * 1.1).expand(2, 16, 5)
    assert term(passes({"global": z}))["loss"].item() == pytest.approx(0, abs=1e-5)


def test_constant_embeddings_pay_the_whole_hinge() -> None:
    z = torch.zeros(4, 8, requires_grad=True)
    hinge, cov = variance_covariance(z)
    (hinge + cov).backward()
    assert hinge.item() == pytest.approx(1 - 1e-2)  # √1e-4
    assert cov.item() == 0
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_falls_when_views_agree() -> None:
    term = VICReg(ToyEncoder(width=6))
    term.projector = torch.nn.Sequential()
    one, other = torch.randn(2, 64, 6)
    losses = [
        term(passes({"global": torch.stack([one, one + noise * other])}))["loss"].item() for noise in (0.0, 0.5, 2.0)
    ]
    assert losses == sorted(losses)


def test_keeps_its_precision_under_autocast() -> None:
    z = torch.randn(64, 8)
    with torch.autocast("cpu", torch.bfloat16):
        parts = variance_covariance(z)
    torch.testing.assert_close(parts, variance_covariance(z), rtol=1e-5, atol=1e-6)


def test_one_sample_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"'vicreg'.*batch-size"):
        VICReg(ToyEncoder())(passes({"global": torch.randn(2, 1, 16)}))
