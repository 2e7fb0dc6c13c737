"""Files as they come: each is read, or named with the cause and the way out, and training goes on without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sounds import RATE, tone
from unlabeled.errors import BrokenItem, UserError
from unlabeled.training.pretrain import pretrain
from unlabeled_audio.batches import collate
from unlabeled_audio.encoders import LogMelViT
from unlabeled_audio.readers import AudioReader

Save = Callable[..., str]


@pytest.fixture
def beside(save: Save, tmp_path: Path) -> Callable[[], AudioReader]:
    """A reader of the folder with a good clip, "good.wav", beside what a test puts there; "bad..." comes first."""
    save("good.wav", tone(0.3))
    return lambda **options: AudioReader(str(tmp_path), **options)


def half(path: str) -> None:
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) // 2])


def refused(reader: AudioReader, words: str) -> None:
    assert reader.name(0).startswith("bad")
    for _ in range(2):
        with pytest.raises(BrokenItem, match=words):
            reader[0]
    assert len(reader[1]["wave"]) == 2400
    assert np.isfinite(reader.raw()).all()


def test_zero_length(beside: Callable[[], AudioReader], tmp_path: Path) -> None:
    (tmp_path / "bad.wav").touch()
    refused(beside(), "the file is empty")


def test_header_only(beside: Callable[[], AudioReader], save: Save) -> None:
    save("bad.wav", np.zeros(0))
    refused(beside(), "a header and no sound")


def test_no_sound_file_at_all(beside: Callable[[], AudioReader], tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_text("hello")
    refused(beside(), "cannot be decoded: Format not recognised")


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_truncated(beside: Callable[[], AudioReader], save: Save, suffix: str) -> None:
    half(save(f"bad.{suffix}", np.random.default_rng(0).uniform(-0.5, 0.5, 3 * RATE)))
    refused(beside(), "truncated|cannot be decoded|no sound")


def test_a_wav_of_unknown_length_is_none_that_is_truncated(save: Save) -> None:
    path = Path(save("stream.wav", tone(0.3)))
    data = bytearray(path.read_bytes())
    data[40:44] = b"\xff\xff\xff\xff"  # as programs write to a pipe
    path.write_bytes(data)
    assert len(AudioReader(str(path))[0]["wave"]) == 2400


def test_rate_of_zero(beside: Callable[[], AudioReader], save: Save) -> None:
    path = Path(save("bad.wav", tone(0.3)))
    data = bytearray(path.read_bytes())
    data[24:28] = bytes(4)
    path.write_bytes(data)
    refused(beside(), "cannot be decoded|samples a second")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_number(beside: Callable[[], AudioReader], save: Save, value: float) -> None:
    wave = tone(0.3)
    wave[7] = value
    save("bad.wav", wave, subtype="FLOAT")
    refused(beside(), "1 of its samples are not finite")


def test_a_codec_without_decoder_is_named_with_the_way_out(beside: Callable[[], AudioReader], tmp_path: Path) -> None:
    (tmp_path / "bad.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A ")
    refused(beside(), r"no decoder for .m4a; `pip install torchcodec` .*, or convert it: ffmpeg -i bad.m4a bad.flac")


def test_a_channel_that_is_not_there(save: Save) -> None:
    reader = AudioReader(save("two.wav", np.zeros((800, 2)) + 0.1))
    with pytest.raises(UserError, match=r"not one sample of .*two.wav can be read"):
        AudioReader(str(save("two.wav", np.zeros((800, 2)) + 0.1)), channel=2)
    other = AudioReader(save("two.wav", np.zeros((800, 2)) + 0.1), facts=reader.facts, channel=2)
    with pytest.raises(BrokenItem, match="no channel 2, it has 2"):
        other[0]


@pytest.mark.parametrize(
    "wave",
    [np.zeros(2400), np.full(2400, 0.5), np.clip(5 * tone(0.3), -1, 1), tone(0.3)[:1], np.zeros(5)],
    ids=["silence", "direct current", "clipped", "one sample", "five samples of silence"],
)
def test_strange_sound_is_read_and_encoded(save: Save, wave: Any) -> None:
    reader = AudioReader(save("strange.wav", wave))
    batch = collate([reader[0]])
    encoder = LogMelViT(reader.facts, width=16, depth=1).eval()
    assert encoder(encoder.tokenize(batch)).instances.isfinite().all()


def test_inspection_says_what_it_hears(save: Save, tmp_path: Path) -> None:
    save("a.wav", np.full(800, 0.5))
    save("b.wav", np.clip(5 * tone(0.3), -1, 1))
    save("c.wav", tone(0.3, loud=5e-4))
    notes = " ".join(AudioReader(str(tmp_path)).notices)
    for words in ("1 of 3 samples looked at are constant", "are clipped", "stay below -60 dB"):
        assert words in notes


def test_nothing_readable_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("hello")
    with pytest.raises(UserError, match=r"not one of 1 files can be read; the first, a.wav: it cannot be decoded"):
        AudioReader(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"segment": 0.0}, "a length in seconds"),
        ({"channel": -1}, "count from 0"),
        ({"high": 5000.0}, "do not fit a rate of 8000 Hz"),
        ({"window": 1.0}, "window no shorter than the hop"),
        ({"mels": 0}, "all at least 1"),
    ],
)
def test_settings_that_contradict_each_other(example: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        AudioReader(example, **options)


def test_training_goes_on_without_broken_clips(example: str, tmp_path: Path) -> None:
    run = pretrain(
        "audio",
        example,
        "simclr",
        out=tmp_path / "run",
        encoder={"name": "cnn", "width": 16, "channels": 4},
        steps=6,
        batch_size=6,
        quiet=True,
    )
    assert run.step == 6
    assert "broken_header.wav" in (tmp_path / "run" / "quarantine.jsonl").read_text()
