"""The repelling half of contrastive losses against the whole matrix in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unlabeled import normaliser
from unlabeled.normaliser import mean_log_normaliser


def naive(rows: Tensor, keys: Tensor, without: Tensor | None) -> Tensor:
    """Sums of exponentials, row by row."""
    losses = []
    for number, row in enumerate(rows):
        kept = [key for j, key in enumerate(keys) if without is None or j != int(without[number])]
        losses.append(torch.stack([(row * key).sum().exp() for key in kept]).sum().log())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("chunk", [1, 30, 1000])
@pytest.mark.parametrize("leave_out", [False, True])
def test_value_and_gradients_in_any_chunks(monkeypatch: pytest.MonkeyPatch, chunk: int, leave_out: bool) -> None:
    monkeypatch.setattr(normaliser, "CHUNK", chunk)
    rows, keys = (torch.randn(n, 4, dtype=torch.float64, requires_grad=True) for n in (7, 9))
    without = torch.arange(7) + 2 if leave_out else None
    value, goal = mean_log_normaliser(rows, keys, without), naive(rows, keys, without)
    torch.testing.assert_close(value, goal)
    found, wanted = (torch.autograd.grad(3 * loss, [rows, keys]) for loss in (value, goal))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("chunk", [30, 1000])
def test_rows_among_themselves_at_a_temperature(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(normaliser, "CHUNK", chunk)
    rows = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    value, goal = mean_log_normaliser(rows, None, torch.arange(7), 5.0), naive(5 * rows, rows, torch.arange(7))
    torch.testing.assert_close(value, goal)
    torch.testing.assert_close(torch.autograd.grad(value, rows), torch.autograd.grad(goal, rows))


def test_only_what_is_asked_for_has_a_gradient() -> None:
    rows, keys = torch.randn(5, 3, requires_grad=True), torch.randn(6, 3)
    value = mean_log_normaliser(rows, keys)
    value.backward()
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad, torch.autograd.grad(naive(rows, keys, None), rows)[0])
    assert not mean_log_normaliser(keys, keys).requires_grad
    with torch.no_grad():
        torch.testing.assert_close(mean_log_normaliser(rows, keys), value)


def test_a_graph_that_is_kept_is_walked_twice() -> None:
    rows = torch.randn(5, 3, requires_grad=True)
    value = mean_log_normaliser(rows, rows, torch.arange(5))
    first, second = (torch.autograd.grad(value, rows, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_large_similarities_and_equal_ones() -> None:
    assert mean_log_normaliser(1e4 * torch.eye(3), torch.eye(3)).item() == pytest.approx(1e4)
    assert mean_log_normaliser(torch.ones(4, 2), torch.ones(8, 2)).item() == pytest.approx(2 + math.log(8))


class Largest(TorchDispatchMode):
    """The most entries of any tensor that is made."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.entries = max(self.entries, out.numel())
        return out


def test_chunks_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(32, 4, requires_grad=True)
    for chunk, most in ((256, 256), (10**6, 32 * 32)):
        monkeypatch.setattr(normaliser, "CHUNK", chunk)
        with Largest() as largest:
            mean_log_normaliser(rows, rows, torch.arange(32)).backward()
        assert largest.entries == most
