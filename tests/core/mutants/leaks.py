"""Encoders that leak, do not see, or do not learn: E8 … E20."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import strips
from strips import PATCH, StripCNN, StripMLP, StripViT
from unlabeled.contract import Alteration, Batch, Encoded, Tokens
from unlabeled.layers import mean_of

Changed = Alteration | None


class PaddingLeaks(StripViT):
    """The mean is over padding too."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(tokens, hidden, layers, alter)
        all_of_it = tokens.values if hidden is None else tokens.values.masked_fill(hidden[..., None], 0)
        return replace(out, instances=out.instances + 0.01 * all_of_it.mean((1, 2))[:, None])


class Ignores(StripViT):
    """No masking at all."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        return super().forward(tokens, None, layers, alter)


class MasksAfterMixing(StripCNN):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(tokens, None, layers, alter)
        if hidden is None:
            return out
        assert out.tokens is not None
        return replace(out, tokens=out.tokens.masked_fill(hidden[..., None], 0))


class InstancesLeak(StripViT):
    """Tokens are masked as they should be; the instances come from all of them."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(tokens, hidden, layers, alter)
        return replace(out, instances=super().forward(tokens).instances)


class FaintLeak(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(tokens, hidden, layers, alter)
        return replace(out, instances=out.instances + 1e-6 * mean_of(tokens.values, tokens.valid).mean(1, keepdim=True))


class FirstAlwaysSeen(StripViT):
    """Its first token cannot be hidden."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        if hidden is not None:
            hidden = hidden.clone()
            hidden[:, 0] = False
        return super().forward(tokens, hidden, layers, alter)


class LayersLeak(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(tokens, hidden, layers, alter)
        return replace(out, layers=super().forward(tokens, None, layers).layers)


class RawInContext(StripViT):
    """The context holds the raw signal; nobody reads it, but a predictor could."""

    def tokenize(self, batch: Batch) -> Tokens:
        cut = super().tokenize(batch)
        return replace(cut, context={**cut.context, "signal": batch["signal"]})


class EnergyInContext(RawInContext):
    """The context holds a statistic over hidden tokens too, and the instance uses it."""

    def tokenize(self, batch: Batch) -> Tokens:
        cut = super().tokenize(batch)
        return replace(cut, context={**cut.context, "energy": cut.values.square().mean((1, 2))})

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(tokens, hidden, layers, alter)
        return replace(out, instances=out.instances + tokens.context["energy"][:, None])


class RawAside(StripViT):
    """The raw batch goes past the tokens altogether, on the module."""

    def tokenize(self, batch: Batch) -> Tokens:
        self.aside = batch["signal"].mean(1)
        return super().tokenize(batch)

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(tokens, hidden, layers, alter)
        return replace(out, instances=out.instances + self.aside[:, None])


class NormsWhileCutting(StripViT):
    """Every token's values depend on all the others, hidden ones too."""

    def tokenize(self, batch: Batch) -> Tokens:
        cut = super().tokenize(batch)
        return replace(cut, values=cut.values / (1 + cut.values.square().mean((1, 2), keepdim=True)))


class Blind(StripViT):
    """Sees places alone."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(replace(tokens, values=tokens.values * 0), hidden, layers, alter)
        return replace(out, instances=out.instances + self.enter(tokens.values * 0).mean(1))


class BlindAtTheEnd(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        values = tokens.values.clone()
        values[:, 0] = 0
        return super().forward(replace(tokens, values=values), hidden, layers, alter)


class SwapsWithNeighbours(StripMLP):
    """Each token comes back as it should, the instance is of the whole batch."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(tokens, hidden, layers, alter)
        return replace(out, instances=out.instances - out.instances.mean(0))


class PaddingCounts(StripViT):
    """Divides by the padded length: a sample in a batch of longer ones comes out smaller."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(tokens, hidden, layers, alter)
        return replace(out, instances=out.instances / tokens.valid.shape[1])


class NoLayers(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        return replace(super().forward(tokens, hidden, layers, alter), layers=None)


class FirstLayers(StripViT):
    """Gives the first layers where the last are asked for."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(tokens, hidden, self.depth, alter)
        assert out.layers is not None
        return replace(out, layers=out.layers[:layers] if layers else None)


class OneLayerTwice(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(tokens, hidden, layers, alter)
        return out if out.layers is None else replace(out, layers=out.layers[-1:].expand_as(out.layers))


class Content:
    """Content losses that break E14, by name."""

    width = PATCH

    def __init__(self, fault: str):
        self.fault = fault

    def loss(self, prediction: Tensor, tokens: Tokens) -> Tensor:
        error = (prediction - tokens.values).square()
        faulty: dict[str, Callable[[], Tensor]] = {
            "one number": lambda: error.mean(),
            "a number a value": lambda: error,
            "not finite": lambda: error.mean(-1) / tokens.valid,
            "of others": lambda: error.mean(-1) - error.mean((1, 2))[:, None],
            "no gradient": lambda: error.mean(-1).detach(),
            "flat": lambda: error.mean(-1) * 0 + prediction.sum(-1) * 0,
            "endless slope": lambda: (error * 0).sqrt().mean(-1),
        }
        return faulty[self.fault]()


CONTENT_FAULTS = ["one number", "a number a value", "not finite", "of others", "no gradient", "flat", "endless slope"]


class PeeksPredictor(strips.Guess):
    def forward(self, latent: Tensor, tokens: Tokens, seen: Tensor, wanted: Tensor) -> Tensor:
        return super().forward(latent, tokens, seen, wanted) + tokens.values.mean(-1, keepdim=True)


class Peeks(StripCNN):
    def predictor(self, out_width: int, width: int, depth: int) -> strips.Guess:
        return PeeksPredictor(self, out_width, width)


class WrongPrediction(StripCNN):
    def predictor(self, out_width: int, width: int, depth: int) -> strips.Guess:
        return strips.Guess(self, 1, width)


class DeafPredictor(strips.Guess):
    def forward(self, latent: Tensor, tokens: Tokens, seen: Tensor, wanted: Tensor) -> Tensor:
        return super().forward(latent * 0, tokens, seen, wanted)


class Deaf(StripCNN):
    def predictor(self, out_width: int, width: int, depth: int) -> strips.Guess:
        return DeafPredictor(self, out_width, width)


class OnlyFloat32(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(tokens, hidden, layers, alter)
        x = self.enter(tokens.values)
        return replace(out, instances=out.instances + 0 * torch.dot(x[0, 0], self.enter.bias))


class Unused(StripViT):
    def __init__(self, facts: Mapping[str, Any]):
        super().__init__(facts)
        self.spare = nn.Linear(2, 2)


class Detached(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(tokens, hidden, layers, alter)
        assert out.tokens is not None
        return replace(out, tokens=out.tokens.detach(), instances=out.instances.detach())


class NotSaved(StripViT):
    """A random table that is neither a parameter nor a buffer."""

    def __init__(self, facts: Mapping[str, Any]):
        super().__init__(facts)
        self.table = torch.randn(self.width)

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(tokens, hidden, layers, alter)
        return replace(out, instances=out.instances + self.table)


class OwnSeed(StripViT):
    """Weights from the system's chance instead of torch's."""

    def __init__(self, facts: Mapping[str, Any]):
        super().__init__(facts)
        nn.init.constant_(self.enter.bias, random.SystemRandom().random())


class HalfBlank(StripViT):
    """Keeps a tenth of what it should replace."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        if alter is None or alter.blank is None:
            return super().forward(tokens, hidden, layers, alter)
        kept = replace(alter, token=alter.token * 0.9) if alter.token is not None else alter
        return super().forward(tokens, hidden, layers, lambda x: kept(x) + 0.1 * x)  # type: ignore[arg-type]


class AlwaysAltered(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        out = super().forward(tokens, hidden, layers, alter)
        return out if alter is None else replace(out, instances=2 * out.instances)


class NeverAltered(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Changed = None) -> Encoded:
        blank = None if alter is None else alter.blank
        return super().forward(tokens, hidden if blank is None else blank, layers)


class WrongMixing(StripViT):
    def __init__(self, facts: Mapping[str, Any]):
        super().__init__(facts)
        self.embed_width += 1


LEAKS: list[tuple[str, type[Any], str]] = [
    ("E8", PaddingLeaks, "values at places that are not valid, instances"),
    ("E9", Ignores, "with half of the tokens hidden and another token's values there"),
    ("E9", MasksAfterMixing, "with half of the tokens hidden and another token's values there"),
    ("E9", InstancesLeak, "instances"),
    ("E9", FaintLeak, "far (±10000) values"),
    ("E9", FirstAlwaysSeen, "hidden and"),
    ("E9", LayersLeak, "layers at valid places"),
    ("E10", RawInContext, "changes the context: 'signal'"),
    ("E10", EnergyInContext, "changes the context"),
    ("E10", RawAside, "changes the output although it is hidden"),
    ("E10", NormsWhileCutting, "no change of one entry of the batch leaves any token"),
    ("E11", Blind, "other content of token 0"),
    ("E11", BlindAtTheEnd, "other content of token 0 changes no instance"),
    ("E12", SwapsWithNeighbours, "sample 0 has another instance alone"),
    ("E12", PaddingCounts, "sample 0 has another instance alone"),
    ("E13", NoLayers, "layers=2 gives None"),
    ("E13", FirstLayers, "the last of 2 layers is not the one"),
    ("E13", OneLayerTwice, "the first and the last of 2 layers are the same"),
    ("E15", Peeks, "with other values of the tokens, predictions differ"),
    ("E15", WrongPrediction, "not (6, 11, 5)"),
    ("E15", Deaf, "do not depend on the tokens that are seen"),
    ("E16", OnlyFloat32, "bfloat16 forward with nothing hidden raises RuntimeError"),
    ("E17", Unused, "parameter 'spare.weight' takes no part"),
    ("E17", Detached, "no gradient although"),
    ("E18", NotSaved, "with another's state_dict gives other outputs"),
    ("E19", OwnSeed, "has two states: 'enter.bias'"),
    ("E20", HalfBlank, "by a blank and"),
    ("E20", AlwaysAltered, "an alteration that does nothing changes instances"),
    ("E20", NeverAltered, "it is all the same which blank"),
    ("E20", WrongMixing, "embed gives"),
]
