"""What a run is watched by, beside its loss: samples that never change, embedded now and then."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unlabeled.contract import Batch, Encoder, Reader, View, to_device
from unlabeled.data.batches import finish, read_views
from unlabeled.embedding import encode, whole_batches
from unlabeled.errors import UserError
from unlabeled.evaluation.labels import read_labels
from unlabeled.evaluation.metrics import points
from unlabeled.evaluation.nearest import unit
from unlabeled.evaluation.probes import judged, votes
from unlabeled.plugins import Registry
from unlabeled.randomness import sample_keys
from unlabeled.training.health import alignment_of, measure, uniformity_of

SHARE = 0.007  # of a run's passes through its encoder that short looks may make, and full ones again
FEWEST, MOST = 8, 20  # short looks, where nobody says how many
NEIGHBOURS = 20


@dataclass(frozen=True)
class Sources:
    """Where samples come from."""

    reader: Reader
    view: View
    registry: Registry
    device: torch.device
    batch_size: int


@dataclass
class Watch:
    """Looks at held-out samples, at two views of them, and at the neighbours of labelled ones.

    Every rank makes every look, so that none waits for another. No look touches torch's own generator.

    Args:
        held_out: numbers of samples [n] for spread, rank and uniformity, and as two views for alignment.
        labelled: numbers [m] and labels [m] for k-NN, each by the others; None: not watched.
        seed: of the views.
    """

    sources: Sources
    held_out: Tensor
    labelled: tuple[Tensor, Any] | None = None
    seed: int = 0
    _whole: dict[str, list[Batch]] = field(default_factory=dict)
    _views: list[Batch] | None = None

    @staticmethod
    def of(sources: Sources, held_out: Tensor, label: str | None, most: int, seed: int) -> Watch:
        """With `most` labelled samples at most, drawn by the seed from all.

        Raises:
            UserError: the reader has no such label, the encoder sees it, or too few samples have one.
        """
        if not label:
            return Watch(sources, held_out, None, seed)
        found = read_labels(sources.reader, sources.reader, label, "any")[0]
        order = torch.randperm(len(found.rows), generator=torch.Generator().manual_seed(seed))[:most].sort().values
        if len(order) < 3:
            raise UserError(f"{len(found.rows)} samples have a label {label!r}, too few for --watch")
        return Watch(sources, held_out, (torch.as_tensor(found.rows)[order], found.values[order.numpy()]), seed)

    @property
    def passes(self) -> int:
        """Samples through the encoder in one full look beyond a short one."""
        return 2 * len(self.held_out) + (0 if self.labelled is None else len(self.labelled[0]))

    def looks(self, trained: int) -> int:
        """How many short looks a run takes, where nobody says.

        Args:
            trained: samples × views that the run trains on; forward and backward cost three times forward alone.
        """
        return max(FEWEST, min(MOST, _affordable(trained, len(self.held_out))))

    def every(self, looks: int, trained: int) -> int:
        """Which of so many short looks are full: each so-manieth, so that they cost about SHARE at most."""
        return max(1, math.ceil(looks / max(1, _affordable(trained, self.passes))))

    def short(self, encoder: Encoder) -> dict[str, float]:
        """std, rank, dead and uniformity of held-out samples; nothing where none can be read."""
        embedded = self._embedded(encoder, "held out", self.held_out)
        return {} if embedded is None else {**measure(embedded), "uniformity": uniformity_of(embedded)}

    def full(self, encoder: Encoder) -> dict[str, float]:
        """alignment of two views of each held-out sample, and accuracy or r² by neighbours among labelled ones."""
        found = {"alignment": self._alignment(encoder)}
        if self.labelled is not None:
            numbers, labels = self.labelled
            embedded = self._embedded(encoder, "labelled", numbers)
            if embedded is not None and len(embedded) == len(labels) and bool(embedded.isfinite().all()):
                x = unit(embedded)
                guess = votes(x, x, labels, min(NEIGHBOURS, len(labels) - 1), itself=True)
                score = points(judged(labels, guess, None), len(labels))
                found |= {f"knn {name}": value for name, value in score.items()}
        return found

    def _embedded(self, encoder: Encoder, name: str, numbers: Tensor) -> Tensor | None:
        if name not in self._whole:
            one = self.sources
            parts = whole_batches(one.reader, one.view, one.registry, numbers, one.batch_size)
            self._whole[name] = [to_device(batch, one.device) for _, batch, _ in parts if batch]
        batches = self._whole[name]
        return torch.cat([encode(encoder, batch, self.sources.device) for batch in batches]).cpu() if batches else None

    def _alignment(self, encoder: Encoder) -> float:
        one = self.sources
        if self._views is None:
            self._views = []
            for part in self.held_out.split(max(1, one.batch_size // 2)):
                keys = sample_keys(self.seed, 0, part)
                step = read_views(one.reader, one.view, {"global": 2}, part, keys, self.held_out, one.registry)
                self._views.append(finish(step.to(one.device), one.view).views["global"])
        halves = [encode(encoder, batch, one.device).cpu().chunk(2) for batch in self._views]
        first, second = (torch.cat([pair[at] for pair in halves]) for at in (0, 1))
        return alignment_of(first, second) if len(first) == len(second) else math.nan


def _affordable(trained: int, passes: int) -> int:
    """How many looks of so many passes cost SHARE of training."""
    return int(SHARE * 3 * trained / max(1, passes))
