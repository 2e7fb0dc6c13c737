"""What soundfile has no decoder for (AAC in .m4a and .mp4, WMA, AMR …), by TorchCodec and FFmpeg where installed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _decoder(file: str | io.BufferedReader) -> Any:
    """TorchCodec's decoder of a file.

    Raises:
        ImportError: TorchCodec is not installed.
        RuntimeError, OSError: it finds no FFmpeg, or FFmpeg cannot decode the file.
    """
    from torchcodec.decoders import AudioDecoder

    return AudioDecoder(file)


def header(file: str | io.BufferedReader) -> tuple[int, int, int, str]:
    """Rate, frames, channels and codec of a file; the frames are those of its stated duration."""
    said = _decoder(file).metadata
    rate = int(said.sample_rate)
    return rate, round(float(said.duration_seconds or 0.0) * rate), int(said.num_channels), str(said.codec).upper()


def read(file: str | io.BufferedReader, start: int, count: int) -> NDArray[np.float32]:
    """[count or fewer, channels] from a frame on; times are rounded to the frame, so that none is lost or doubled."""
    decoder = _decoder(file)
    rate = int(decoder.metadata.sample_rate)
    part = decoder.get_samples_played_in_range(start / rate, (start + count + 1) / rate)
    skipped = start - round(float(part.pts_seconds) * rate)
    wave: NDArray[np.float32] = part.data.numpy().T[max(skipped, 0) :][:count]
    return wave
