"""Segments of long MP3 files by an index of their frames: the samples that the whole file decodes to, and no noise."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from unlabeled_audio import mp3
from unlabeled_audio.decoding import decode
from unlabeled_audio.readers import AudioReader

SECONDS = 18
KINDS = {"mpeg1 stereo": (44100, 2), "mpeg1 mono": (32000, 1), "mpeg2 mono": (16000, 1), "mpeg2.5 stereo": (8000, 2)}


def sound(rate: int, channels: int, seconds: int = SECONDS) -> np.ndarray[Any, Any]:
    """A rising tone in noise, which makes frames read from those before them; silence in the middle third."""
    chance, t = np.random.default_rng(0), np.arange(rate * seconds) / rate
    tone = 0.3 * np.sin(2 * np.pi * (100 + 20 * t) * t)[:, None] + 0.05 * chance.standard_normal((len(t), channels))
    tone[len(t) // 3 : 2 * len(t) // 3] *= 0.001
    return tone.astype(np.float32)


@pytest.fixture(params=[("CONSTANT", kind) for kind in KINDS] + [("VARIABLE", "mpeg1 stereo")], ids="-".join)
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    mode, kind = request.param
    rate, channels = KINDS[kind]
    out = tmp_path / "long.mp3"
    sf.write(out, sound(rate, channels), rate, bitrate_mode=mode, compression_level=0.5)
    monkeypatch.setattr(mp3, "LEAST", 1000)
    return out


def index_of(path: Path) -> mp3.Index | None:
    state = os.stat(path)
    return mp3.index(str(path), (state.st_size, state.st_mtime_ns))


def test_segments_are_those_of_the_whole_file(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole, rate = sf.read(path, dtype="float32", always_2d=True)
    known = index_of(path)
    assert known is not None
    assert abs(len(known) * known.frame - len(whole)) < 4000
    places = [0, 1, 1151, rate, rate * SECONDS // 3 + 5, rate * SECONDS // 2, len(whole) - rate]
    for start in places:
        part = mp3.segment(str(path), start, rate)
        assert part is not None
        np.testing.assert_allclose(part, whole[start : start + rate], atol=1e-5)
        np.testing.assert_allclose(decode(str(path), start, rate, None), part.mean(1), atol=1e-6)
    assert capfd.readouterr().err == "", "a decoder that lacks frames complains"


def test_a_reader_takes_segments(path: Path) -> None:
    whole, rate = sf.read(path, dtype="float32", always_2d=True)
    reader = AudioReader(str(path), segment=2.0, sample_rate=rate)
    assert len(reader) == SECONDS // 2
    np.testing.assert_allclose(reader[3]["wave"].numpy(), whole[6 * rate : 8 * rate].mean(1), atol=1e-5)


def test_tags_before_and_after_are_no_frames(path: Path) -> None:
    plain, data = index_of(path), path.read_bytes()
    assert plain is not None
    tag = b"ID3\x04\x00\x00\x00\x00\x02\x01" + bytes(257)
    path.write_bytes(tag + data + b"TAG" + bytes(125))
    known = index_of(path)
    assert known is not None
    assert (known.starts == plain.starts + len(tag)).all()
    path.write_bytes(data[:-7])
    cut = index_of(path)
    assert cut is not None
    assert len(cut) == len(plain) - 1


def test_what_is_no_row_of_frames_is_left_to_the_decoder(path: Path) -> None:
    data = path.read_bytes()
    half = len(data) // 2
    for wrong in (data[:half] + bytes(3000) + data[half:], b"RIFF" + bytes(5000), data[: len(data) // 50], data[:2]):
        path.write_bytes(wrong)
        assert index_of(path) is None
    path.write_bytes(b"")
    assert mp3.segment(str(path), 0, 10) is None
    assert mp3.segment(str(path.with_name("other.mp3")), 0, 10) is None
    assert mp3.segment("sound.flac", 0, 10) is None


def test_frames_that_decode_to_something_else_are_not_trusted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = mp3._scanned

    def skewed(data: bytes) -> mp3.Index:
        found = true(data)
        assert found is not None
        return replace(found, skip=found.skip + 1)

    monkeypatch.setattr(mp3, "_scanned", skewed)
    mp3.index.cache_clear()
    assert index_of(path) is None
    mp3.index.cache_clear()


def test_short_files_and_most_of_a_file_are_decoded_as_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = sf.info(path).frames
    assert mp3.segment(str(path), 0, frames) is None
    monkeypatch.setattr(mp3, "LEAST", 1 << 30)
    assert mp3.segment(str(path), 0, 100) is None
