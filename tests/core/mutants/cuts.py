"""Encoders that cut wrongly, or whose outputs have no form: E1 … E7."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from strips import PATCH, StripViT
from unlabeled.contract import Batch, Encoded, Tokens


class NotAnEncoder(nn.Module):
    value_width = coord_width = width = 1


class WrongWidth(StripViT):
    value_width = PATCH + 1


class WrongCoords(StripViT):
    coord_width = 2


class NoWidth(StripViT):
    value_width = 0


class Half(StripViT):
    def tokenize(self, batch: Batch) -> Tokens:
        cut = super().tokenize(batch)
        return replace(cut, values=(cut.values * 10).long())


class CountsOwner(StripViT):
    def tokenize(self, batch: Batch) -> Tokens:
        cut = super().tokenize(batch)
        return replace(cut, owner=torch.zeros(3, dtype=torch.int64))


class Crashes(StripViT):
    def tokenize(self, batch: Batch) -> Tokens:
        raise KeyError("wave")


class NotFinite(StripViT):
    def tokenize(self, batch: Batch) -> Tokens:
        cut = super().tokenize(batch)
        return replace(cut, values=cut.values.log())


class FarCoords(StripViT):
    def tokenize(self, batch: Batch) -> Tokens:
        cut = super().tokenize(batch)
        return replace(cut, coords=cut.coords * 2)


class NanCoords(StripViT):
    def tokenize(self, batch: Batch) -> Tokens:
        cut = super().tokenize(batch)
        return replace(cut, coords=cut.coords / 0 * 0)


class DirtyPadding(StripViT):
    def tokenize(self, batch: Batch) -> Tokens:
        cut = super().tokenize(batch)
        return replace(cut, values=cut.values.masked_fill(~cut.valid[..., None], -1))


class NeverValid(StripViT):
    """Tokens that can never be hidden, because none is valid."""

    def tokenize(self, batch: Batch) -> Tokens:
        cut = super().tokenize(batch)
        return replace(cut, values=cut.values * 0, valid=torch.zeros_like(cut.valid))


class NumberValid(StripViT):
    def tokenize(self, batch: Batch) -> Tokens:
        cut = super().tokenize(batch)
        return replace(cut, valid=cut.valid.float())


class OneToken(StripViT):
    def tokenize(self, batch: Batch) -> Tokens:
        cut = super().tokenize(batch)
        return Tokens(cut.values[:, :1], cut.coords[:, :1], cut.valid[:, :1], cut.context)


class Weighed(StripViT):
    def __init__(self, facts: Mapping[str, Any]):
        super().__init__(facts)
        self.gain = nn.Parameter(torch.ones(PATCH))

    def tokenize(self, batch: Batch) -> Tokens:
        cut = super().tokenize(batch)
        return replace(cut, values=cut.values * self.gain)


class WeighedWithoutGradient(Weighed):
    @torch.no_grad()
    def tokenize(self, batch: Batch) -> Tokens:
        return super().tokenize(batch)


class ScalesItsBatch(StripViT):
    def tokenize(self, batch: Batch) -> Tokens:
        batch["signal"].mul_(0.5)
        return super().tokenize(batch)


class ScalesItsTokens(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        tokens.values.mul_(0.5)
        return super().forward(tokens, hidden, layers)


class RandomCut(StripViT):
    def tokenize(self, batch: Batch) -> Tokens:
        cut = super().tokenize(batch)
        return replace(cut, values=cut.values + torch.rand(()) * cut.valid[..., None])


class AlwaysDropout(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
        return replace(out, instances=nn.functional.dropout(out.instances, 0.5, training=True))


class Remembers(StripViT):
    def __init__(self, facts: Mapping[str, Any]):
        super().__init__(facts)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        self.seen += tokens.values.mean()
        return super().forward(tokens, hidden, layers)


class WrongShape(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
        assert out.tokens is not None
        return replace(out, tokens=out.tokens[:, 1:])


class NoTokens(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        return replace(super().forward(tokens, hidden, layers), tokens=None)


class OneInstance(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
        return replace(out, instances=out.instances.mean(0, keepdim=True))


class EmptyMaskMatters(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
        return out if hidden is None else replace(out, instances=out.instances + 1)


class Overflows(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
        return replace(out, instances=out.instances / 0)


CUTS: list[tuple[str, type[Any], str]] = [
    ("E1", NotAnEncoder, "no subclass of unlabeled.contract.Encoder"),
    ("E1", WrongWidth, "values is (6, 11, 4), and the encoder's widths say (6, 11, 5)"),
    ("E1", WrongCoords, "coords is"),
    ("E1", NoWidth, "value_width is 0"),
    ("E1", Half, "not floating point"),
    ("E1", CountsOwner, "owner is (3,)"),
    ("E1", Crashes, "tokenize raises KeyError: 'wave'"),
    ("E2", NotFinite, "values has entries that are not finite"),
    ("E2", FarCoords, "coords reach from 0 to 2"),
    ("E2", NanCoords, "coords has entries that are not finite"),
    ("E2", DirtyPadding, "not zero"),
    ("E3", NeverValid, "sample 0 has no valid token"),
    ("E3", NumberValid, "valid is torch.float32"),
    ("E3", OneToken, "no sample has two valid tokens"),
    ("E4", Weighed, "other weights give other tokens"),
    ("E4", WeighedWithoutGradient, "other weights give other tokens"),
    ("E5", ScalesItsBatch, "changed its batch: 'signal'"),
    ("E5", ScalesItsTokens, "changed its tokens: values"),
    ("E6", RandomCut, "two different cuts"),
    ("E6", AlwaysDropout, "second pass in eval differs: instances"),
    ("E6", Remembers, "changed the state: 'seen'"),
    ("E7", WrongShape, "tokens is (6, 10, 32), not (6, 11, 32)"),
    ("E7", NoTokens, "Encoded.tokens is None"),
    ("E7", OneInstance, "instances is (1, 32), not [6 samples"),
    ("E7", EmptyMaskMatters, "an empty mask and no mask differ"),
    ("E7", Overflows, "instances are not finite"),
]
