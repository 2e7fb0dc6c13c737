"""KoLeo: embeddings of a batch spread evenly (Sablayrolles et al., arXiv 1806.03198; DINOv2, 2304.07193)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.branches import Passes
from unlabeled.collectives import gather, rank
from unlabeled.terms.base import Term, by_rows, full_precision, need_batch, spread

CHUNK = 1 << 24  # similarities held at once, 64 MB in float32
EPS = 1e-8


@full_precision
def koleo(z: Tensor) -> Tensor:
    """−log(‖ẑᵢ − ẑⱼ‖ + ε), j the nearest other row, mean over i.

    Neighbours are looked for in the global batch; DINOv2's code looks on each GPU alone.

    Args:
        z: [M, D] embeddings of one view.

    Returns:
        [] this rank's share; the mean over ranks is the loss.
    """
    z = F.normalize(z.float(), dim=-1)
    everyone = gather(z)
    itself = torch.arange(len(z), device=z.device) + rank() * len(z)
    with torch.no_grad():
        others = everyone.detach()

        def nearest(rows: Tensor, own: Tensor) -> Tensor:
            return (rows @ others.T).scatter_(1, own[:, None], -torch.inf).argmax(1)

        near = by_rows(nearest, len(others), CHUNK, z.detach(), itself)
    # the root's slope is endless at zero, where two rows are one
    distance = ((z - everyone[near]).square().sum(-1) + EPS**2).sqrt()
    return -(distance + EPS).log().mean()


class KoLeo(Term):
    """On the student's own instances, without a head, summed over plain and global views as in DINOv2's code."""

    needs = frozenset({"instances"})

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("koleo", passes)
        whole = [view for kind, looks in passes.student.items() if kind != "local" for view in looks[0].instances]
        return {"loss": torch.stack([koleo(view) for view in whole]).sum(), "std": spread(whole[0])}
