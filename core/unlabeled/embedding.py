"""Samples through a frozen encoder, in order, without keeping more than a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unlabeled.contract import Batch, Encoded, Encoder, Kind, Reader, Tokens, View, to_device
from unlabeled.data.batches import Broken, try_batch
from unlabeled.data.collate import collate
from unlabeled.errors import UserError
from unlabeled.plugins import Registry
from unlabeled.randomness import Draws

__all__ = ["embed", "whole_batches"]

WHOLE: Kind = "whole"


@dataclass(frozen=True)
class Embedded:
    """Instances of the samples that could be read."""

    indices: Tensor  # int64 [n] sample numbers
    instances: Tensor  # float32 [n, D], on the CPU
    broken: tuple[Broken, ...] = ()


def whole_batches(
    reader: Reader, view: View, registry: Registry, indices: Tensor, batch_size: int
) -> Iterator[tuple[Tensor, Batch, list[Broken]]]:
    """Undisturbed batches of the samples, without the broken ones, which come beside them."""
    for part in indices.split(batch_size):
        broken: list[Broken] = []
        draws = Draws(part)
        batch: Batch | None = None
        if type(view).sample is View.sample:
            batch = try_batch(reader, part)
        if batch is None:
            good, samples = [], []
            for index in part.tolist():
                try:
                    samples.append(view.sample(reader[index], WHOLE, Draws(torch.tensor([index]))))
                    good.append(index)
                except Exception as error:  # whatever a decoder raises for a damaged file
                    broken.append(Broken.of(reader, index, error))
            part, draws = torch.tensor(good, dtype=torch.int64), Draws(torch.tensor(good, dtype=torch.int64))
            batch = collate(samples, registry) if samples else None
        if batch is not None:
            yield part, view.batch(batch, WHOLE, draws), broken
        elif broken:
            yield part, {}, broken


@torch.no_grad()
def encode(encoder: Encoder, batch: Batch, device: torch.device) -> Tensor:
    """Instances [M, D] float32 of one undisturbed batch."""
    encoded: Encoded = encoder(encoder.tokenize(to_device(batch, device)))
    return encoded.instances.float()


def embed(
    encoder: Encoder,
    reader: Reader,
    view: View,
    registry: Registry,
    *,
    indices: Tensor | None = None,
    batch_size: int | None = None,
    device: torch.device | None = None,
    see: Callable[[Tensor, Batch], object] | None = None,
) -> Embedded:
    """Embed samples (all of them unless `indices` [n] says which), in eval mode; the encoder's mode is restored.

    Args:
        batch_size: samples at once; None: as many as the reader says.
        see: is shown the numbers [B] and the undisturbed batch of what is embedded.

    Raises:
        UserError: not one sample could be read.
    """
    device = device or torch.device("cpu")
    wanted = torch.arange(len(reader)) if indices is None else indices
    was_training = encoder.training
    encoder.eval().to(device)
    kept: list[Tensor] = []
    parts: list[Tensor] = []
    broken: list[Broken] = []
    for numbers, batch, bad in whole_batches(reader, view, registry, wanted, batch_size or reader.embed_batch):
        broken += bad
        if batch:
            kept.append(numbers)
            parts.append(encode(encoder, batch, device).cpu())
            if see:
                see(numbers, batch)
    encoder.train(was_training)
    if not parts:
        raise UserError("not one sample could be read" + (f"; the first: {broken[0].reason}" if broken else ""))
    return Embedded(torch.cat(kept), torch.cat(parts), tuple(broken))


@dataclass(frozen=True)
class Sweep:
    """The `unlabeled.terms.base.Survey` of a run: passes over its samples by the encoder as it is, in eval mode.

    Every rank makes the whole pass, so that all of them find the same.
    """

    encoder: Encoder
    reader: Reader
    view: View
    registry: Registry
    training: Tensor  # int64, the samples trained on
    device: torch.device

    def instances(self) -> Tensor:
        """[samples, D] float32 in the reader's order; zeros for samples that cannot be read."""
        made = embed(self.encoder, self.reader, self.view, self.registry, device=self.device)
        out = made.instances.new_zeros(len(self.reader), made.instances.shape[1])
        out[made.indices] = made.instances
        return out.to(self.device)

    def tokens(self, samples: int) -> Iterator[Tokens]:
        """Undisturbed tokens of about this many samples, spread evenly over the training ones, batch by batch."""
        chosen = self.training[:: max(1, len(self.training) // max(samples, 1))]
        for _, batch, _ in whole_batches(self.reader, self.view, self.registry, chosen, self.reader.embed_batch):
            if batch:
                yield self.encoder.tokenize(to_device(batch, self.device))
