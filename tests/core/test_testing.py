"""The conformance kit, proven by mutants: each breaks one promise and is caught by its number."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strips
import torch
from strips import PATCH, Crops, StripCNN, StripFlat, StripMLP, Strips, StripViT, pad
from torch import Tensor, nn
from unlabeled import plugins
from unlabeled.contract import Batch, Encoded, Kind, Sample, Tokens, View
from unlabeled.errors import UserError
from unlabeled.layers import mean_of
from unlabeled.plugins import Registry
from unlabeled.randomness import Draws
from unlabeled.testing import PROMISES, Bench, BrokenPromise, check_encoder, check_plugin, check_reader, check_view

FACTS = {"mean": 0.0, "std": 2.0}
CAUGHT: set[str] = set()  # numbers of the promises that a mutant broke; the last test wants them all


def caught(code: str, check: Callable[[], None]) -> str:
    """The message with which the kit says that this promise is broken."""
    with pytest.raises(BrokenPromise) as error:
        check()
    assert error.value.code == code, str(error.value)
    assert f"promise {code}" in str(error.value)
    assert "docs/plugins.md" in str(error.value)
    CAUGHT.add(code)
    return str(error.value)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return strips.write(tmp_path)


@pytest.fixture
def samples(source: str) -> list[Sample]:
    reader = Strips(source)
    return [reader[index] for index in range(6)]


# --- encoders


def check(encoder: StripViT, samples: Sequence[Sample]) -> None:
    """As check_plugin does."""
    alone = [pad([sample]) for sample in samples]
    check_encoder(encoder, pad(samples), again=partial(type(encoder), FACTS), alone=alone)


@pytest.mark.parametrize("kind", [StripViT, StripCNN, StripMLP, StripFlat])
def test_encoders_that_keep_their_promises_pass(kind: type[StripViT], samples: list[Sample]) -> None:
    check(kind(FACTS), samples)


def test_the_checked_encoder_stays_as_it_was(samples: list[Sample]) -> None:
    encoder = StripViT(FACTS).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.get_rng_state()
    check(encoder, samples)
    assert encoder.training
    assert all(value.equal(before[name]) for name, value in encoder.state_dict().items())
    assert all(weight.grad is None for weight in encoder.parameters())
    assert torch.get_rng_state().equal(state)


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


class PaddingLeaks(StripViT):
    """The mean is over padding too."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
        all_of_it = tokens.values if hidden is None else tokens.values.masked_fill(hidden[..., None], 0)
        return replace(out, instances=out.instances + 0.01 * all_of_it.mean((1, 2))[:, None])


class Ignores(StripViT):
    """No masking at all."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        return super().forward(tokens, None, layers)


class MasksAfterMixing(StripCNN):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, None, layers)
        if hidden is None:
            return out
        assert out.tokens is not None
        return replace(out, tokens=out.tokens.masked_fill(hidden[..., None], 0))


class InstancesLeak(StripViT):
    """Tokens are masked as they should be; the instances come from all of them."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
        return replace(out, instances=super().forward(tokens).instances)


