"""The same place in another sample: alignment of tokens across samples (Alice, arXiv 2302.05615)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Passes
from unlabeled.collectives import gather, masked_mean, rank, world
from unlabeled.contract import Encoder, Tokens
from unlabeled.errors import UserError
from unlabeled.layers import head
from unlabeled.masking import places
from unlabeled.normaliser import unit
from unlabeled.terms.base import Term, spread

CHUNK = 1 << 24  # similarities held at once, 64 MB in float32


class Align(Term):
    """Predict the teacher's token of *another* sample that is at the same place: 2 − 2 cos, mean over seen tokens.

    The other sample is the next one of the global batch. The same place is, of its tokens within `radius` of the own
    coordinates in the uncut sample, the one that the teacher sees as most alike; a token with none so near is left out.
    Where nothing says how a view lies in its sample, coordinates are those in the view. The paper finds places by an
    embedding that was trained for it before, and compares whole crops there.

    Args:
        hidden: width inside the heads; none: twice the encoder's.
        out: width of the projections.
        radius: along each axis, as a share of the sample.
    """

    needs = frozenset({"tokens", "teacher"})
    tracked = ("projector",)

    def __init__(self, encoder: Encoder, *, hidden: int | None = None, out: int = 256, radius: float = 0.25):
        super().__init__(encoder)
        if radius <= 0:
            raise UserError(f"align.radius is a share of a sample above 0, not {radius:g}")
        inner = hidden or 2 * encoder.width
        self.projector = head([encoder.width, inner, out], norm=False, act=nn.GELU)
        self.predictor = head([out, inner, out], norm=False, act=nn.GELU)
        self.radius = radius

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        teacher = self.teacher_head(passes)
        losses, found, student = [], [], []
        for kind, whole in passes.teacher.items():
            look = passes.student[kind][0]
            z, goal = self.projector(look.latent).float(), teacher(whole.latent).float()
            goal = goal if passes.branch == "shared" else goal.detach()
            where = look.tokens.coords if look.tokens.where is None else look.tokens.where
            seen, *rows = by_sample(look.tokens, look.views, look.seen, look.tokens.valid, where, whole.latent, z, goal)
            student.append(z[look.seen])
            for view in range(look.views):
                here = slice(view * len(seen) // look.views, (view + 1) * len(seen) // look.views)
                valid, place, latent, own, theirs = (x[here] for x in rows)
                match, near = same_places(valid, place, latent, self.radius)
                near &= seen[here]
                wanted = following(theirs).gather(1, match[..., None].expand(-1, -1, theirs.shape[-1]))
                losses.append(masked_mean(2 - 2 * F.cosine_similarity(self.predictor(own), wanted, dim=-1), near))
                found.append(masked_mean(near.float(), seen[here]))
        return {
            "loss": torch.stack(losses).mean(),
            "matched": torch.stack(found).mean().detach(),
            "std": spread(torch.cat(student)),
        }


def by_sample(tokens: Tokens, views: int, *of_tokens: Tensor) -> list[Tensor]:
    """What is known of each token [B, N, ...], a row a sample: flat storage [1, N, ...] is padded with zeros.

    There are as many rows in each view, also where the last samples have no token and so own none.
    """
    if tokens.owner is None:
        return list(of_tokens)
    slot = places(tokens.owner)
    shape = (-(-(int(tokens.owner.max()) + 1) // views) * views, int(slot.max()) + 1)
    return [x.new_zeros(*shape, *x.shape[2:]).index_put((tokens.owner, slot), x) for x in of_tokens]


@torch.no_grad()
def same_places(valid: Tensor, where: Tensor, latent: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """For each token [B, N] the number of the most alike one of the next sample, and whether any is near.

    Args:
        valid: [B, N] bool.
        where: [B, N, P].
        latent: [B, N, D] of the teacher.
    """
    own = unit(latent.float())
    there, places_there, other = following(valid.byte()).bool(), following(where), following(own)
    step = max(1, CHUNK // max(1, len(own) * other.shape[1]))
    best, match = [], []
    for at in range(0, own.shape[1], step):
        part = slice(at, at + step)
        alike = own[:, part] @ other.mT
        far = (where[:, part, None] - places_there[:, None]).abs().amax(-1) > radius
        value, number = alike.masked_fill(far | ~there[:, None], -torch.inf).max(-1)
        best.append(value)
        match.append(number)
    return torch.cat(match, 1), torch.cat(best, 1).isfinite() & valid


def following(x: Tensor) -> Tensor:
    """[B, N, ...] of the next sample of the global batch, in rank order and round; N grows to the longest of all."""
    if world() == 1:
        return x.roll(-1, 0)
    most = int(gather(torch.tensor([x.shape[1]], device=x.device)).max())
    x = torch.cat([x, x.new_zeros(len(x), most - x.shape[1], *x.shape[2:])], 1)
    first = gather(x[:1])[(rank() + 1) % world()]
    return torch.cat([x[1:], first[None]])
