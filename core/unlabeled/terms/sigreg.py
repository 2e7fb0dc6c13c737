"""LeJEPA (arXiv 2511.08544): views predict their centre, and SIGReg keeps embeddings an isotropic Gaussian."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
PIECE = 1 << 16  # entries of a piece: with its waves 1.5 MB
MANY = 1 << 24


class _Characteristic(torch.autograd.Function):
    """Means over rows of cos(tx) and sin(tx) at t = 0, Δ, 2Δ … of [M, S]; two [KNOTS, S].

    Each t follows from the two before it, forwards and in the backward pass again, a few rows at a time: no
    [M, S, KNOTS] is ever kept, and what moves stays in a processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: float) -> Tensor:
        ctx.step = step
        ctx.save_for_backward(x)
        out = x.new_zeros(2, KNOTS, x.shape[1])
        for some in _pieces(x):
            for number, waves in enumerate(_waves(some, step)):
                for total, (wave, sign) in zip(out[:, number], waves, strict=True):
                    total.add_(wave.sum(0), alpha=sign)
        return out.div_(len(x))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        times = torch.arange(KNOTS, device=x.device, dtype=x.dtype) * (ctx.step / len(x))
        slopes = grads[0] * times[:, None]
        out = torch.zeros_like(x)
        for some, into in zip(_pieces(x), _pieces(out), strict=True):
            for number, ((c, c_sign), (s, s_sign)) in enumerate(_waves(some, ctx.step)):
                into.addcmul_(s, slopes[0, number], value=-s_sign).addcmul_(c, slopes[1, number], value=c_sign)
        return out, None


def _pieces(x: Tensor) -> Sequence[Tensor]:
    """Some rows at a time, such that what is made of them stays in a processor's cache; on a GPU many."""
    most = PIECE if x.device.type == "cpu" else MANY
    pieces: Sequence[Tensor] = x.split(max(1, most // max(x.shape[1], 1)))
    return pieces


def _waves(x: Tensor, step: float) -> Iterator[tuple[tuple[Tensor, int], tuple[Tensor, int]]]:
    """cos(kΔx), sin(kΔx) and their signs for k = 0 … KNOTS − 1, each to be used before the next.

    By cos((k + 1)θ) = 2 cos θ cos kθ − cos((k − 1)θ), and the sine alike, added in place: each wave stands where the
    one before the last did, and what would be its minus is kept as a sign.
    """
    angle = x * step
    once_c, once_s = angle.cos(), angle.sin_()
    twice = 2 * once_c
    c, s = [torch.ones_like(x), once_c], [torch.zeros_like(x), once_s]
    signs = [1, 1]
    for number in range(KNOTS):
        now, then = number % 2, (number + 1) % 2
        if number > 1:
            last = signs[then]  # of k − 1; the new wave takes the sign against that of k − 2
            sign = -signs[now]
            for wave in (c, s):
                wave[now].addcmul_(twice, wave[then], value=last * sign)
            signs[now] = sign
        yield (c[now], signs[now]), (s[now], signs[now])


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
