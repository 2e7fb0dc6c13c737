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
from unlabeled.collectives import masked_mean
from unlabeled.contract import Encoder
from unlabeled.errors import UserError
from unlabeled.layers import TransformerPredictor, head, mean_of
from unlabeled.masking import per_sample
from unlabeled.terms.base import Term

Loss = Literal["smooth_l1", "mse", "cosine"]


def token_error(predicted: Tensor, goal: Tensor, loss: Loss) -> Tensor:
    """[..., D], [..., D] -> [...]: smooth L1 or squared error, mean over D, or 2 − 2 cos."""
    if loss == "cosine":
        return 2 - 2 * F.cosine_similarity(predicted, goal, dim=-1, eps=1e-6)
    return (F.smooth_l1_loss if loss == "smooth_l1" else F.mse_loss)(predicted, goal, reduction="none").mean(-1)


def goal_of(look: Look, layers: int) -> Tensor:
    """[B, N, D]: tokens without scale and shift (layer norm without weights), the mean of several layers' if asked.

    data2vec norms each layer and then the mean; one layer is I-JEPA's target.
    """
    every = [F.layer_norm(layer.float(), layer.shape[-1:]) for layer in (look.layers[-layers:] if layers else [])]
    whole = torch.stack(every).mean(0) if every else look.latent.float()
    return F.layer_norm(whole, whole.shape[-1:])


class PredictLatent(Term):
    """A predictor sees what the student saw and a target's places, and predicts the teacher's tokens there.

    Each target set of the mask is predicted by itself: the predictor of one never sees another's places.

    Args:
        width, depth: of the predictor; depth 0 reads the student's own tokens through an MLP, for masks in place.
        loss: smooth_l1 (I-JEPA), mse (data2vec 2, T-JEPA), cosine (ATST-Frame: 2 − 2 cos).
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
        layers: int = 0,
        summary: float = 0.0,
    ):
        super().__init__(encoder)
        if loss not in ("smooth_l1", "mse", "cosine"):
            raise UserError(f"latent.loss cannot be {loss!r}; there are: smooth_l1, mse, cosine")
        self.loss: Loss = loss
        self.layers, self.summary = min(layers, encoder.depth), summary
        inner = width or max(32, encoder.width // 2)
        self.predictor: nn.Module
        if depth == 0:
            self.predictor = head([encoder.width, 2 * encoder.width, encoder.width], norm=False, act=nn.GELU)
        else:
            self.predictor = encoder.predictor(encoder.width, inner, depth) or TransformerPredictor(
                encoder.width, encoder.coord_width, encoder.width, inner, depth
            )
        self.summariser = nn.Linear(encoder.width, encoder.width) if summary else None

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        losses, summaries = [], []
        for look, whole in passes.masked():
            assert look.hidden is not None
            assert whole is not None
            goal = goal_of(whole, self.layers)
            goal = goal if passes.branch == "shared" else goal.detach()
            for target in look.hidden.targets:
                error = token_error(self._predict(look, target), goal, self.loss)
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
            if not look.in_place:
                raise UserError(
                    "latent.depth=0 reads hidden places off the encoder, which drops them: hide in place "
                    "(in_place=true), or give latent a depth"
                )
            out: Tensor = self.predictor(look.latent)
        else:
            out = self.predictor(look.latent, look.tokens, look.seen, target)
        return out.float()

    def _summary(self, look: Look, goal: Tensor) -> Tensor:
        """[] EAT's utterance loss. Instances that are not samples have no tokens to be the mean of."""
        assert self.summariser is not None
        instances = self.summariser(look.encoded.instances).float()
        owner, count = per_sample(look.tokens)
        if len(instances) != len(count):
            raise UserError("latent.summary compares samples with their tokens, and instances here are parts of one")
        if look.tokens.owner is None:
            mean = mean_of(goal, look.tokens.valid)
        else:
            kept = goal * look.tokens.valid[..., None]
            mean = goal.new_zeros(len(count), goal.shape[-1]).index_add_(0, owner.flatten(), kept.flatten(0, 1))
            mean = mean / count[:, None]
        return F.mse_loss(instances, mean)
