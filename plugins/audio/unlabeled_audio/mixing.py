"""Sounds laid over sounds: background clips at a signal-to-noise ratio, and the echo of a room."""

from __future__ import annotations

import torch
from torch import Tensor

from unlabeled.errors import BrokenItem, UserError
from unlabeled.randomness import Draws
from unlabeled_audio.decoding import decode, probe, resample
from unlabeled_audio.sources import Clips, find

TRIES = 16  # clips tried in place of a broken one


class Pool:
    """Clips from which a view takes one at random; looked up when the first is asked for, in each process by itself."""

    def __init__(self, source: str, rate: int):
        self.source, self.rate = source, rate
        self.clips: Clips | None = None

    def take(self, draws: Draws, seconds: float | None = None) -> Tensor:
        """[S] a random clip, or a random part of it of at most so many seconds, at the pool's rate.

        Raises:
            UserError: no clip of the pool can be read.
        """
        clips = self.clips = self.clips or find(self.source)
        for _ in range(TRIES):
            path = clips.paths[int(draws.integers(0, len(clips.paths), 1))]
            place = float(draws.uniform(1))
            try:
                info = probe(path)
                count = info.frames if seconds is None else min(info.frames, round(seconds * info.rate) + 1)
                wave = decode(path, int(place * (info.frames - count + 1)), count, None)
            except BrokenItem:
                continue
            return resample(torch.from_numpy(wave), info.rate, self.rate)
        raise UserError(f"{TRIES} clips of {self.source} in a row cannot be read; choose another")


def at_ratio(wave: Tensor, noise: Tensor, ratio: Tensor | float) -> Tensor:
    """wave + noise, the noise scaled so that the powers' ratio is `ratio` dB; [..., S] both, repeated where shorter.

    Where either is silent there is no ratio, and the wave stays as it is.
    """
    count = wave.shape[-1]
    if noise.shape[-1] < count:
        noise = noise.repeat(*[1] * (noise.dim() - 1), -(-count // noise.shape[-1]))
    noise = noise[..., :count]
    signal, other = (x.square().mean(-1, keepdim=True) for x in (wave, noise))
    scale = (signal / (other.clamp(min=1e-20) * 10 ** (torch.as_tensor(ratio) / 10))).sqrt()
    return wave + torch.where((signal > 0) & (other > 1e-20), scale, 0.0) * noise


def in_room(wave: Tensor, impulse: Tensor) -> Tensor:
    """The wave as a room with this impulse response [R] gives it back, from the direct sound on, equally loud."""
    from torchaudio.functional import fftconvolve

    start = int(impulse.abs().argmax())
    out: Tensor = fftconvolve(wave, impulse)[start : start + len(wave)]
    out = out * (wave.square().sum() / out.square().sum().clamp(min=1e-20)).sqrt()
    return out
