"""Broken views: V1 … V8."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strips import Crops, flip
from unlabeled.contract import Batch, Kind, Sample
from unlabeled.randomness import Draws


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


class FollowsSeed(Crops):
    """Reads global chance without moving it."""

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        return {**batch, "signal": batch["signal"] * (1 + torch.initial_seed() % 7)}


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


class Cut(Crops):
    """Leaves nothing of a local view."""

    def batch(self, batch: Batch, kind: Kind, draws: Draws) -> Batch:
        return {**batch, "length": batch["length"] * 0} if kind == "local" else batch


class NeverStill(Crops):
    def transform(self, batch: Batch, which: Tensor) -> Batch:
        return flip(batch, 1 - which)


class AllAlike(Crops):
    def transform(self, batch: Batch, which: Tensor) -> Batch:
        return flip(batch, which[:1].expand_as(which))


class NoTransform(Crops):
    def transform(self, batch: Batch, which: Tensor) -> Batch:
        return batch


class Shortens(Crops):
    def transform(self, batch: Batch, which: Tensor) -> Batch:
        return {**batch, "signal": batch["signal"][:, :-1]} if which.any() else batch


class TurnsInPlace(Crops):
    def transform(self, batch: Batch, which: Tensor) -> Batch:
        batch["signal"][which == 1] *= -1
        return dict(batch)


class OneTransform(Crops):
    transforms = 1


VIEWS: list[tuple[str, type[Any], str]] = [
    ("V1", OwnGenerator, "differs at a second run with the same draws"),
    ("V1", Crashing, "batch, kind 'local', raises KeyError: 'wave'"),
    ("V1", NotAView, "no subclass"),
    ("V2", GlobalTorch, "moves a global random state"),
    ("V2", GlobalNumpy, "moves a global random state"),
    ("V2", GlobalPython, "moves a global random state"),
    ("V2", FollowsSeed, "follows a global random state"),
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
    ("V8", NeverStill, "transform 0 is not the identity"),
    ("V8", AllAlike, "rows do not go by their own numbers"),
    ("V8", NoTransform, "is the identity too"),
    ("V8", Shortens, "transform 1 makes"),
    ("V8", TurnsInPlace, "transform changed its batch: 'signal'"),
    ("V8", OneTransform, "knows one transform"),
]
