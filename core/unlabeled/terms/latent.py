"""Predict the teacher's tokens of hidden places.

I-JEPA (arXiv 2301.08243), T-JEPA (2410.05016), data2vec (2202.03555, 2212.07525), EAT (2401.03497), ATST-Frame
(2306.04186).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Look, Passes
from unlabeled.collectives import masked_mean, world
from unlabeled.contract import Encoder, Tokens
from unlabeled.errors import UserError
from unlabeled.layers import head, mean_of, predictor
from unlabeled.masking import per_sample
from unlabeled.terms.base import Term, spread

Loss = Literal["smooth_l1", "mse", "cosine"]


def token_error(predicted: Tensor, goal: Tensor, loss: Loss, beta: float = 1.0) -> Tensor:
    """[..., D], [..., D] -> [...]: smooth L1 or squared error, mean over D, or 2 − 2 cos."""
    if loss == "cosine":
        return 2 - 2 * F.cosine_similarity(predicted, goal, dim=-1, eps=1e-6)
    if loss == "smooth_l1":
        return F.smooth_l1_loss(predicted, goal, reduction="none", beta=beta).mean(-1)
    return F.mse_loss(predicted, goal, reduction="none").mean(-1)


def sample_mean(x: Tensor, tokens: Tokens) -> Tensor:
    """The mean over each sample's valid tokens: [B, N, D] -> [samples, D]."""
    if tokens.owner is None:
        return mean_of(x, tokens.valid)
    owner, count = per_sample(tokens)
    kept = (x * tokens.valid[..., None]).flatten(0, 1)
    return x.new_zeros(len(count), x.shape[-1]).index_add_(0, owner.flatten(), kept) / count.clamp(min=1)[:, None]


def instance_norm(x: Tensor, tokens: Tokens) -> Tensor:
    """[B, N, D]: each channel to mean 0 and variance 1 over the valid tokens of its sample."""

    def moment(x: Tensor) -> Tensor:  # of each token's sample
        mean = sample_mean(x, tokens)
        return mean[:, None] if tokens.owner is None else mean[tokens.owner]

    x = x - moment(x)
    return x * (moment(x.square()) + 1e-5).rsqrt()


def goal_of(look: Look, layers: int) -> Tensor:
    """[B, N, D]: tokens without scale and shift (layer norm without weights), the mean of several layers' if asked.

    As in data2vec 2.0 for images and in EAT, layers are instance-normed, so that what all tokens of a sample share
    is no target. Their layers are the feed-forward parts before the residual sum; here they are the sums. One layer
    is I-JEPA's target. T-JEPA's code norms nothing; here its targets are I-JEPA's, which cannot shrink to a point.
    """
    every = [instance_norm(layer.float(), look.tokens) for layer in (look.layers[-layers:] if layers else [])]
    whole = torch.stack(every).mean(0) if every else look.latent.float()
    return F.layer_norm(whole, whole.shape[-1:])


def blanks_of(look: Look, option: str) -> Tensor:
    """[B, N, D] what the encoder made of its tokens, blanks among them.

    Raises:
        UserError: hidden tokens were dropped.
    """
    if not look.in_place:
        raise UserError(
            f"{option} reads hidden places off the encoder, which drops them: hide in place (in_place=true), or "
            "predict with latent and a depth"
        )
    return look.latent


