"""What is asked of TorchCodec, of a stand-in: neither it nor FFmpeg is there wherever tests run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from sounds import RATE, tone
from unlabeled.errors import BrokenItem
from unlabeled_audio.decoding import decode, probe

SOUND = torch.from_numpy(tone(2.0, 300.0))


class AudioDecoder:
    """Two channels, the second of half the loudness; ranges begin with the frame that is being played."""

    def __init__(self, source: Any):
        content = Path(source).read_bytes() if isinstance(source, str) else source.read()
        if content != b"sound":
            raise RuntimeError("Invalid data found when processing input")
        self.metadata = SimpleNamespace(sample_rate=RATE, duration_seconds=2.0, num_channels=2, codec="aac")

    def get_samples_played_in_range(self, start: float, stop: float) -> Any:
        first, last = int(start * RATE), min(round(stop * RATE), len(SOUND))
        data = torch.stack([SOUND[first:last], SOUND[first:last] / 2])
        return SimpleNamespace(data=data, pts_seconds=first / RATE, sample_rate=RATE)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    decoders = ModuleType("torchcodec.decoders")
    decoders.AudioDecoder = AudioDecoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)


def test_what_soundfile_cannot_decode_is_read_by_it(installed: None, tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    path.write_bytes(b"sound")
    info = probe(str(path))
    assert (info.rate, info.frames, info.channels, info.form) == (RATE, 2 * RATE, 2, "AAC")
    for start, count in ((0, 2 * RATE), (7, 100), (3333, 1), (2 * RATE - 5, 5)):
        wave = decode(str(path), start, count, 0)
        torch.testing.assert_close(torch.from_numpy(wave), SOUND[start : start + count], rtol=0, atol=0)
    torch.testing.assert_close(torch.from_numpy(decode(str(path), 0, 50, None)), SOUND[:50] * 0.75)


def test_what_it_cannot_decode_either_is_broken(installed: None, tmp_path: Path) -> None:
    (tmp_path / "b.m4a").write_bytes(b"noise")
    with pytest.raises(BrokenItem, match=r"no decoder for \.m4a"):
        probe(str(tmp_path / "b.m4a"))
    (tmp_path / "c.wav").write_bytes(b"sound")
    with pytest.raises(BrokenItem, match="cannot be decoded"):
        probe(str(tmp_path / "c.wav"))


def test_without_ffmpeg_it_is_as_if_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Loud(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("Could not load libtorchcodec")

    monkeypatch.setitem(sys.modules, "torchcodec", Loud("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", Loud("torchcodec.decoders"))
    (tmp_path / "b.m4a").write_bytes(b"sound")
    with pytest.raises(BrokenItem, match="pip install torchcodec"):
        probe(str(tmp_path / "b.m4a"))
