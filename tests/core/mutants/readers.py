"""Broken readers: R1 … R10."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from strips import Strips, pad
from unlabeled.contract import Batch, Sample


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


class NumberDescribed(Strips):
    def describe(self, index: int) -> Any:
        return {"length": index}


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
    ("R6", NanFacts, "json.dumps(facts) raises ValueError"),
    ("R6", GrowingFacts, "not the same before and after reading"),
    ("R7", FitsAgain, "made with facts, the reader has other facts"),
    ("R7", FactsChangeSamples, "reads another item 0: 'given'"),
    ("R8", Infinite, "'signal' is infinite"),
    ("R9", Garbage, "item 9, 'signal-broken.npy', is read nevertheless"),
    ("R9", GivesUpOnce, "raises once"),
    ("R9", FearsAll, "reading item 0 raises OSError: no"),
    ("R10", RawText, "not float32 [10, features]"),
    ("R10", RawNan, "not finite"),
    ("R10", NumberDescribed, "item 0 is described by {'length': 0}, not by text"),
    ("R10", RaggedSummary, "rows of different keys"),
    ("R10", NumberSummary, "not text"),
    ("R10", LabelKeyError, "raises KeyError"),
    ("R10", AnyLabel, "returns something"),
]
