"""How much of one view does another show? Volume contrast (VoCo, arXiv 2402.17300), on views of any domain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.branches import Look, Passes
from unlabeled.collectives import masked_mean
from unlabeled.contract import Encoder, Tokens
from unlabeled.layers import head
from unlabeled.terms.base import Term, need_batch, pairs_of, spread

LEAST = 1e-6  # a side of a box, so that two which are one point along an axis cover each other
SURE = 1e-6  # what a logarithm is taken of, at least


def boxes(tokens: Tokens) -> tuple[Tensor, Tensor] | None:
    """Lowest and highest corner [B, P] of what each view shows of its sample; None: nothing says where views lie.

    Tokens know their middles: half of the distance to the next one is added on each side, along axes that have several.
    """
    if tokens.where is None or tokens.owner is not None:
        return None
    where = tokens.where.detach()
    gaps = (tokens.coords.sort(1).values.diff(dim=1) > 0).sum(1)  # [B, P], one less than there are places along an axis
    step = (where.amax(1) - where.amin(1)) / gaps.clamp(min=1)
    low = torch.where(tokens.valid[..., None], where, torch.inf).amin(1) - step / 2
    high = torch.where(tokens.valid[..., None], where, -torch.inf).amax(1) + step / 2
    middle, half = (low + high) / 2, (high - low).clamp(min=LEAST) / 2
    return middle - half, middle + half


def overlap(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """[B] in [0, 1]: the share of the one box that lies in the other; 0 of a view that shows nothing."""
    common = (torch.minimum(one[1], other[1]) - torch.maximum(one[0], other[0])).clamp(min=0)
    return (common / (one[1] - one[0])).nan_to_num(0.0).clamp(max=1).prod(-1)


class Overlap(Term):
    """−log(1 − |y − s|), y the share of a view that lies in another and s their cosine, 0 where it is negative.

    Mean over every view of a sample and every other whole one of it, which the teacher saw. Views that have nothing
    in common are pushed apart besides: their mean s, by the weight `apart`. In the paper the other crops lie on a
    grid; here all are drawn. Where nothing says how views lie they count as showing all of a sample.

    Args:
        hidden: width inside the projector; none: twice the encoder's.
        out: width of the projections.
        apart: weight of the second part.
    """

    needs = frozenset({"instances", "views", "teacher"})
    tracked = ("projector",)

    def __init__(self, encoder: Encoder, *, hidden: int | None = None, out: int = 256, apart: float = 1.0):
        super().__init__(encoder)
        self.projector, self.apart = head([encoder.width, hidden or 2 * encoder.width, out]), apart

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("overlap", passes)
        student, teacher = self.project(passes)
        looks = [looks[0] for looks in passes.student.values()]
        places = [place for look in looks for place in _of_views(look)]
        losses, far, strange = [], [], []
        for i, here in enumerate(student):
            for j, there in enumerate(teacher):
                if i != j:
                    wanted = _share(places[i], places[j], here)
                    alike = F.cosine_similarity(here, there, dim=-1).relu()
                    losses.append(-(1 - (wanted - alike).abs()).clamp(min=SURE).log().mean())
        for i, j in pairs_of(len(student)):
            strange.append(_share(places[i], places[j], student[i]) == 0)
            far.append(F.cosine_similarity(student[i], student[j], dim=-1).relu())
        loss, apart = torch.stack(losses).mean(), masked_mean(torch.stack(far), torch.stack(strange))
        return {"loss": loss + self.apart * apart, "place": loss, "apart": apart, "std": spread(student[0])}


def _of_views(look: Look) -> list[tuple[Tensor, Tensor] | None]:
    """The boxes of each view; None where instances are not samples, or nothing says where views lie."""
    found = boxes(look.tokens)
    rows = look.instances.shape[1]
    if found is None or len(found[0]) != look.views * rows:
        return [None] * look.views
    low, high = (corner.view(look.views, rows, -1) for corner in found)
    return list(zip(low, high, strict=True))


def _share(one: tuple[Tensor, Tensor] | None, other: tuple[Tensor, Tensor] | None, like: Tensor) -> Tensor:
    return like.new_ones(len(like)) if one is None or other is None else overlap(one, other).to(like.dtype)
