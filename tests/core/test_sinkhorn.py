"""Balanced assignments against plain scaling of the matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from unlabeled.sinkhorn import sinkhorn


def naive(logits: Tensor, temperature: float, iterations: int) -> Tensor:
    """SwAV's, on the exponentials themselves, in float64."""
    Q = (logits.double() / temperature).exp().T
    Q = Q / Q.sum()
    K, B = Q.shape
    for _ in range(iterations):
        Q = Q / Q.sum(1, keepdim=True) / K
        Q = Q / Q.sum(0, keepdim=True) / B
    return (Q * B).T


def test_equals_plain_scaling() -> None:
    logits = torch.rand(12, 5) * 2 - 1
    for iterations in (1, 3):
        torch.testing.assert_close(
            sinkhorn(logits, 0.05, iterations).double(), naive(logits, 0.05, iterations), rtol=1e-4, atol=1e-6
        )


def test_many_iterations_use_every_prototype_equally() -> None:
    assigned = sinkhorn(torch.randn(40, 8), 0.5, 200)
    torch.testing.assert_close(assigned.sum(1), torch.ones(40))
    torch.testing.assert_close(assigned.sum(0), torch.full((8,), 5.0), rtol=1e-3, atol=1e-3)


def test_no_temperature_overflows_and_no_row_is_no_harm() -> None:
    assigned = sinkhorn(100 * torch.randn(16, 4), 1e-3)
    assert assigned.isfinite().all()
    torch.testing.assert_close(assigned.sum(1), torch.ones(16))
    assert sinkhorn(torch.zeros(0, 4), 0.1).shape == (0, 4)
    assert not assigned.requires_grad
