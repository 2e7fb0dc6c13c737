"""Differentiable collectives: all that knows of several processes below `training`.

One rule makes a loss independent of the number of ranks: *the mean over ranks of what each rank returns is
the loss of the global batch*. DDP averages gradients over ranks; the backward passes here sum over ranks;
together the gradient is that of one rank with the whole batch. In one process everything is the identity.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["batch_mean", "batch_moments", "gather", "masked_mean", "mean_over_ranks", "sum_over_ranks", "world"]


def world() -> int:
    """How many processes train together; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is."""
    return dist.get_rank() if world() > 1 else 0


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous().clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(world())]
        dist.all_gather(parts, x)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)  # gloo has no reduce_scatter
        return grad[rank()]


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of every rank's tensor, with gradient to all of them."""
    return x if world() == 1 else _Sum.apply(x)  # type: ignore[no-untyped-call, no-any-return]


def mean_over_ranks(x: Tensor) -> Tensor:
    """The mean of every rank's tensor, with gradient to all of them."""
    return x if world() == 1 else sum_over_ranks(x) / world()


def gather(x: Tensor, dim: int = 0) -> Tensor:
    """Every rank's tensor along a dimension, in rank order, with gradient to all; shapes must be equal."""
    if world() == 1:
        return x
    parts: Tensor = _Gather.apply(x)  # type: ignore[no-untyped-call]
    return torch.cat(parts.unbind(), dim)


def _lengths(length: int) -> list[int]:
    """How many rows each rank has."""
    out: list[Any] = [None] * world()
    dist.all_gather_object(out, length)
    return out


def rank_offset(length: int) -> int:
    """How many rows the ranks before this one have, of which this one has `length`."""
    return sum(_lengths(length)[: rank()]) if world() > 1 else 0


def gather_uneven(x: Tensor) -> Tensor:
    """As `gather` along dimension 0, for different numbers of rows on each rank."""
    if world() == 1:
        return x
    lengths = _lengths(len(x))
    most = max(lengths)
    padded = torch.cat([x, x.new_zeros(most - len(x), *x.shape[1:])])
    return torch.cat([part[:length] for part, length in zip(gather(padded).split(most), lengths, strict=True)])


def batch_mean(x: Tensor) -> Tensor:
    """The mean over dimension 0 of the global batch; every rank holds equally many rows."""
    return mean_over_ranks(x.mean(0))


def batch_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over dimension 0 of the global batch, in two passes for precision."""
    mean = batch_mean(x)
    return mean, batch_mean((x - mean).square())


def masked_mean(values: Tensor, keep: Tensor) -> Tensor:
    """The mean of values where keep holds, such that the mean over ranks is that of the global batch."""
    count = keep.sum()  # int64: exact, whatever the precision of the values
    if world() > 1:
        dist.all_reduce(count)
    return torch.where(keep, values, 0).sum() * world() / count.clamp(min=1)


def uneven_mean(values: Tensor) -> Tensor:
    """The mean of [T], T different on each rank or 0, such that the mean over ranks is that of the global batch."""
    return masked_mean(values, torch.ones_like(values, dtype=torch.bool))
