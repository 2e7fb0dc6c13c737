"""Checkpoints, encoders and run folders that are damaged, foreign or cannot be written: one sentence, nothing lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from unlabeled.errors import UserError
from unlabeled.files import write_text, write_whole
from unlabeled.saved import describe, load
from unlabeled.training import checkpoint
from unlabeled.training.pretrain import pretrain


def train(out: Path, method: str = "simclr", **options: Any) -> Any:
    small = {"steps": 4, "batch_size": 64, "checkpoint_every": 2, "quiet": True}
    return pretrain("toy", "digits", method, out=out, **{**small, **options})


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    train(tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_checkpoint_is_named_with_the_last_good_one(trained: Path, damage: str) -> None:
    path = trained / "checkpoints" / "step-00000004.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes({"cut": data[: len(data) // 2], "flipped": data, "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(UserError, match=r"step-00000004.pt is damaged.*remove it to go on from step-00000002.pt"):
        train(trained, resume=True)
    path.unlink()
    assert train(trained, resume=True).step == 4


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "owned"),))

    torch.save({"format": 1, "model": Evil()}, tmp_path / "step-00000001.pt")
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(tmp_path / "step-00000001.pt")
    assert not (tmp_path / "owned").exists()


def test_a_full_disk_loses_nothing(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in (trained / "checkpoints").iterdir()}

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        UserError, match=r"cannot save .*: No space left on device; make room .* nothing older was lost"
    ):
        checkpoint.save(trained / "checkpoints", 9, {"x": torch.zeros(3)}, keep=1)
    assert {path: path.read_bytes() for path in (trained / "checkpoints").iterdir()} == before


def test_a_really_full_disk_stops_the_run_with_one_sentence(tmp_path: Path, command: Any) -> None:
    """A limit on the size of files stands in for a full disk: the system refuses the write in the same way."""
    line = "toy pretrain digits --method byol --steps 4 --batch-size 64 --encoder.width 256 --out run".split()

    def limit() -> None:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = command(*line, preexec_fn=limit)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("unlabeled: cannot save run/checkpoints/step-00000001.pt: ")
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run" / "checkpoints").iterdir()), "no partial file is left"


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")

    def half(file: Any) -> None:
        file.write(b"ne")
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(UserError, match="Input/output error"):
        write_whole(tmp_path / "file", half)
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_is_not_overwritten_and_not_mixed_up(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="already holds a run: add --resume"):
        train(trained)
    with pytest.raises(UserError, match="was made with method 'simclr', not 'byol'"):
        train(trained, "byol", resume=True)
    with pytest.raises(UserError, match=r"was made with --lr 0.001, not 0.5"):
        train(trained, lr=0.5, resume=True)
    with pytest.raises(UserError, match="holds no run"):
        train(tmp_path / "nothing", resume=True)
    with pytest.raises(UserError, match="encoder"):
        train(trained, encoder={"name": "vit", "width": 64}, resume=True)


def test_a_checkpoint_of_another_encoder_is_named(trained: Path, tmp_path: Path) -> None:
    train(tmp_path / "wide", encoder={"name": "vit", "width": 64})
    for path in (trained / "checkpoints").iterdir():
        path.write_bytes((tmp_path / "wide" / "checkpoints" / path.name).read_bytes())
    with pytest.raises(UserError, match="is of another encoder or method"):
        train(trained, resume=True)


def test_a_damaged_or_foreign_encoder_is_named(trained: Path, tmp_path: Path) -> None:
    weights, description = trained / "encoder" / "encoder.safetensors", trained / "encoder" / "encoder.json"
    good, text = weights.read_bytes(), description.read_text()
    weights.write_bytes(good[: len(good) // 2])
    with pytest.raises(UserError, match="is damaged"):
        load(trained)
    train(tmp_path / "wide", encoder={"name": "vit", "width": 64})
    weights.write_bytes((tmp_path / "wide" / "encoder" / "encoder.safetensors").read_bytes())
    with pytest.raises(UserError, match="are not those of encoder 'vit'"):
        load(trained)
    weights.unlink()
    with pytest.raises(UserError, match="is damaged"):
        load(trained)
    description.write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match="damaged"):
        describe(trained)
    with pytest.raises(UserError, match="does not exist"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no encoder yet"):
        load(tmp_path / "empty")


def test_data_that_changed_are_refused_on_resume(trained: Path) -> None:
    facts = trained / "facts.json"
    facts.write_text(facts.read_text().replace("1797", "1800"))
    with pytest.raises(UserError, match="has 1797 samples and had 1800"):
        train(trained, resume=True)
