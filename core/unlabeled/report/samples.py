"""The samples that a report shows: an encoder's instances of them, and what a person sees of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unlabeled.contract import Batch, Encoder, Reader, View
from unlabeled.data.batches import held_out
from unlabeled.embedding import embed
from unlabeled.errors import UserError, one_line
from unlabeled.pictures import Picture, drawn, small
from unlabeled.plugins import Registry
from unlabeled.report.runs import Shown
from unlabeled.saved import describe, load
from unlabeled.training.folder import RunFolder

MOST = 500  # samples on a map
SIDE = 64  # pixels of a small picture


@dataclass(frozen=True)
class Source:
    """An encoder and the samples to show: those of a run in progress, or a finished one's read again."""

    encoder: Encoder
    reader: Reader
    view: View
    registry: Registry
    device: torch.device | None = None
    other: bool = False  # other data than those trained on, or all of these: shown evenly spread

    @staticmethod
    def of(run: Shown, data: str | None = None) -> Source:
        """The encoder that a run left, and the data to show: those that it was trained on unless others are named.

        Raises:
            UserError: there is no encoder, or the data cannot be read or are others now.
        """
        saved = describe(run.path)
        reader = saved.make_reader(data or str(run.config["data"]))
        if not data:
            before, _ = RunFolder(run.path).read_facts()
            if len(reader) != before:
                raise UserError(
                    f"{run.config['data']} has {len(reader)} samples now and had {before} when the run began"
                )
        return Source(load(run.path), reader, saved.make_view(), saved.registry, other=bool(data))

    def chosen(self, health_samples: int, seed: int) -> Tensor:
        """Numbers of the samples to show [n]: those that a run looks at for its health, held out where they can be."""
        if self.other:
            return torch.tensor(self.reader.some(MOST))
        return held_out(self.reader, health_samples, seed)[1][:MOST]


@dataclass(frozen=True)
class Samples:
    """What was embedded, in order."""

    instances: Tensor  # [n, D] float32
    numbers: Sequence[int] | None  # of the n samples in their reader; None: an instance is not a sample
    names: Sequence[str]  # n
    fields: Sequence[Mapping[str, str]]  # n, what the reader describes; empty: nothing
    pictures: Sequence[Picture] | None  # n of at most SIDE × SIDE pixels
    said: Sequence[str] = ()  # what a reader of the page should know


def look(source: Source, numbers: Tensor) -> Samples:
    """Embed samples and keep what a person sees of them; a plugin that fails to draw costs its pictures alone.

    Raises:
        UserError: not one sample could be read.
    """
    pictures: list[Picture] | None = []
    said: list[str] = []

    def see(_: Tensor, batch: Batch) -> None:
        nonlocal pictures
        if pictures is None:
            return
        try:
            found = drawn(source.reader, batch, "do without pictures")
        except UserError as error:
            said.append(f"No pictures: {error}.")
            found = None
        pictures = None if found is None else [*pictures, *(small(one, SIDE) for one in found)]

    sources = (source.encoder, source.reader, source.view, source.registry)
    made = embed(*sources, indices=numbers, device=source.device, see=see)
    instances = made.instances[:MOST]
    if len(made.instances) != len(made.indices):
        names = [f"instance {number}" for number in range(len(instances))]
        return Samples(instances, None, names, [], None)
    indices = made.indices.tolist()
    if pictures is not None and len(pictures) != len(indices):
        said.append(f"No pictures: the reader drew {len(pictures)} of {len(indices)} samples.")
        pictures = None
    names = [source.reader.name(index) for index in indices]
    fields: list[Mapping[str, str]] = []
    try:
        fields = [source.reader.describe(index) for index in indices]
    except Exception as error:  # whatever a plugin does wrong
        said.append(f"Samples are not described: {type(error).__name__}: {one_line(error)}.")
    return Samples(instances, indices, names, fields, pictures, said)
