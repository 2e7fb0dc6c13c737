"""Tiny clips shaped like real ones, for tests and the conformance kit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

RATE = 8000


def write(folder: Path) -> str:
    """Twelve clips of two classes and uneven length, one of them stereo at another rate, and one that is damaged."""
    import soundfile as sf

    chance = np.random.default_rng(0)
    for number in range(12):
        rate = 2 * RATE if number == 3 else RATE
        time = np.arange(int(rate * chance.uniform(0.15, 0.6))) / rate
        sweep = (300 + 40 * number) * time + (600 * time**2 if number % 2 else 0)
        wave = np.sin(2 * np.pi * sweep) * np.hanning(len(time)) * 0.5 + 0.01 * chance.standard_normal(len(time))
        stereo = np.stack([wave, 0.5 * wave], 1) if number == 3 else wave
        suffix = "flac" if number % 5 == 4 else "wav"
        sf.write(folder / f"{'rise' if number % 2 else 'hold'}_{number}.{suffix}", stereo, rate)
    (folder / "broken_header.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVEfmt ")
    return str(folder)