class FaintLeak(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
        return replace(out, instances=out.instances + 1e-6 * mean_of(tokens.values, tokens.valid).mean(1, keepdim=True))


class FirstAlwaysSeen(StripViT):
    """Its first token cannot be hidden."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        if hidden is not None:
            hidden = hidden.clone()
            hidden[:, 0] = False
        return super().forward(tokens, hidden, layers)


class LayersLeak(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
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

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
        return replace(out, instances=out.instances + tokens.context["energy"][:, None])


class RawAside(StripViT):
    """The raw batch goes past the tokens altogether, on the module."""

    def tokenize(self, batch: Batch) -> Tokens:
        self.aside = batch["signal"].mean(1)
        return super().tokenize(batch)

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
        return replace(out, instances=out.instances + self.aside[:, None])


class NormsWhileCutting(StripViT):
    """Every token's values depend on all the others, hidden ones too."""

    def tokenize(self, batch: Batch) -> Tokens:
        cut = super().tokenize(batch)
        return replace(cut, values=cut.values / (1 + cut.values.square().mean((1, 2), keepdim=True)))


class Blind(StripViT):
    """Sees places alone."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(replace(tokens, values=tokens.values * 0), hidden, layers)
        return replace(out, instances=out.instances + self.enter(tokens.values * 0).mean(1))


class BlindAtTheEnd(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        values = tokens.values.clone()
        values[:, 0] = 0
        return super().forward(replace(tokens, values=values), hidden, layers)


class SwapsWithNeighbours(StripMLP):
    """Each token comes back as it should, the instance is of the whole batch."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
        return replace(out, instances=out.instances - out.instances.mean(0))


class PaddingCounts(StripViT):
    """Divides by the padded length: a sample in a batch of longer ones comes out smaller."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
        return replace(out, instances=out.instances / tokens.valid.shape[1])


class NoLayers(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        return replace(super().forward(tokens, hidden, layers), layers=None)


class FirstLayers(StripViT):
    """Gives the first layers where the last are asked for."""

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, self.depth)
        assert out.layers is not None
        return replace(out, layers=out.layers[:layers] if layers else None)


class OneLayerTwice(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
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
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
        x = self.enter(tokens.values)
        return replace(out, instances=out.instances + 0 * torch.dot(x[0, 0], self.enter.bias))


class Unused(StripViT):
    def __init__(self, facts: Mapping[str, Any]):
        super().__init__(facts)
        self.spare = nn.Linear(2, 2)


class Detached(StripViT):
    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
        assert out.tokens is not None
        return replace(out, tokens=out.tokens.detach(), instances=out.instances.detach())


class NotSaved(StripViT):
    """A random table that is neither a parameter nor a buffer."""

    def __init__(self, facts: Mapping[str, Any]):
        super().__init__(facts)
        self.table = torch.randn(self.width)

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
        out = super().forward(tokens, hidden, layers)
        return replace(out, instances=out.instances + self.table)


class OwnSeed(StripViT):
    """Weights from the system's chance instead of torch's."""

    def __init__(self, facts: Mapping[str, Any]):
        super().__init__(facts)
        nn.init.constant_(self.enter.bias, random.SystemRandom().random())


ENCODERS: list[tuple[str, type[Any], str]] = [
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
]


@pytest.mark.parametrize(("code", "mutant", "says"), ENCODERS, ids=[mutant.__name__ for _, mutant, _ in ENCODERS])
def test_mutant_encoders_are_caught(code: str, mutant: type[Any], says: str, samples: list[Sample]) -> None:
    encoder = mutant() if mutant is NotAnEncoder else mutant(FACTS)
    message = caught(code, lambda: check(encoder, samples))
    assert says in message
    assert mutant.__name__ in message


@pytest.mark.parametrize("fault", CONTENT_FAULTS)
def test_mutant_contents_are_caught(fault: str, samples: list[Sample]) -> None:
    encoder = StripViT(FACTS)
    encoder.content = Content(fault)
    caught("E14", lambda: check(encoder, samples))


def test_rows_that_stand_alone_are_cut_from_the_batch() -> None:
    """Where every tensor has a row a sample, E12 needs no batches of one sample."""
    batch = pad([{"signal": torch.randn(16), "rate": torch.tensor(100.0)} for _ in range(3)])
    check_encoder(StripViT(FACTS), batch)
    caught("E12", lambda: check_encoder(SwapsWithNeighbours(FACTS), batch))


# --- readers


class Shifting(Strips):
    """Noise at every read."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return {**sample, "signal": sample["signal"] + torch.rand(())}


class Rolling(Strips):
    """Every read advances global chance, and comes to nothing."""

    def __getitem__(self, index: int) -> Sample:
        np.random.rand()
        return super().__getitem__(index)


class Counting(Strips):
    def __getitem__(self, index: int) -> Sample:
        self.reads = getattr(self, "reads", 0) + 1
        return {**super().__getitem__(index), "rate": torch.tensor(float(self.reads))}


class OpenFile(Strips):
    def __init__(self, source: str, *, facts: Mapping[str, Any] | None = None):
        super().__init__(source, facts=facts)
        self.decode = lambda path: np.load(path)


class CacheLost(Strips):
    """Its pickle leaves out what it needs."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "paths": self.paths[::-1]}


class OneName(Strips):
    def name(self, index: int) -> str:
        return "broken" if "broken" in super().name(index) else "signal"


class NumberNames(Strips):
    def name(self, index: int) -> Any:
        return super().name(index) if "broken" in super().name(index) else index


class OtherBatch(Strips):
    def batch(self, indices: Sequence[int]) -> Batch | None:
        return pad([self[index] for index in sorted(indices)])


class NoRepeats(Strips):
    def batch(self, indices: Sequence[int]) -> Batch | None:
        return pad([self[index] for index in dict.fromkeys(indices)])


class BatchHidesDamage(Strips):
    def batch(self, indices: Sequence[int]) -> Batch | None:
        return pad([self[index] for index in indices if "broken" not in self.name(index)])


class TensorFacts(Strips):
    def _fit(self) -> dict[str, Any]:
        return {**super()._fit(), "table": torch.zeros(2)}


class TupleFacts(Strips):
    def _fit(self) -> dict[str, Any]:
        return {**super()._fit(), "shape": (1, 2)}


class NumberKeys(Strips):
    def _fit(self) -> dict[str, Any]:
        return {**super()._fit(), "names": {1: "one"}}


class NanFacts(Strips):
    def _fit(self) -> dict[str, Any]:
        return {**super()._fit(), "least": float("nan")}


class GrowingFacts(Strips):
    def __getitem__(self, index: int) -> Sample:
        self.facts = {**self.facts, "mean": self.facts["mean"] + 1}
        return super().__getitem__(index)


class FitsAgain(Strips):
    """Facts are fitted on whatever it reads, known or not: test data would be fitted too."""

    def __init__(self, source: str, *, facts: Mapping[str, Any] | None = None):
        super().__init__(source)
        self.facts = {**self.facts, "again": bool(facts)}


class FactsChangeSamples(Strips):
    def __init__(self, source: str, *, facts: Mapping[str, Any] | None = None):
        super().__init__(source, facts=facts)
        self.given = facts is not None

    def __getitem__(self, index: int) -> Sample:
        return {**super().__getitem__(index), "given": torch.tensor(self.given)}


class WrapsAround(Strips):
    def __getitem__(self, index: int) -> Sample:
        return super().__getitem__(index % len(self))


class Empty(Strips):
    def __len__(self) -> int:
        return 0


class Arrays(Strips):
    def __getitem__(self, index: int) -> Any:
        return {**super().__getitem__(index), "signal": np.zeros(3)}


class SomeNames(Strips):
    def __getitem__(self, index: int) -> Sample:
        sample = dict(super().__getitem__(index))
        return {**sample, "rest": torch.zeros(1)} if index == 3 else sample


class Infinite(Strips):
    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return {**sample, "signal": sample["signal"] / 0}


class Garbage(Strips):
    """What it cannot read it makes up."""

    def __getitem__(self, index: int) -> Sample:
        try:
            return super().__getitem__(index)
        except Exception:
            return super().__getitem__(0)


class GivesUpOnce(Garbage):
    def __getitem__(self, index: int) -> Sample:
        if "broken" in self.name(index) and not hasattr(self, "told"):
            self.told = True
            raise OSError("try again")
        return super().__getitem__(index)


class FearsAll(Strips):
    def __getitem__(self, index: int) -> Sample:
        raise OSError("no")


class RawText(Strips):
    def raw(self) -> Any:
        return np.zeros((len(self), 3))  # float64


class RawNan(Strips):
    def raw(self) -> Any:
        return np.full((len(self), 3), np.nan, dtype=np.float32)


class RaggedSummary(Strips):
    def summary(self) -> list[dict[str, str]]:
        return [{"signal": "a"}, {"samples": "b"}]


class NumberSummary(Strips):
    def summary(self) -> Any:
        return [{"samples": len(self)}]


class LabelKeyError(Strips):
    def labels(self, spec: str) -> Any:
        return {"kind": np.zeros(len(self))}[spec]


class AnyLabel(Strips):
    def labels(self, spec: str) -> Any:
        return np.zeros(len(self))


READERS: list[tuple[str, type[Strips], str]] = [
    ("R1", Empty, "no sample"),
    ("R1", WrapsAround, "item 10 of 10 is read"),
    ("R1", Arrays, "'signal' is ndarray, not a tensor"),
    ("R1", SomeNames, "item 3 has the names ['rate', 'rest', 'signal']"),
    ("R2", Shifting, "differs at a second read: 'signal'"),
    ("R2", Rolling, "moves a global random state"),
    ("R2", Counting, "differs at a second read: 'rate'"),
    ("R3", OpenFile, "pickling raises"),
    ("R3", CacheLost, "the copy"),
    ("R4", OneName, "are both called 'signal'"),
    ("R4", NumberNames, "called 0, which is not text"),
    ("R5", OtherBatch, "is not what its samples give"),
    ("R5", NoRepeats, "is not what its samples give"),
    ("R5", BatchHidesDamage, "which is broken"),
    ("R6", TensorFacts, "json.dumps(facts) raises TypeError"),
    ("R6", TupleFacts, "facts are not plain JSON"),
    ("R6", NumberKeys, "facts are not plain JSON"),
    ("R6", NanFacts, "facts"),
    ("R6", GrowingFacts, "not the same before and after reading"),
    ("R7", FitsAgain, "made with facts, the reader has other facts"),
    ("R7", FactsChangeSamples, "reads another item 0: 'given'"),
    ("R8", Infinite, "'signal' is infinite"),
    ("R9", Garbage, "item 9, 'signal-broken.npy', is read nevertheless"),
    ("R9", GivesUpOnce, "raises once"),
    ("R9", FearsAll, "reading item 0 raises OSError: no"),
    ("R10", RawText, "not float32 [10, features]"),
    ("R10", RawNan, "not finite"),
    ("R10", RaggedSummary, "rows of different keys"),
    ("R10", NumberSummary, "not text"),
    ("R10", LabelKeyError, "raises KeyError"),
    ("R10", AnyLabel, "returns something"),
]


def test_a_reader_that_keeps_its_promises_passes(source: str) -> None:
    check_reader(partial(Strips, source), collate=pad)


def test_a_reader_whose_samples_have_one_shape_needs_no_collate(tmp_path: Path) -> None:
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", np.full(8, number, dtype=np.float32))
    check_reader(partial(Strips, str(tmp_path)))


@pytest.mark.parametrize(("code", "mutant", "says"), READERS, ids=[mutant.__name__ for _, mutant, _ in READERS])
def test_mutant_readers_are_caught(code: str, mutant: type[Strips], says: str, source: str) -> None:
    with np.errstate(all="ignore"):
        message = caught(code, lambda: check_reader(partial(mutant, source), collate=pad))
    assert says in message


def test_a_reader_that_is_no_reader() -> None:
    assert "no subclass" in caught("R1", lambda: check_reader(lambda: [1, 2]))  # type: ignore[arg-type, return-value]


# --- views


class GlobalTorch(Crops):
    def sample(self, sample: Sample, kind: Kind, draws: Draws) -> Sample:
        return {**sample, "signal": sample["signal"] + torch.randn(())}


class GlobalNumpy(Crops):
    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        return {**batch, "signal": batch["signal"] * float(np.random.rand())}


class GlobalPython(Crops):
    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        random.random()
        return batch


class OwnGenerator(Crops):
    """Not the draws, and no global state either: a generator of its own that moves on."""

    def __init__(self, facts: Mapping[str, Any]):
        super().__init__(facts)
        self.chance = np.random.default_rng(0)

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        return {**batch, "signal": batch["signal"] * float(self.chance.random())}


class InPlaceSample(Crops):
    def sample(self, sample: Sample, kind: Kind, draws: Draws) -> Sample:
        sample["signal"].mul_(0.5)
        return sample


class InPlaceBatch(Crops):
    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        batch["signal"][:, 0] = 0
        return batch


class Centres(Crops):
    """Takes the batch's mean away."""

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        return {**batch, "signal": batch["signal"] - batch["signal"].mean()}


class Mixes(Crops):
    """Mixes each sample with the one before it in the batch."""

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        return batch if kind == "whole" else {**batch, "signal": batch["signal"] + 0.1 * batch["signal"].roll(1, 0)}


class OneDraw(Crops):
    """The first sample's gain for all."""

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        return batch if kind == "whole" else {**batch, "signal": batch["signal"] * draws.uniform(1)[0]}


class DropsRows(Crops):
    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        return {name: value[1:] for name, value in batch.items()}


class DropsNames(Crops):
    def sample(self, sample: Sample, kind: Kind, draws: Draws) -> Sample:
        return {"signal": sample["signal"]}


class Overshoots(Crops):
    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        return {**batch, "signal": batch["signal"] / 0}


class RandomWhole(Crops):
    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        return super().batch(batch, "global", draws)


class RandomWholeCrop(Crops):
    def sample(self, sample: Sample, kind: Kind, draws: Draws) -> Sample:
        return super().sample(sample, "local", draws)


class NoPickle(Crops):
    def __init__(self, facts: Mapping[str, Any]):
        super().__init__(facts)
        self.curve = lambda x: x


class Crashing(Crops):
    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        return {"wave": batch["wave"]} if kind == "local" else batch


class NotAView:
    pass


VIEWS: list[tuple[str, type[Any], str]] = [
    ("V1", OwnGenerator, "differs at a second run with the same draws"),
    ("V1", Crashing, "batch, kind 'local', raises KeyError: 'wave'"),
    ("V1", NotAView, "no subclass"),
    ("V2", GlobalTorch, "moves a global random state"),
    ("V2", GlobalNumpy, "moves a global random state"),
    ("V2", GlobalPython, "moves a global random state"),
    ("V3", InPlaceSample, "sample stage of kind 'plain' changed sample 0: 'signal'"),
    ("V3", InPlaceBatch, "batch stage of kind 'plain' changed its batch: 'signal'"),
    ("V4", Centres, "rows halved"),
    ("V4", Mixes, "rows in another order"),
    ("V4", OneDraw, "rows in another order"),
    ("V5", DropsRows, "has 5 rows of 6"),
    ("V5", DropsNames, "loses ['rate']"),
    ("V5", Overshoots, "is infinite"),
    ("V6", RandomWhole, "other draws make another 'whole' view"),
    ("V6", RandomWholeCrop, "other draws make another 'whole' view"),
    ("V7", NoPickle, "pickling raises"),
]


def test_a_view_that_keeps_its_promises_passes(samples: list[Sample]) -> None:
    check_view(Crops(FACTS), samples, collate=pad)
    check_view(View(), [{"x": torch.ones(3)}, {"x": torch.zeros(3)}])


def join(samples: Sequence[Sample]) -> Batch:
    """As `pad`, and without a rate where a mutant lost it."""
    return pad([{"rate": torch.tensor(1.0), **sample} for sample in samples])


@pytest.mark.parametrize(("code", "mutant", "says"), VIEWS, ids=[mutant.__name__ for _, mutant, _ in VIEWS])
def test_mutant_views_are_caught(code: str, mutant: type[Any], says: str, samples: list[Sample]) -> None:
    view = mutant() if mutant is NotAView else mutant(FACTS)
    message = caught(code, lambda: check_view(view, samples, collate=join))
    assert says in message


def test_views_that_do_not_fit_together(samples: list[Sample]) -> None:
    message = caught("V5", lambda: check_view(View(), samples))  # uneven, and nobody says how to join them
    assert "collating views of kind 'plain' raises UserError" in message


# --- plugins


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`strips`, installed."""
    info = tmp_path / "path" / "strips_dist-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strips-dist\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[unlabeled]\nstrips = strips\n")
    monkeypatch.syspath_prepend(info.parent)
    plugins.load.cache_clear()
    yield "strips"
    plugins.load.cache_clear()


def offer(monkeypatch: pytest.MonkeyPatch, table: str, value: object) -> None:
    """Replace what the registry offers."""
    monkeypatch.setattr(Registry, table, property(lambda self: value))


def test_a_whole_domain_that_keeps_its_promises_passes(domain: str, tmp_path: Path) -> None:
    """Four encoders, one with flat storage and one without tokens, by every method of the table."""
    check_plugin(domain, tmp_path)


def test_a_domain_without_an_example(domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "examples", lambda self, folder: [])
    assert "implements unlabeled_example" in caught("P1", lambda: check_plugin(domain, tmp_path))


def test_a_reader_that_takes_no_example(domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def picky(source: str, *, facts: Any = None) -> Strips:
        raise UserError(f"{source} is not EDF")

    offer(monkeypatch, "readers", {"npy": Strips, "edf": picky})
    message = caught("P1", lambda: check_plugin(domain, tmp_path))
    assert "reader 'edf'" in message
    assert "is not EDF" in message


def test_an_example_that_is_too_small(domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Few(Strips):
        def __len__(self) -> int:
            return 3

    offer(monkeypatch, "readers", {"npy": Few})
    assert "3 readable samples" in caught("P1", lambda: check_plugin(domain, tmp_path))


@pytest.mark.parametrize("table", ["readers", "views", "encoders"])
def test_a_domain_with_nothing_to_offer(
    domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    offer(monkeypatch, table, {})
    assert f"offers no {table}" in caught("P2", lambda: check_plugin(domain, tmp_path))


def test_a_view_that_an_encoder_cannot_take(domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(Crops):
        def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
            return {**batch, "length": batch["length"] * 0} if kind == "local" else batch

    offer(monkeypatch, "views", {"crops": Crops, "cut": Cut})
    bench = Bench(domain, tmp_path)
    bench.check_view("crops")
    message = caught("P3", lambda: bench.check_view("cut"))
    assert "encoder 'vit' breaks promise E" in message
    assert "kind 'local'" in message


def test_facts_that_json_changes(domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fussy(StripViT):
        def __init__(self, facts: Mapping[str, Any]):
            super().__init__(facts)
            nn.init.constant_(self.enter.bias, float(isinstance(facts["shape"], tuple)))

    offer(monkeypatch, "readers", {"npy": TupleFacts})
    offer(monkeypatch, "encoders", {"fussy": Fussy})
    bench = Bench(domain, tmp_path)
    assert "facts that went through JSON" in caught("E19", lambda: bench.check_encoder("fussy"))


@pytest.mark.parametrize("fault", ["nan", "raises", "constant"])
def test_encoders_that_do_not_learn(domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    class Untaught(StripViT):
        def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
            out = super().forward(tokens, hidden, layers)
            if fault == "raises" and self.training:
                raise RuntimeError("only in training")
            instances = out.instances / 0 if fault == "nan" else torch.randn_like(out.instances)
            return replace(out, instances=instances)

    offer(monkeypatch, "encoders", {"untaught": Untaught})
    bench = Bench(domain, tmp_path)
    message = caught("P4", lambda: bench.check_method("untaught", "simclr"))
    words = {"nan": "is nan", "raises": "raises RuntimeError: only in training", "constant": "change no weight"}
    assert words[fault] in message
    assert "encoder 'untaught' by method 'simclr'" in message


def test_every_promise_has_a_mutant_that_breaks_it() -> None:
    """Runs last: a promise that no mutant breaks may be no promise at all."""
    assert set(PROMISES) == CAUGHT
