"""Samples through a frozen encoder, in order, without keeping more than a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from unlabeled.contract import Batch, Encoded, Encoder, Kind, Reader, Tokens, View, to_device
from unlabeled.data.batches import Broken, Portable, try_batch
from unlabeled.data.collate import collate
from unlabeled.errors import UserError
from unlabeled.masking import by_sample, per_sample
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
    wholes = Wholes(reader, view, registry, indices.split(batch_size))
    for number in range(len(wholes)):
        numbers, batch, broken = wholes[number]
        if batch or broken:
            yield numbers, batch, broken


@dataclass(frozen=True)
class Wholes(Portable, Dataset[tuple[Tensor, Batch, list[Broken]]]):
    """Undisturbed batches by number: the samples that could be read, a batch of them (empty without any), the rest."""

    reader: Reader
    view: View
    registry: Registry
    parts: Sequence[Tensor]  # int64, samples of each batch

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> tuple[Tensor, Batch, list[Broken]]:
        part, broken = self.parts[number], list[Broken]()
        batch: Batch | None = None
        if type(self.view).sample is View.sample:
            batch = try_batch(self.reader, part)
        if batch is None:
            good, samples = [], []
            for index in part.tolist():
                try:
                    samples.append(self.view.sample(self.reader[index], WHOLE, Draws(torch.tensor([index]))))
                    good.append(index)
                except Exception as error:  # whatever a decoder raises for a damaged file
                    broken.append(Broken.of(self.reader, index, error))
            part = torch.tensor(good, dtype=torch.int64)
            batch = collate(samples, self.registry) if samples else None
        return part, {} if batch is None else self.view.batch(batch, WHOLE, Draws(part)), broken


@torch.no_grad()
def encode(encoder: Encoder, batch: Batch, device: torch.device) -> Tensor:
    """Instances [M, D] float32 of one undisturbed batch."""
    return instances_of(encoder, encoder.tokenize(to_device(batch, device)))


def instances_of(encoder: Encoder, tokens: Tokens) -> Tensor:
    """Instances [M, D] float32."""
    encoded: Encoded = encoder(tokens)
    return encoded.instances.float()


def tokens_of(encoder: Encoder, tokens: Tokens) -> Tensor:
    """Tokens [B, N, D] float32.

    Raises:
        UserError: the encoder has none.
    """
    encoded: Encoded = encoder(tokens)
    if encoded.tokens is None or not encoder.has_tokens:
        raise UserError(f"{type(encoder).__name__} has no tokens; embed instances")
    return encoded.tokens.float()


def valid_tokens(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Numbers [T] of the valid tokens among all B × N, sample by sample, and how many are each sample's [samples]."""
    owner, count = per_sample(tokens)
    order, _ = by_sample(owner)
    return order[tokens.valid.flatten()[order]], count


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
