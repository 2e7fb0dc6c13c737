"""Embeddings of every moment of a recording, however long, with the seconds that it spans."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlabeled.contract import Batch, Encoder, to_device
from unlabeled.data.batches import Broken
from unlabeled.embedding import whole_batches
from unlabeled.errors import UserError
from unlabeled.files import write_whole
from unlabeled.saved import describe, load
from unlabeled_audio.readers import AudioReader
from unlabeled_audio.tokens import LogMelEncoder
from unlabeled_audio.waves import FIELD, STRIDE, Wav2Vec2


@dataclass(frozen=True)
class Moments:
    """Rows in the order of files and time."""

    files: list[str]  # of each row
    start: NDArray[np.float64]  # [n] seconds in the file
    end: NDArray[np.float64]
    embeddings: NDArray[np.float32]  # [n, D]
    broken: list[Broken] = field(default_factory=list)


def embed_moments(run: str | Path, data: str, device: torch.device) -> Moments:
    """The tokens of a run's encoder on undisturbed samples, the mean of those of one time.

    A file longer than the run's --segment is encoded segment by segment, and what lies near a border knows one side.

    Raises:
        UserError: the run is of another domain, or no sample can be read.
    """
    saved = describe(run)
    if saved.domain != "audio":
        raise UserError(f"{run} holds an encoder of domain {saved.domain!r}, which has no moments of sound")
    reader = saved.make_reader(data)
    assert isinstance(reader, AudioReader)
    encoder, view = load(run).to(device), saved.make_view()
    every = torch.arange(len(reader))
    broken: list[Broken] = []
    names: list[str] = []
    spans: list[NDArray[np.float64]] = []
    rows: list[NDArray[np.float32]] = []
    for numbers, batch, bad in whole_batches(reader, view, saved.registry, every, reader.embed_batch):
        broken += bad
        made = _moments(encoder, to_device(batch, device)) if batch else []
        for index, one in zip(numbers.tolist(), made, strict=True):
            rows.append(one.cpu().numpy())
            spans.append(reader.span(index)[0] + _spans(encoder, len(one)) / reader.mel.rate)
            names += [reader.clips.names[int(reader.rows[index, 0])]] * len(one)
    if not rows:
        raise UserError(f"not one sample of {data} can be read; the first: {broken[0].reason}")
    span = np.concatenate(spans)
    return Moments(names, span[:, 0], span[:, 1], np.concatenate(rows), broken)


@torch.no_grad()
def _moments(encoder: Encoder, batch: Batch) -> list[Tensor]:
    """[times, D] of each sample."""
    tokens = encoder.tokenize(batch)
    out = encoder(tokens).tokens
    height = encoder.rows if isinstance(encoder, LogMelEncoder) else 1
    mean = out.unflatten(1, (-1, height)).mean(2).float()
    counts = (tokens.valid.sum(1) // height).tolist()
    return [row[:count] for row, count in zip(mean, counts, strict=True)]


def _spans(encoder: Encoder, count: int) -> NDArray[np.float64]:
    """[count, 2] first and last sample of each time: a frame of a log-mel stands for a hop around its middle."""
    place = np.arange(count, dtype=np.float64)[:, None]
    if isinstance(encoder, Wav2Vec2):
        frames: NDArray[np.float64] = place * STRIDE + np.array([0, FIELD])
        return frames
    assert isinstance(encoder, LogMelEncoder)
    step = encoder.patch_frames * encoder.mel.hop
    spans: NDArray[np.float64] = (place * step + np.array([0, step]) - encoder.mel.hop / 2).clip(min=0)
    return spans


def save(made: Moments, path: Path) -> None:
    """Write .npz: files, start, end, embeddings."""
    arrays: dict[str, Any] = {"files": np.array(made.files), "embeddings": made.embeddings}
    write_whole(path, lambda file: np.savez(file, start=made.start, end=made.end, **arrays))
