"""Which tokens were changed? VIME's mask (NeurIPS 2020) and shuffled embedding detection (DABS, arXiv 2111.12062)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Passes
from unlabeled.collectives import masked_mean
from unlabeled.contract import Encoder
from unlabeled.terms.base import Term


class DetectMoved(Term):
    """Binary cross-entropy, for every token that is shown, of whether its content was changed; by a linear head."""

    needs = frozenset({"tokens", "moved"})

    def __init__(self, encoder: Encoder):
        super().__init__(encoder)
        self.detector = nn.Linear(encoder.width, 1)

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        losses, right = [], []
        for look, _ in passes.masked():
            assert look.hidden is not None
            moved = torch.stack(look.hidden.targets).any(0)
            logit = self.detector(look.latent)[..., 0].float()
            error = F.binary_cross_entropy_with_logits(logit, moved.float(), reduction="none")
            losses.append(masked_mean(error, look.seen))
            right.append(masked_mean(((logit > 0) == moved).float(), look.seen))
        return {"loss": torch.stack(losses).mean(), "accuracy": torch.stack(right).mean()}
