"""Rebuild what was hidden from what was seen.

MAE (arXiv 2111.06377), SimMIM (2111.09886), GMML (2205.14986), MaskFeat (2112.09133), GraphMAE (2205.10803).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Look, Passes
from unlabeled.collectives import masked_mean, uneven_mean
from unlabeled.contract import Content, Encoder, SquaredError, Target, Tokens
from unlabeled.errors import UserError
from unlabeled.layers import predictor
from unlabeled.targets import features_of
from unlabeled.terms.base import Term

Loss = Literal["mse", "l1", "scaled_cosine"]


def scaled_cosine(prediction: Tensor, goal: Tensor, gamma: float) -> Tensor:
    """(1 − cos)^γ of each token (GraphMAE): what is nearly right counts little. [B, N, C], [B, N, C] -> [B, N]."""
    return (1 - F.cosine_similarity(prediction, goal, dim=-1, eps=1e-6)).clamp(min=0).pow(gamma)


class Rebuild(Term):
    """A decoder over all tokens predicts the content of hidden ones, or fixed features of it.

    The loss is the encoder's own `content` loss where its domain has one (mixed columns), else `loss` on
    `tokens.values`, each token standardised on request where it has more than one value. MAE's decoder is 8 blocks
    of 512 beside a ViT-L of 1024; here `width` is half of the encoder's and `depth` 2 unless set. The decoder is
    never shown what the encoder made of a wanted place: GraphMAE's re-masking is built in. GMML's code also puts
    noise in place of tokens; here they always show another sample's.

    Args:
        width, depth: of the decoder; depth 0 is a linear head on the latents of the wanted places, which then
            must mean something: hide with `in_place`, or show changed content.
        loss: mse, l1 or scaled_cosine.
        gamma: γ of the scaled cosine.
        standardise: each token's values to mean 0 and variance 1.
        target: fixed features to predict in place of the content, by name; "default" is the domain's first.
        everywhere: count every valid place, seen ones too, by a head of depth 0 (denoising autoencoders, VIME).
    """

    needs = frozenset({"tokens", "hidden"})

    def __init__(
        self,
        encoder: Encoder,
        *,
        width: int | None = None,
        depth: int = 2,
        loss: Loss = "mse",
        gamma: float = 3.0,
        standardise: bool = False,
        target: Target | None = None,
        everywhere: bool = False,
    ):
        super().__init__(encoder)
        if loss not in ("mse", "l1", "scaled_cosine"):
            raise UserError(f"rebuild.loss cannot be {loss!r}; there are: mse, l1, scaled_cosine")
        if gamma < 1:
            raise UserError(f"rebuild.gamma makes small errors count less: 1 or more, not {gamma}")
        depth = 0 if everywhere else depth
        self.target, self.loss, self.gamma, self.everywhere = target, loss, gamma, everywhere
        self.standardise = standardise and encoder.value_width > 1
        self.content: Content | None = None if target else encoder.content
        values = SquaredError(encoder.value_width, self.standardise)
        out = target.width if target else (encoder.content or values).width
        if loss == "scaled_cosine" and out == 1 and self.content is None:
            raise UserError(
                "rebuild.loss=scaled_cosine compares directions and tokens here are one number: set it to mse"
            )
        self.decoder: nn.Module = nn.Linear(encoder.width, out) if depth == 0 else predictor(encoder, out, width, depth)

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        losses = []
        for look, _ in passes.masked():
            assert look.hidden is not None
            goal = self.goal(look.tokens)
            for wanted in [look.tokens.valid] if self.everywhere else look.hidden.targets:
                predicted = self._predict(look, wanted)
                losses.append(self._mean(predicted, goal, look.tokens, wanted))
        return {"loss": torch.stack(losses).mean()}

    def _mean(self, predicted: Tensor, goal: Tensor, tokens: Tokens, wanted: Tensor) -> Tensor:
        """[] mean error of wanted tokens. A CPU looks at no others; to choose them a GPU would have to wait."""
        if self.content is None and predicted.device.type == "cpu" and not torch.compiler.is_compiling():
            rows = wanted.flatten().nonzero()[:, 0]
            predicted, goal = (x.flatten(0, 1).index_select(0, rows) for x in (predicted, goal))
            return uneven_mean(self.error(predicted, goal, tokens))
        return masked_mean(self.error(predicted, goal, tokens), wanted)

    def _predict(self, look: Look, wanted: Tensor) -> Tensor:
        if isinstance(self.decoder, nn.Linear):
            assert look.hidden is not None
            changed = look.hidden.source is not None or look.hidden.values is not None
            if not look.in_place and (not changed or bool(look.hidden.hidden.any())):
                raise UserError(
                    "rebuild.depth=0 reads hidden places off the encoder, which drops them: hide in place "
                    "(in_place=true), or give rebuild a depth"
                )
            out: Tensor = self.decoder(look.latent)
        else:
            out = self.decoder(look.latent, look.tokens, look.seen, wanted)
        return out.float()

    def goal(self, tokens: Tokens) -> Tensor:
        """What is predicted, where it is a vector: [B, N, C]."""
        if self.target is not None:
            return features_of(self.target, tokens)
        goal = tokens.values.float()
        if self.standardise:
            goal = (goal - goal.mean(-1, keepdim=True)) / (goal.var(-1, keepdim=True) + 1e-6).sqrt()
        return goal

    def error(self, predicted: Tensor, goal: Tensor, tokens: Tokens) -> Tensor:
        """[B, N] the loss of each token, or of some of them by themselves."""
        if self.content is not None:
            return self.content.loss(predicted, tokens)
        if self.loss == "scaled_cosine":
            return scaled_cosine(predicted, goal, self.gamma)
        error = predicted - goal
        return (error.abs() if self.loss == "l1" else error.square()).mean(-1)
