"""Predict the teacher's tokens of hidden places (I-JEPA, arXiv 2301.08243)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.branches import Passes
from unlabeled.collectives import masked_mean
from unlabeled.contract import Encoder
from unlabeled.layers import TransformerPredictor
from unlabeled.terms.base import Term


class PredictLatent(Term):
    """A predictor sees the context and a target's places; smooth L1 to the teacher's layer-normed tokens.

    Each target set of the mask is predicted by itself: the predictor of one never sees another's places.
    """

    needs = frozenset({"tokens", "hidden", "teacher"})

    def __init__(self, encoder: Encoder, *, width: int | None = None, depth: int = 2):
        super().__init__(encoder)
        inner = width or max(32, encoder.width // 2)
        self.predictor = encoder.predictor(encoder.width, inner, depth) or TransformerPredictor(
            encoder.width, encoder.coord_width, encoder.width, inner, depth
        )

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        losses = []
        for look, whole in passes.masked():
            assert look.hidden is not None
            assert whole is not None
            latent = whole.latent.float()
            goal = F.layer_norm(latent, latent.shape[-1:])
            goal = goal if passes.branch == "shared" else goal.detach()
            for target in look.hidden.targets:
                predicted = self.predictor(look.latent, look.tokens, look.seen, target).float()
                error = F.smooth_l1_loss(predicted, goal, reduction="none").mean(-1)
                losses.append(masked_mean(error, target))
        return {"loss": torch.stack(losses).mean()}
