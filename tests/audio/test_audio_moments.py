"""Embeddings with time stamps: every moment once, in order, at its own seconds, across segments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from sounds import RATE
from unlabeled.cli.main import main
from unlabeled.errors import UserError
from unlabeled.training.pretrain import pretrain
from unlabeled_audio.commands import embed_frames
from unlabeled_audio.moments import embed_moments

ENCODERS = {
    "vit": {"name": "vit", "width": 16, "depth": 1},
    "cnn": {"name": "cnn", "width": 16, "channels": 4},
    "wav2vec2": {"name": "wav2vec2", "width": 32, "depth": 1, "channels": 8},
}


@pytest.mark.parametrize("name", ENCODERS)
def test_moments_follow_each_other_and_point_at_the_sound(example: str, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    pretrain(
        "audio",
        example,
        "simclr",
        out=run,
        encoder=ENCODERS[name],
        reader={"segment": 2.0},
        steps=1,
        batch_size=6,
        quiet=True,
    )
    wave = np.zeros(5 * RATE, np.float32)
    wave[3 * RATE + 2000 : 3 * RATE + 2400] = 0.8 * np.sin(np.arange(400))  # a click at 3.25 s, in the second segment
    sf.write(tmp_path / "long.wav", wave, RATE)
    sf.write(tmp_path / "still.wav", 0 * wave, RATE)
    made = embed_moments(run, f"{tmp_path}/*.wav", torch.device("cpu"))
    files = np.array(made.files)
    click, still = (files == str(tmp_path / name) for name in ("long.wav", "still.wav"))
    assert click.sum() == still.sum() == len(files) / 2
    start, end = made.start[click], made.end[click]
    assert (np.diff(start) > 0).all()
    assert start[0] == 0
    assert 4.9 < end[-1] <= 5.1
    if name == "cnn":  # a convolution sees the click near it alone
        changed = np.abs(made.embeddings[click] - made.embeddings[still]).max(1) > 1e-5
        assert 0 < changed.sum() < 10
        assert start[changed].min() <= 3.25 <= end[changed].max()
        assert np.abs(start[changed] - 3.25).max() < 0.4


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"call it .*frames\.npz"):
        embed_frames(["run", "data", "-o", str(tmp_path / "frames.csv")])
    assert main(["audio", "embed-frames", str(tmp_path / "no"), "x", "-o", "a.npz"]) == 2
