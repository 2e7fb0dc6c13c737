"""KoLeo: embeddings of a batch spread evenly (Sablayrolles et al., arXiv 1806.03198; DINOv2, 2304.07193)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unlabeled.branches import Passes
from unlabeled.collectives import gather, rank, world
from unlabeled.normaliser import unit
from unlabeled.terms.base import Term, by_rows, full_precision, need_batch, spread

CHUNK = 1 << 24  # similarities held at once, 64 MB in float32
EPS = 1e-8
BLOCKS, LEAST = 8, 128  # in how many pieces of at least so many rows pairs are looked at


@full_precision
def koleo(z: Tensor) -> Tensor:
    """−log(‖ẑᵢ − ẑⱼ‖ + ε), j the nearest other row, mean over i.

    Neighbours are looked for in the global batch; DINOv2's code looks on each GPU alone.

    Args:
        z: [M, D] embeddings of one view.

    Returns:
        [] this rank's share; the mean over ranks is the loss.
    """
    z = unit(z.float())
    everyone = gather(z)
    near = nearest_others(z.detach(), everyone.detach())
    loss: Tensor = _LogDistance.apply(z, everyone if world() > 1 else None, near)  # type: ignore[no-untyped-call]
    return loss


class _LogDistance(torch.autograd.Function):
    """Mean over rows of −log(‖zᵢ − other[nearᵢ]‖ + ε), others the rows themselves where None; one [M, D] is kept."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, others: Tensor | None, near: Tensor) -> Tensor:
        ctx.others = None if others is None else len(others)
        slope = z - (z if others is None else others).index_select(0, near)
        # the root's slope is endless at zero, where two rows are one
        distance = (torch.linalg.vecdot(slope, slope) + EPS**2).sqrt_()
        slope.mul_((-1 / (len(z) * distance * (distance + EPS)))[:, None])
        ctx.save_for_backward(slope, near)
        loss: Tensor = -(distance + EPS).log().mean()
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        slope, near = ctx.saved_tensors
        own: Tensor = slope * grads[0]
        if ctx.others is None:
            return own.index_add_(0, near, slope * -grads[0]), None, None
        return own, own.new_zeros(ctx.others, own.shape[1]).index_add_(0, near, own, alpha=-1), None


def nearest_others(z: Tensor, everyone: Tensor) -> Tensor:
    """[M] int64: for each of this rank's unit rows [M, D] the nearest other of all ranks' [M × world, D] by angle."""
    if world() > 1:
        itself = torch.arange(len(z), device=z.device) + rank() * len(z)

        def nearest(rows: Tensor, own: Tensor) -> Tensor:
            return (rows @ everyone.T).scatter_(1, own[:, None], -torch.inf).argmax(1)

        return by_rows(nearest, len(everyone), CHUNK, z, itself)
    # Alone a rank sees each pair twice: rows look only at those from their block on, and are seen by them.
    best, near = z.new_full((len(z),), -torch.inf), torch.zeros(len(z), dtype=torch.int64, device=z.device)
    step = max(min(len(z) // BLOCKS, CHUNK // max(len(z), 1)), LEAST)
    for at in range(0, len(z), step):
        alike = z[at : at + step] @ z[at:].T
        alike.fill_diagonal_(-torch.inf)
        _take(best[at : at + step], near[at : at + step], alike.max(1), at)
        if at + step < len(z):
            _take(best[at + step :], near[at + step :], alike[:, step:].max(0), at)
    return near


def _take(best: Tensor, near: Tensor, found: tuple[Tensor, Tensor], at: int) -> None:
    """Keep what is nearer than the best so far."""
    better = found[0] > best
    best.copy_(torch.where(better, found[0], best))
    near.copy_(torch.where(better, found[1] + at, near))


class KoLeo(Term):
    """On the student's own instances, without a head, summed over plain and global views as in DINOv2's code."""

    needs = frozenset({"instances"})

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("koleo", passes)
        whole = [view for kind, looks in passes.student.items() if kind != "local" for view in looks[0].instances]
        return {"loss": torch.stack([koleo(view) for view in whole]).sum(), "std": spread(whole[0])}
