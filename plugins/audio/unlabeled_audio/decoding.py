"""Audio files as samples in −1 … 1, by soundfile, else TorchCodec; what cannot be decoded is said in a sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlabeled.errors import BrokenItem
from unlabeled_audio import mp3, torchcodec
from unlabeled_audio.shards import located, members, opened
from unlabeled_audio.sources import ENCODED

if TYPE_CHECKING:
    from torchaudio.transforms import Resample

T = TypeVar("T")
MISSING = 0.9  # a file that gives less than this share of what its header promises is truncated; mp3 headers estimate


@dataclass(frozen=True, slots=True)
class Info:
    """What a file's header says."""

    rate: int  # Hz
    frames: int
    channels: int
    form: str  # "WAV PCM_16"


def probe(path: str) -> Info:
    """Read a header.

    Raises:
        BrokenItem: the file is absent or empty, or nothing here can decode it.
    """
    import soundfile as sf

    try:
        info: Any = sf.info(opened(path), verbose=True)
    except BrokenItem:
        raise
    except Exception as error:  # soundfile has an error type of its own, and wraps others
        other = _instead(path, torchcodec.header)
        if other is None:
            raise BrokenItem(_cause(path, error)) from None
        if other[0] < 1 or other[1] < 1:
            raise BrokenItem("it has a header and no sound") from None
        return Info(*other)
    if info.samplerate < 1:
        raise BrokenItem(f"its header says {info.samplerate} samples a second")
    if info.frames < 1:
        raise BrokenItem("it has a header and no sound")
    promised = _promised(str(info.extra_info))
    if promised and info.frames < MISSING * promised:
        raise BrokenItem(f"it is truncated: {info.frames} of {promised} frames are there")
    return Info(int(info.samplerate), int(info.frames), int(info.channels), f"{info.format} {info.subtype}")


def _promised(log: str) -> int:
    """Frames of a wav whose data chunk claims more than the file holds; 0: all is well, or its length was unknown."""
    fields = dict(line.split(":", 1) for line in log.splitlines() if ":" in line)
    data = {name.strip(): value for name, value in fields.items()}
    claim, _, correction = data.get("data", "").partition("(should be")
    if not correction or not claim.strip().isdigit() or int(claim) >= 0x7FFF0000:  # a stream's placeholder
        return 0
    align = data.get("Block Align", "").strip()
    return int(claim) // int(align) if align.isdigit() and int(align) else 0


def _instead(path: str, ask: Callable[..., T], *args: int) -> T | None:
    """What TorchCodec says of a file that soundfile has no decoder for; None where it is not there or fails too."""
    if Path(path).suffix.lower() not in ENCODED:
        return None
    try:
        return ask(opened(path), *args)
    except (ImportError, RuntimeError, OSError):  # absent, without FFmpeg, or no decoder there either
        return None


def _cause(path: str, error: Exception) -> str:
    inside = located(path)
    if inside is None and not os.path.exists(path):
        return f"there is no file {path}; what a manifest names is relative to the manifest's folder"
    if (os.path.getsize(path) if inside is None else members(inside[0])[inside[1]][1]) == 0:
        return "the file is empty"
    if Path(path).suffix.lower() in ENCODED:
        suffix = Path(path).suffix.lower()
        return (
            f"soundfile has no decoder for {suffix}; `pip install torchcodec` where there is FFmpeg, or convert it: "
            f"ffmpeg -i {Path(path).name} {Path(path).stem}.flac"
        )
    text = str(getattr(error, "error_string", error))
    return f"it cannot be decoded: {' '.join(text.split()).rstrip('.')}"


def decode(path: str, start: int, count: int, channel: int | None) -> NDArray[np.float32]:
    """[count] float32 from frame `start` on, by seeking; channels mixed by their mean, or one of them.

    Raises:
        BrokenItem: decoding fails, gives less than the header promises or values that are not finite, or the file has
            no such channel.
    """
    import soundfile as sf

    wave = mp3.segment(path, start, count)
    try:
        if wave is None:
            with sf.SoundFile(opened(path)) as file:
                if start:
                    file.seek(start)
                wave = file.read(count, dtype="float32", always_2d=True)
    except BrokenItem:
        raise
    except Exception as error:  # soundfile has an error type of its own, and wraps others
        wave = _instead(path, torchcodec.read, start, count)
        if wave is None:
            raise BrokenItem(_cause(path, error)) from None
    if len(wave) < MISSING * count:
        raise BrokenItem(f"it is truncated: {len(wave)} of {count} frames can be decoded")
    if channel is not None and channel >= wave.shape[1]:
        raise BrokenItem(f"it has no channel {channel}, it has {wave.shape[1]} (they count from 0)")
    mixed = channel is None and wave.shape[1] > 1
    mono = np.ascontiguousarray(wave.mean(1) if mixed else wave[:, channel or 0])
    if not np.isfinite(mono).all():
        raise BrokenItem(f"{int((~np.isfinite(mono)).sum())} of its samples are not finite")
    return mono


@lru_cache(maxsize=64)
def _resampler(old: int, new: int) -> Resample:
    """Windowed-sinc interpolation with its kernel, made once a pair of rates."""
    from torchaudio.transforms import Resample

    return Resample(old, new)


def resample(wave: Tensor, old: int, new: int) -> Tensor:
    """[..., S] at another rate: ceil(S × new / old) samples."""
    if old == new:
        return wave
    with torch.no_grad():
        out: Tensor = _resampler(old, new)(wave)
    return out
