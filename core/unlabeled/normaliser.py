"""Rows of length 1, and contrastive losses of them without the matrix of similarities."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from unlabeled.collectives import rank, world

CHUNK = 1 << 24  # similarities held at once, 64 MB in float32
EPS = 1e-12  # of F.normalize


def unit(z: Tensor) -> Tensor:
    """Rows of [..., D] at length 1, zeros left as they are; as F.normalize, but what came in is not kept."""
    rows: Tensor = _Unit.apply(z)  # type: ignore[no-untyped-call]
    return rows


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(z, dim=-1, keepdim=True).clamp_(min=EPS)
        rows: Tensor = z / size
        ctx.save_for_backward(rows, size)
        return rows

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        rows: Tensor
        rows, size = ctx.saved_tensors
        along = torch.linalg.vecdot(grads[0], rows)[..., None].masked_fill_(size <= EPS, 0)
        return torch.addcmul(grads[0], rows, along, value=-1).div_(size)


def mean_log_normaliser(
    rows: Tensor,
    keys: Tensor | None = None,
    without: Tensor | None = None,
    scale: float = 1.0,
    views: int = 1,
) -> Tensor:
    """[] mean over i of log Σⱼ exp(scale rowᵢ·keyⱼ), j over all keys, or all but one.

    Gradients are made beside the value, chunk by chunk, since that of a mean is known before it is asked for: nothing
    as large as the matrix is ever kept, and nothing is computed twice. There is no second derivative.

    Args:
        rows: [M, D].
        keys: [J, D]; None: the rows themselves, whose two gradients are then one.
        without: [M] int64, the key that each row leaves out.
        scale: 1/temperature.
        views: rows are this many views of the same samples, one view after the other: from each i is taken the mean of
            scale rowᵢ·rowⱼ over the sample's other views j. 1: nothing is.
    """
    on = torch.is_grad_enabled()
    wanted = (on and rows.requires_grad, on and keys is not None and keys.requires_grad)
    mean: Tensor = _MeanLogNormaliser.apply(rows, keys, without, scale, views, wanted, CHUNK)  # type: ignore[no-untyped-call]
    return mean


def mean_repulsion(z: Tensor, everyone: Tensor, temperature: float, attract: bool = False) -> Tensor:
    """[] mean over i of log Σ_{k≠i} exp(ẑᵢ·ẑₖ/τ): every view of every sample against all others of the global batch.

    Args:
        z: [K, M, D] normalised projections of K views of M samples, M on every rank.
        everyone: [K, M × world, D] those of all ranks.
        temperature: τ.
        attract: less the mean of ẑᵢ·ẑⱼ/τ over the same sample's other views j, which makes it NT-Xent.
    """
    K, M, _ = z.shape
    samples = torch.arange(M, device=z.device) + rank() * M
    itself = (torch.arange(K, device=z.device)[:, None] * everyone.shape[1] + samples).flatten()
    keys = everyone.flatten(0, 1) if world() > 1 else None
    return mean_log_normaliser(z.flatten(0, 1), keys, itself, 1 / temperature, K if attract else 1)


class _MeanLogNormaliser(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        keys: Tensor | None,
        without: Tensor | None,
        scale: float,
        views: int,
        wanted: tuple[bool, bool],
        chunk: int,
    ) -> Tensor:
        of_rows = torch.zeros_like(rows) if wanted[0] else None
        of_keys = of_rows if keys is None else torch.zeros_like(keys) if wanted[1] else None
        keys = rows if keys is None else keys
        total = rows.new_zeros(())
        step = max(1, chunk // max(len(keys), 1))
        for at in range(0, len(rows), step):
            some = rows[at : at + step]
            share = (some @ keys.T).mul_(scale)
            if without is not None:
                share.scatter_(1, without[at : at + step, None], -torch.inf)
            top = share.amax(1, keepdim=True)
            size = share.sub_(top).exp_().sum(1, keepdim=True)
            total += (size.log() + top).sum()
            if any(wanted):
                share *= scale / (size * len(rows))
            if of_rows is not None:
                of_rows[at : at + step].addmm_(share, keys)
            if of_keys is not None:
                of_keys.addmm_(share.T, some)
        if views > 1:
            total -= _attract(rows, of_rows, scale / (views - 1), views)
        ctx.save_for_backward(of_rows, None if of_keys is of_rows else of_keys)
        return total / max(len(rows), 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        of_rows, of_keys = ctx.saved_tensors
        return (*(None if of is None else of * grads[0] for of in (of_rows, of_keys)), None, None, None, None, None)


def _attract(rows: Tensor, of_rows: Tensor | None, scale: float, views: int) -> Tensor:
    """[] scale Σ rowᵢ·rowⱼ over views i ≠ j of the same sample; the gradient of its mean is taken off `of_rows`."""
    total = rows.new_zeros(())
    looks = rows.chunk(views)
    for number, look in enumerate(looks):
        others = reduce(torch.add, looks[:number] + looks[number + 1 :])
        total += scale * torch.dot(look.flatten(), others.flatten())
        if of_rows is not None:
            of_rows.chunk(views)[number].sub_(others, alpha=2 * scale / len(rows))
    return total
