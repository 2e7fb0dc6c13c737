"""The nearest rows, against sorting all of them."""

from __future__ import annotations

import pytest
import torch

from unlabeled.evaluation import nearest as module
from unlabeled.evaluation.nearest import BLOCK, largest, nearest, unit


def rows(count: int, width: int, seed: int, near: float = 0.0) -> torch.Tensor:
    """Unit rows; with `near` above 0 in bundles that bfloat16 cannot tell apart."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=draw)
    if near:
        bundles = torch.randn(7, width, generator=torch.Generator().manual_seed(99))
        x = bundles[torch.randint(7, (count,), generator=draw)] + near * x
    return unit(x)


@pytest.mark.parametrize("count", [3, 63, 64, 4 * 5 * BLOCK, 4 * 5 * BLOCK + 17])
def test_the_largest_are_those_of_a_sort(count: int) -> None:
    x = torch.randn(11, count, generator=torch.Generator().manual_seed(count))
    k = min(5, count)
    values, numbers = largest(x, k)
    assert torch.equal(values, x.sort(1, descending=True).values[:, :k])
    assert torch.equal(x.gather(1, numbers), values)


def test_the_largest_of_one_block_are_all_found() -> None:
    x = torch.zeros(1, 40 * BLOCK)
    x[0, BLOCK : BLOCK + 5] = torch.arange(1.0, 6.0)
    assert largest(x, 5)[1].tolist() == [[BLOCK + 4, BLOCK + 3, BLOCK + 2, BLOCK + 1, BLOCK]]


@pytest.mark.parametrize("near", [0.0, 1.0, 1e-3])
@pytest.mark.parametrize("half", [False, True])
def test_neighbours_are_those_of_a_sort(half: bool, near: float, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys = rows(50, 24, 1, near), rows(3000, 24, 2, near)
    monkeypatch.setattr(module, "AT_ONCE", 3000 * 9)  # several parts, the last one smaller
    values, numbers = nearest(queries, keys, 6, half=half)
    every = queries.double() @ keys.double().T
    expected = every.sort(1, descending=True).values[:, :6]
    torch.testing.assert_close(values.double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(every.gather(1, numbers), expected, rtol=0, atol=1e-6)


def test_rounding_is_off_by_no_more_than_is_said() -> None:
    """The bound that decides who is asked again, at its worst: rows whose numbers all round the same way."""
    awkward = unit(torch.full((1, 64), 1.0) + 2**-8 * 0.999)  # all numbers alike: each is rounded by the same share
    for scale in torch.linspace(1.0, 2.0, 301):
        x = awkward * scale / (awkward * scale).norm()
        mixed = unit(torch.cat([x * torch.linspace(0.5, scale.item(), 64), rows(20, 64, 5)]))
        off = (mixed.bfloat16() @ mixed.bfloat16().T).double() - mixed.double() @ mixed.double().T
        assert float(off.abs().max()) < module.WRONG


def test_who_cannot_be_sure_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that bfloat16 cannot tell apart: without the second question some of the nearest are missed."""
    queries, keys = rows(50, 24, 1, 1e-3), rows(3000, 24, 2, 1e-3)
    sure = module._of_candidates(queries, keys, queries.bfloat16() @ keys.bfloat16().T, 6)[2]
    assert not sure.any()
    monkeypatch.setattr(module, "WRONG", -2.0)
    missed = nearest(queries, keys, 6, half=True)[0]
    expected = (queries @ keys.T).topk(6).values
    assert float((expected - missed).max()) > 1e-7
