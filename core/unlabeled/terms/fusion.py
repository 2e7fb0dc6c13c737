"""How much of another sample is shown here? Volume Fusion (arXiv 2306.16925), on tokens of any domain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Passes
from unlabeled.collectives import masked_mean
from unlabeled.contract import Encoder
from unlabeled.errors import UserError
from unlabeled.terms.base import Term


class Fusion(Term):
    """Cross-entropy, for every token, over the steps 0 … K by which another sample was mixed in; by a linear head.

    It is a segmentation whose labels cost nothing. The paper adds the Dice loss of its voxels to it.

    Args:
        steps: K, the mask's.
    """

    needs = frozenset({"tokens", "fused"})

    def __init__(self, encoder: Encoder, *, steps: int = 4):
        super().__init__(encoder)
        if steps < 1:
            raise UserError(f"fusion.steps is the mask's, at least 1, not {steps}")
        self.steps = steps
        self.classifier = nn.Linear(encoder.width, steps + 1)

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        losses, right = [], []
        for look, _ in passes.masked():
            assert look.hidden is not None
            assert look.hidden.share is not None
            step = ((1 - look.hidden.share) * self.steps).round().long()
            logits = self.classifier(look.latent).float()
            error = F.cross_entropy(logits.flatten(0, 1), step.flatten(), reduction="none").view_as(step)
            losses.append(masked_mean(error, look.tokens.valid))
            right.append(masked_mean((logits.argmax(-1) == step).float(), look.tokens.valid))
        return {"loss": torch.stack(losses).mean(), "accuracy": torch.stack(right).mean()}
