"""Clips in tar files: read where they lie, with what their shard says of them, whole or damaged."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch

from sounds import RATE, tone
from unlabeled.errors import BrokenItem, UserError
from unlabeled_audio import shards
from unlabeled_audio.readers import AudioReader

NOTES = {"low": 220.0, "mid": 440.0, "high": 880.0}


def encoded(hertz: float, seconds: float = 0.5, form: str = "WAV") -> bytes:
    import soundfile as sf

    out = io.BytesIO()
    sf.write(out, tone(seconds, hertz), RATE, format=form)
    return out.getvalue()


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            one = tarfile.TarInfo(name)
            one.size = len(content)
            tar.addfile(one, io.BytesIO(content))
    return path


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    files: dict[str, bytes] = {}
    for number, (note, hertz) in enumerate(NOTES.items()):
        files[f"a/{number:03}.flac"] = encoded(hertz, form="FLAC")
        files[f"a/{number:03}.json"] = json.dumps({"note": note, "take": number, "more": {"x": 1}}).encode()
        files[f"a/{number:03}.cls"] = f"{number}\n".encode()
    return pack(tmp_path / "clips-000.tar", files)


def test_members_are_the_same_as_files(shard: Path, tmp_path: Path) -> None:
    reader = AudioReader(str(shard))
    for number, (note, hertz) in enumerate(NOTES.items()):
        (tmp_path / "alone").mkdir(exist_ok=True)
        (tmp_path / "alone" / f"{note}.flac").write_bytes(encoded(hertz, form="FLAC"))
        alone = AudioReader(str(tmp_path / "alone" / f"{note}.flac"), facts=reader.facts)
        assert torch.equal(reader[number]["wave"], alone[0]["wave"])
    assert [reader.name(number) for number in range(3)] == [f"clips-000.tar/a/{number:03}.flac" for number in range(3)]
    assert reader.labels("note").tolist() == list(NOTES)
    assert reader.labels("cls").tolist() == [0, 1, 2]
    assert set(reader.labels("folder").tolist()) == {"a"}
    with pytest.raises(UserError, match="more"):
        reader.labels("more")


def test_long_members_are_cut_and_sought_in(tmp_path: Path) -> None:
    reader = AudioReader(str(pack(tmp_path / "long.tar", {"x.wav": encoded(300.0, 2.0)})), segment=0.5)
    assert len(reader) == 4
    whole = torch.from_numpy(tone(2.0, 300.0))
    third = round(1.0 * RATE)
    torch.testing.assert_close(reader[2]["wave"], whole[third : third + RATE // 2], atol=1e-4, rtol=0)


def test_shards_stand_beside_files_in_a_folder(shard: Path) -> None:
    (shard.parent / "plain.wav").write_bytes(encoded(500.0))
    pack(shard.parent / "clips-001.tar", {"b.wav": encoded(600.0)})
    reader = AudioReader(str(shard.parent))
    assert len(reader) == 5
    assert reader.labels("note").tolist() == [*NOTES, "", ""]
    assert len(AudioReader(str(shard.parent / "clips-*.tar"))) == 4


def test_a_truncated_shard_gives_what_is_there(tmp_path: Path) -> None:
    whole = pack(tmp_path / "cut.tar", {f"{note}.wav": encoded(hertz) for note, hertz in NOTES.items()})
    start, size = shards.members(str(whole))["high.wav"]
    content = whole.read_bytes()
    cut = tmp_path / "cut2.tar"
    cut.write_bytes(content[: start + size // 2])
    reader = AudioReader(str(cut))
    assert len(reader) == 3
    assert reader[1]["wave"].isfinite().all()
    with pytest.raises(BrokenItem, match=r"truncated: cut2\.tar ends before"):
        reader[2]


def test_what_is_wrong_is_said(tmp_path: Path, shard: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"1")
    with pytest.raises(UserError, match=r"compressed.*unpack it"):
        AudioReader(str(tmp_path / "x.tar.gz"))
    (tmp_path / "not.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(UserError, match="not a readable tar"):
        AudioReader(str(tmp_path / "not.tar"))
    with pytest.raises(UserError, match="holds no audio"):
        AudioReader(str(pack(tmp_path / "text.tar", {"a.txt": b"hello"})))
    with pytest.raises(UserError, match=r"a.json, which cannot be read"):
        AudioReader(str(pack(tmp_path / "bad.tar", {"a.wav": encoded(400.0), "a.json": b"{"})))
    with pytest.raises(BrokenItem, match="has no member"):
        shards.opened(f"{shard}/nothing.wav")
    empty = AudioReader(str(pack(tmp_path / "mixed.tar", {"a.wav": encoded(400.0), "b.wav": b""})))
    with pytest.raises(BrokenItem, match="empty"):
        empty[1]
