"""What the reader finds, reads and calls a clip: formats, manifests, segments, rates, channels, labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from sounds import RATE, tone
from unlabeled.errors import UserError
from unlabeled_audio.decoding import resample
from unlabeled_audio.features import Mel, frames_of, log_mel
from unlabeled_audio.readers import AudioReader

Save = Callable[..., str]


@pytest.mark.parametrize(
    ("name", "form", "close"),
    [
        ("a.wav", {"subtype": "PCM_16"}, 1e-4),
        ("a.wav", {"subtype": "PCM_U8"}, 1e-2),
        ("a.wav", {"subtype": "FLOAT"}, 1e-7),
        ("a.flac", {}, 1e-4),
        ("a.ogg", {}, 0.1),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}, 0.2),
        ("a.mp3", {}, 0.1),
    ],
)
def test_formats_give_the_same_sound(save: Save, name: str, form: dict[str, str], close: float) -> None:
    wave = tone(0.5)
    sample = AudioReader(save(name, wave, **form))[0]
    assert sample["wave"].dtype == torch.float32
    assert int(sample["length"]) == len(sample["wave"])
    assert abs(len(sample["wave"]) - len(wave)) < 0.05 * len(wave)
    middle = slice(1000, 3000)
    powers = [float(np.square(x[middle]).mean()) for x in (wave, sample["wave"].numpy())]
    assert powers[1] == pytest.approx(powers[0], rel=max(close, 1e-3))


def test_the_suffix_is_not_believed(save: Save, tmp_path: Path) -> None:
    Path(save("a.flac", tone(0.3))).rename(tmp_path / "a.wav")
    assert len(AudioReader(str(tmp_path / "a.wav"))[0]["wave"]) == 2400


def test_folders_globs_and_several_sources(save: Save, tmp_path: Path) -> None:
    for name in ("b/2.wav", "b/1.wav", "a/3.flac"):
        save(name, tone(0.2))
    (tmp_path / "b" / "notes.txt").write_text("no sound")
    (tmp_path / "b" / "._1.wav").write_text("a Mac's shadow file")
    folder = AudioReader(str(tmp_path))
    assert [folder.name(index) for index in range(len(folder))] == ["a/3.flac", "b/1.wav", "b/2.wav"]
    assert len(AudioReader(f"{tmp_path}/b/*.wav")) == 2
    assert len(AudioReader(f"{tmp_path}/**/*")) == 3
    both = AudioReader(f"{tmp_path}/b/*.wav, {tmp_path}/a")
    assert [Path(both.name(index)).name for index in range(3)] == ["1.wav", "2.wav", "3.flac"]
    assert folder.labels("folder").tolist() == ["a", "b", "b"]
    for nothing, words in ((str(tmp_path / "c"), "does not exist"), (f"{tmp_path}/*.wav", "matches no audio file")):
        with pytest.raises(UserError, match=words):
            AudioReader(nothing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no audio files"):
        AudioReader(str(tmp_path / "empty"))


def test_manifests_with_labels_and_parts(save: Save, tmp_path: Path) -> None:
    whole = tone(1.0) * np.linspace(0, 1, RATE, dtype=np.float32)
    save("sounds/a.wav", whole, subtype="FLOAT")
    save("sounds/b.wav", tone(0.4))
    (tmp_path / "list.csv").write_text(
        "path,kind,age,start,end\nsounds/a.wav,dog,3,0.25,0.5\nsounds/a.wav,cat,,0.5,\nsounds/b.wav,dog,4.5,,\n"
    )
    reader = AudioReader(str(tmp_path / "list.csv"))
    assert [len(reader[index]["wave"]) for index in range(3)] == [2000, 4000, 3200]
    assert np.array_equal(reader[0]["wave"], whole[2000:4000])
    assert reader.labels("kind").tolist() == ["dog", "cat", "dog"]
    assert np.array_equal(reader.labels("age"), [3.0, np.nan, 4.5], equal_nan=True)
    assert reader.name(0) == "sounds/a.wav @ 0.25 s"
    lines = [json.dumps({"audio": "sounds/b.wav", "kind": 7}), json.dumps({"audio": "sounds/a.wav", "kind": 8})]
    (tmp_path / "list.jsonl").write_text("\n".join(lines) + "\n")
    assert AudioReader(str(tmp_path / "list.jsonl")).labels("kind").tolist() == [7.0, 8.0]
    (tmp_path / "list.tsv").write_text(f"{tmp_path}/sounds\na.wav\t8000\nb.wav\t3200\n")
    fairseq = AudioReader(str(tmp_path / "list.tsv"))
    assert [fairseq.name(index) for index in range(len(fairseq))] == ["a.wav", "b.wav"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path\n", "lists no clips"),
        ("what,kind\na,b\n", "has no column of paths"),
        ("path,start,end\na.wav,2,1\n", "a part ends after it starts"),
        ("path,start\na.wav,soon\n", "both are seconds"),
    ],
)
def test_manifests_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        AudioReader(str(tmp_path / "list.csv"))


def test_a_manifest_of_files_that_are_elsewhere_says_where_they_were_looked_for(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    manifest = tmp_path / "meta" / "esc50.csv"
    manifest.write_text("filename,fold\n1-100032-A-0.wav,1\n1-100038-A-14.wav,1\n")
    with pytest.raises(UserError, match=f"no file {tmp_path}/meta/1-100032-A-0.wav; what a manifest names is relative"):
        AudioReader(str(manifest))


def test_long_files_are_cut_and_only_the_segment_is_decoded(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 10 * RATE + 100).astype(np.float32)
    reader = AudioReader(save("long.flac", wave, subtype="PCM_16"), segment=3.0)
    assert len(reader) == 4
    assert [reader.name(index) for index in (0, 3)] == ["long.flac @ 0 s", "long.flac @ 9 s"]
    assert [round(x, 4) for x in reader.span(3)] == [9.0, 10.0125]
    parts = [reader[index]["wave"].numpy() for index in (2, 0, 3, 1)]
    joined = np.concatenate([parts[1], parts[3], parts[0], parts[2]])
    assert np.abs(joined - wave).max() < 1e-4
    asked: list[int] = []
    read = sf.SoundFile.read
    monkeypatch.setattr(
        sf.SoundFile, "read", lambda self, frames, **how: (asked.append(frames), read(self, frames, **how))[1]
    )
    reader[1]
    assert asked == [3 * RATE]


def test_rates_are_brought_to_one_and_the_kernel_is_made_once(save: Save, tmp_path: Path) -> None:
    save("a.wav", tone(0.5, 300))
    save("b.wav", tone(0.5, 300))
    save("c.wav", tone(0.5, 300, 22050), 22050)
    reader = AudioReader(str(tmp_path))
    assert reader.facts["mel"]["rate"] == RATE, "the commonest"
    resampled = reader[2]["wave"]
    assert len(resampled) == 4000
    assert float((resampled - torch.from_numpy(tone(0.5, 300)))[100:-100].abs().max()) < 5e-3
    from unlabeled_audio.decoding import _resampler

    made = _resampler.cache_info().misses
    resample(torch.zeros(100), 22050, RATE)
    assert _resampler.cache_info().misses == made
    other = AudioReader(str(tmp_path), facts=AudioReader(str(tmp_path), sample_rate=16000).facts)
    assert [len(other[index]["wave"]) for index in range(3)] == [8000] * 3


def test_channels_are_mixed_or_chosen(save: Save) -> None:
    left, right = tone(0.2, 300), tone(0.2, 500)
    path = save("stereo.wav", np.stack([left, right], 1), subtype="FLOAT")
    assert np.allclose(AudioReader(path)[0]["wave"], (left + right) / 2, atol=1e-6)
    assert np.allclose(AudioReader(path, channel=1)[0]["wave"], right, atol=1e-6)
    many = save("thirty.wav", np.repeat(left[:, None], 30, 1))
    assert np.allclose(AudioReader(many)[0]["wave"], left, atol=1e-3)


def test_labels_come_from_names(save: Save, tmp_path: Path) -> None:
    for name in ("3_anna_0", "3_bo_1", "7_anna_2", "odd"):
        save(f"{name}.wav", tone(0.1))
    reader = AudioReader(str(tmp_path))
    assert np.array_equal(reader.labels("{digit}_*"), [3, 3, 7, np.nan], equal_nan=True)
    assert reader.labels("*_{speaker}_*").tolist() == ["anna", "bo", "anna", ""]
    named = AudioReader(str(tmp_path), pattern="{digit}_{speaker}_{take}")
    assert named.labels("speaker").tolist() == ["anna", "bo", "anna", ""]
    with pytest.raises(UserError, match="did you mean speaker"):
        named.labels("speakr")
    with pytest.raises(UserError, match="fits no name"):
        reader.labels("{a}+*+")
    with pytest.raises(UserError, match="one field in braces"):
        reader.labels("{a}_{b}")


def test_facts_are_fitted_once_and_tell_the_features(reader: AudioReader, example: str, save: Save) -> None:
    values = []
    for index in range(len(reader)):
        if "broken" not in reader.name(index):
            sample = reader[index]
            mel = Mel(**{**reader.facts["mel"], "mean": 0.0, "std": 1.0})
            values.append(log_mel(sample["wave"][None], sample["length"][None], mel).flatten())
    every = torch.cat(values)
    assert reader.facts["mel"]["mean"] == pytest.approx(float(every.mean()), abs=1e-3)
    assert reader.facts["mel"]["std"] == pytest.approx(float(every.std()), rel=1e-3)
    other = AudioReader(save("loud.wav", tone(0.5, loud=0.9)), facts=reader.facts)
    assert other.facts == reader.facts


def test_padding_changes_no_feature(reader: AudioReader) -> None:
    wave = reader[1]["wave"]
    alone = log_mel(wave[None], torch.tensor([len(wave)]), reader.mel)
    padded = log_mel(torch.nn.functional.pad(wave, (0, 5000))[None], torch.tensor([len(wave)]), reader.mel)
    count = int(frames_of(torch.tensor(len(wave)), reader.mel))
    assert alone.shape[2] == count
    assert torch.allclose(alone, padded[..., :count], atol=1e-5)
    assert not padded[..., count:].any()


def test_a_tone_is_in_its_band(save: Save) -> None:
    from torchaudio.transforms import MelSpectrogram

    reader = AudioReader(save("tone.wav", tone(0.5, 1000)))
    mel = log_mel(reader[0]["wave"][None], reader[0]["length"][None], reader.mel)[0]
    theirs = MelSpectrogram(RATE, n_fft=512, hop_length=80, f_min=60, f_max=3900, n_mels=64, pad_mode="constant")
    expected = ((theirs(reader[0]["wave"]) + 1e-6).log() - reader.mel.mean) / reader.mel.std
    assert torch.allclose(mel, expected, atol=1e-3)


def test_silence_is_skipped_on_request(save: Save, tmp_path: Path) -> None:
    save("a.wav", tone(0.2))
    save("b.wav", tone(0.2, loud=1e-4))
    save("c.wav", np.zeros(800))
    assert len(AudioReader(str(tmp_path))) == 3
    quiet = AudioReader(str(tmp_path), silence=-60.0)
    assert [quiet.name(index) for index in range(len(quiet))] == ["a.wav"]
    assert any("2 silent samples are left out" in note for note in quiet.notices)
    with pytest.raises(UserError, match="every sample"):
        AudioReader(str(tmp_path / "c.wav"), silence=-60.0)


def test_digits_have_their_raw_baseline(digits: Path) -> None:
    reader = AudioReader(str(digits))
    assert len(reader) == 3000
    assert reader.facts["mel"]["rate"] == 8000
    counts = np.unique(reader.labels("*_{speaker}_*"), return_counts=True)
    assert dict(zip(*map(list, counts), strict=True))["george"] == 500
