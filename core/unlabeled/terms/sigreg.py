"""LeJEPA (arXiv 2511.08544): views predict their centre, and SIGReg keeps embeddings an isotropic Gaussian."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unlabeled.branches import Passes
from unlabeled.collectives import mean_over_ranks, world
from unlabeled.contract import Encoder
from unlabeled.layers import head
from unlabeled.terms.base import Term, full_precision, need_batch, spread

KNOTS = 17
FURTHEST = 3.0  # of the frequencies


class _Characteristic(torch.autograd.Function):
    """Means over rows of cos(tx) and sin(tx) at t = 0, Δ, 2Δ … of [M, S]; two [KNOTS, S].

    A rotation by Δx leads from one t to the next, forwards and in the backward pass again, so that no [M, S, KNOTS]
    is ever kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: float) -> Tensor:
        ctx.step = step
        ctx.save_for_backward(x)
        return torch.stack([torch.stack([c.mean(0), s.mean(0)]) for c, s in _turns(x, step)], 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        out = torch.zeros_like(x)
        for number, (c, s) in enumerate(_turns(x, ctx.step)):
            slope = grads[0][:, number] * (number * ctx.step / len(x))
            out.addcmul_(s, slope[0], value=-1).addcmul_(c, slope[1])
        return out, None


def _turns(x: Tensor, step: float) -> Any:
    """cos(kΔx), sin(kΔx) for k = 0 … KNOTS − 1, each to be used before the next."""
    once_c, once_s = (x * step).cos(), (x * step).sin()
    c, s = torch.ones_like(x), torch.zeros_like(x)
    for _ in range(KNOTS):
        yield c, s
        c, s = c * once_c - s * once_s, s * once_c + c * once_s


@full_precision
def sigreg(z: Tensor, directions: Tensor) -> Tensor:
    """The Epps-Pulley statistic of each projection of [M, D] embeddings against N(0, 1), averaged over directions.

    N ∫ |φ̂(t) − e^{−t²/2}|² e^{−t²/2} dt over −3 … 3 by the trapezoidal rule, φ̂ the empirical characteristic function
    of the N rows of the global batch.

    Args:
        z: [M, D], M on every rank.
        directions: [D, S] unit columns, the same on every rank.
    """
    step = FURTHEST / (KNOTS - 1)
    t = torch.arange(KNOTS, device=z.device) * step
    empirical = mean_over_ranks(_Characteristic.apply(z.float() @ directions, step))  # type: ignore[no-untyped-call]
    gauss = (-t.square() / 2).exp()
    weight = torch.full_like(t, 2 * step)  # the integrand is even
    weight[0] = weight[-1] = step
    error = (empirical[0] - gauss[:, None]).square() + empirical[1].square()
    return len(z) * world() * ((weight * gauss) @ error).mean()


def directions(width: int, count: int, seed: int, device: torch.device) -> Tensor:
    """[width, count] random unit columns that depend on the seed alone."""
    made = torch.randn(width, count, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(made, dim=0).to(device)


class SIGReg(Term):
    """(1 − λ) × squared distance of all views to the centre of the whole ones + λ × SIGReg of all views.

    Args:
        share: λ, 0.01 … 0.1 in the paper.
        slices: random directions, others each step.
        hidden, out: of the three-layer projector.
    """

    needs = frozenset({"instances", "views"})

    def __init__(
        self,
        encoder: Encoder,
        *,
        share: float = 0.05,
        slices: int = 1024,
        hidden: int | None = None,
        out: int = 64,
    ):
        super().__init__(encoder)
        self.share, self.slices = share, slices
        inner = hidden or 4 * encoder.width
        self.projector = head([encoder.width, inner, inner, out])

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("sigreg", passes)
        z, _ = self.project(passes)
        whole = sum(looks[0].views for kind, looks in passes.student.items() if kind != "local")
        centre = torch.stack(z[:whole]).mean(0)
        predict = torch.stack([(view - centre).square().mean() for view in z]).mean()
        chosen = directions(z[0].shape[1], self.slices, passes.clock.step, z[0].device)
        normal = torch.stack([sigreg(view, chosen) for view in z]).mean()
        loss = (1 - self.share) * predict + self.share * normal
        return {"loss": loss, "prediction": predict.detach(), "sigreg": normal.detach(), "std": spread(z[0])}
