"""MedMNIST by name: from a folder, or by the library, here a stand-in for it."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlabeled.errors import UserError
from unlabeled_medical.readers import VolumeReader


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(0)
    arrays = {f"{part}_images": chance.integers(0, 255, (n, 8, 8, 8), dtype=np.uint8) for part, n in PARTS.items()}
    arrays |= {f"{part}_labels": np.arange(n, dtype=np.uint8)[:, None] % 2 for part, n in PARTS.items()}
    np.savez(path, **arrays)


PARTS = {"train": 6, "val": 2, "test": 3}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNLABELED_DATA", str(tmp_path))
    monkeypatch.setitem(sys.modules, "medmnist", None)
    return tmp_path / "medmnist"


def library(monkeypatch: pytest.MonkeyPatch, network: bool) -> list[dict[str, Any]]:
    """Puts a stand-in for medmnist 3 in its place, and returns the calls that it gets."""
    calls: list[dict[str, Any]] = []

    class Organ:
        def __init__(self, *, split: str, download: bool, root: str, size: int | None):
            calls.append({"split": split, "download": download, "size": size})
            if size not in (None, 28, 64):
                raise AssertionError
            if not network:
                raise RuntimeError("Something went wrong when downloading!")
            write(Path(root) / f"organmnist3d{f'_{size}' if size else ''}.npz")

    module = types.ModuleType("medmnist")
    module.INFO = {"organmnist3d": {"python_class": "Organ"}, "pathmnist": {"python_class": "Path"}}  # type: ignore[attr-defined]
    module.Organ = Organ  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "medmnist", module)
    return calls


def test_what_is_there_needs_no_library(data: Path) -> None:
    write(data / "adrenalmnist3d.npz")
    assert len(VolumeReader("medmnist:adrenalmnist3d")) == PARTS["train"]
    reader = VolumeReader("medmnist:adrenalmnist3d:test")
    assert len(reader) == PARTS["test"]
    assert reader.labels("label").tolist() == [0, 1, 0]
    with pytest.raises(UserError, match="pip install medmnist"):
        VolumeReader("medmnist:organmnist3d")


def test_what_is_not_there_is_fetched(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = library(monkeypatch, network=True)
    assert len(VolumeReader("medmnist:organmnist3d_64:val")) == PARTS["val"]
    assert len(VolumeReader("medmnist:organmnist3d_64")) == PARTS["train"]
    assert calls == [{"split": "train", "download": True, "size": 64}]


@pytest.mark.parametrize(
    ("name", "network", "said"),
    [
        ("organmist3d", True, "did you mean organmnist3d"),
        ("pathmnist", True, "organmnist3d"),
        ("organmnist3d_128", True, "no size 128"),
        ("organmnist3d", False, "could not be downloaded"),
        ("organmnist3d:tset", True, "tset"),
    ],
)
def test_what_cannot_be_had(data: Path, monkeypatch: pytest.MonkeyPatch, name: str, network: bool, said: str) -> None:
    library(monkeypatch, network)
    with pytest.raises(UserError, match=said):
        VolumeReader(f"medmnist:{name}")
