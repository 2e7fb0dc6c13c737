"""What probes are fitted on: a reader's samples through a frozen encoder, or with no encoder at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch

from unlabeled.contract import Encoder, Reader
from unlabeled.embedding import embed
from unlabeled.errors import UserError
from unlabeled.evaluation.probes import Features
from unlabeled.saved import Saved

Source = Callable[[Reader], Features]
Made = TypeVar("Made")


def raw(like: Reader) -> Source | None:
    """The data with no encoder, of readers like one that has such features; None: it has none."""
    first = like.raw()
    if first is None:
        return None

    def make(reader: Reader) -> Features:
        features = first if reader is like else reader.raw()
        assert features is not None, "readers of one kind"
        return _finite(features, reader, "the raw features")

    return once(make)


def frozen(encoder: Encoder, saved: Saved, device: torch.device | None) -> Source:
    """Instances of all of a reader's samples."""

    def make(reader: Reader) -> Features:
        made = embed(encoder, reader, saved.make_view(), saved.registry, device=device)
        if made.broken:
            raise UserError(
                f"{len(made.broken)} samples cannot be read, the first is {made.broken[0].name} "
                f"({made.broken[0].reason}); remove them before an evaluation"
            )
        return _finite(made.instances.numpy(), reader, f"the features of encoder {saved.encoder.name!r}")

    return once(make)


def once(make: Callable[[Reader], Made]) -> Callable[[Reader], Made]:
    """The same, computed once a reader."""
    done: dict[int, Made] = {}

    def of(reader: Reader) -> Made:
        if id(reader) not in done:
            done[id(reader)] = make(reader)
        return done[id(reader)]

    return of


def _finite(features: Features, reader: Reader, what: str) -> Features:
    bad = np.flatnonzero(~np.isfinite(features).all(1))
    if len(bad):
        raise UserError(
            f"{what} are not finite for {len(bad):,} of {len(features):,} samples, the first is "
            f"{reader.name(int(bad[0]))}: mend or remove these samples, or look for a run that did not diverge"
        )
    return features