class PredictLatent(Term):
    """A predictor sees what the student saw and a target's places, and predicts the teacher's tokens there.

    Each target set of the mask is predicted by itself: the predictor of one never sees another's places.

    Args:
        width, depth: of the predictor; depth 0 reads the student's own tokens through an MLP, for masks in place.
        loss: smooth_l1 (I-JEPA), mse (data2vec 2, T-JEPA), cosine (2 − 2 cos).
        beta: where smooth_l1 turns from square to linear (data2vec: 2 for images, 4 for text).
        layers: the target is the mean of the teacher's last K layers, or of as many as it has; 0: its output.
        summary: weight of EAT's utterance loss, the squared distance of the student's instance, through a head,
            to the mean of the teacher's target tokens.
    """

    needs = frozenset({"tokens", "hidden", "teacher"})

    def __init__(
        self,
        encoder: Encoder,
        *,
        width: int | None = None,
        depth: int = 2,
        loss: Loss = "smooth_l1",
        beta: float = 1.0,
        layers: int = 0,
        summary: float = 0.0,
    ):
        super().__init__(encoder)
        if loss not in ("smooth_l1", "mse", "cosine"):
            raise UserError(f"latent.loss cannot be {loss!r}; there are: smooth_l1, mse, cosine")
        self.loss: Loss = loss
        self.beta, self.layers, self.summary = beta, min(layers, encoder.depth), summary
        self.predictor: nn.Module
        if depth == 0:
            self.predictor = head([encoder.width, 2 * encoder.width, encoder.width], norm=False, act=nn.GELU)
        else:
            self.predictor = predictor(encoder, encoder.width, width, depth)
        self.summariser = nn.Linear(encoder.width, encoder.width) if summary else None

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        losses, summaries = [], []
        goals: dict[int, Tensor] = {}  # of a teacher's look, which several masks share
        for look, whole in passes.masked():
            assert look.hidden is not None
            assert whole is not None
            if id(whole) not in goals:
                goal = goal_of(whole, self.layers)
                goals[id(whole)] = goal if passes.branch == "shared" else goal.detach()
            goal = goals[id(whole)]
            for target in look.hidden.targets:
                error = token_error(self._predict(look, target), goal, self.loss, self.beta)
                losses.append(masked_mean(error, target))
            if self.summariser is not None:
                summaries.append(self._summary(look, goal))
        loss = torch.stack(losses).mean()
        if not summaries:
            return {"loss": loss}
        utterance = torch.stack(summaries).mean()
        return {
            "loss": loss + self.summary * utterance,
            "tokens": loss.detach(),
            "summary": utterance.detach(),
        }

    def _predict(self, look: Look, target: Tensor) -> Tensor:
        if isinstance(self.predictor, nn.Sequential):
            out: Tensor = self.predictor(blanks_of(look, "latent.depth=0"))
        else:
            out = self.predictor(look.latent, look.tokens, look.seen, target)
        return out.float()

    def _summary(self, look: Look, goal: Tensor) -> Tensor:
        """[] EAT's utterance loss. Instances that are not samples have no tokens to be the mean of."""
        assert self.summariser is not None
        instances = self.summariser(look.encoded.instances).float()
        means = sample_mean(goal, look.tokens)
        if len(instances) != len(means):
            raise UserError(
                "latent.summary compares samples with their tokens, and instances here are parts of one: set it to 0"
            )
        return F.mse_loss(instances, means)


class RegressTokens(Term):
    """BYOL on hidden tokens (ATST-Frame): predict the teacher's projection of the token that stood at a blank's place.

    2 − 2 cos of predictor(projector(student)) and projector(teacher), mean over hidden tokens. The heads, and their
    batch statistics, see hidden tokens only. ATST-Frame shows teacher and student two augmented views of a clip,
    frame by frame the same; here both look at one.

    Args:
        hidden: width inside the heads (ATST-Frame: 4096 at width 768); none: 4 × the encoder's.
        out: width of the projections.
    """

    needs = frozenset({"tokens", "hidden", "teacher"})
    tracked = ("projector",)

    def __init__(self, encoder: Encoder, *, hidden: int | None = None, out: int = 256):
        super().__init__(encoder)
        inner = hidden or 4 * encoder.width
        self.projector = head([encoder.width, inner, out])
        self.predictor = head([out, inner, out])

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        teacher = self.teacher_head(passes)
        losses, student = [], []
        for look, whole in passes.masked():
            assert look.hidden is not None
            assert whole is not None
            hidden = torch.stack(look.hidden.targets).any(0)
            z = blanks_of(look, "regress_tokens")[hidden]
            if len(z) * world() < 2:
                raise UserError("term 'regress_tokens' compares hidden tokens and got only one: raise --batch-size")
            student.append(self.projector(z))
            goal = teacher(whole.latent[hidden]).float()
            goal = goal if passes.branch == "shared" else goal.detach()
            error = token_error(self.predictor(student[-1]).float(), goal, "cosine")
            losses.append(masked_mean(error, torch.ones_like(error, dtype=torch.bool)))
        return {"loss": torch.stack(losses).mean(), "std": spread(torch.cat(student))}
