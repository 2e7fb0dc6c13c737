"""Rebuild what was hidden from what was seen (MAE, arXiv 2111.06377)."""

from __future__ import annotations

import torch
from torch import Tensor

from unlabeled.branches import Passes
from unlabeled.collectives import masked_mean
from unlabeled.contract import Encoder, SquaredError
from unlabeled.layers import TransformerPredictor
from unlabeled.terms.base import Term


class Rebuild(Term):
    """A decoder over all tokens predicts the own content of the hidden ones.

    The loss is the encoder's own `content` loss where its domain has one (mixed columns), else the squared
    error on `tokens.values`, each token standardised on request where it has more than one value.
    MAE's decoder is 8 blocks of 512 beside a ViT-L of 1024; here `width` is half of the encoder's and `depth`
    2 unless set.
    """

    needs = frozenset({"tokens", "hidden"})

    def __init__(self, encoder: Encoder, *, width: int | None = None, depth: int = 2, standardise: bool = False):
        super().__init__(encoder)
        self.content = encoder.content or SquaredError(encoder.value_width, standardise and encoder.value_width > 1)
        inner = width or max(32, encoder.width // 2)
        self.decoder = encoder.predictor(self.content.width, inner, depth) or TransformerPredictor(
            encoder.width, encoder.coord_width, self.content.width, inner, depth
        )

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        losses = []
        for look, _ in passes.masked():
            assert look.hidden is not None
            for target in look.hidden.targets:
                predicted = self.decoder(look.latent, look.tokens, look.seen, target).float()
                losses.append(masked_mean(self.content.loss(predicted, look.tokens), target))
        return {"loss": torch.stack(losses).mean()}
