"""Volumes are prepared once, a build that stopped goes on, and what is stale is made again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlabeled.errors import UserError
from unlabeled_medical import cache as module
from unlabeled_medical.readers import VolumeReader

Array = np.ndarray[Any, Any]
Write = Callable[..., Path]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the volumes that were prepared."""
    names: list[str] = []
    make = module._make

    def watched(item: Any, *rest: Any) -> Any:
        names.append(item.name)
        return make(item, *rest)

    monkeypatch.setattr(module, "_make", watched)
    return names


@pytest.fixture
def folder(nifti: Write, voxels: Array) -> Path:
    for number in range(4):
        path = nifti(f"data/{number}.nii.gz", voxels + number)
    return path.parent


def test_a_second_reader_prepares_nothing(folder: Path, made: list[str]) -> None:
    first = VolumeReader(str(folder))
    assert len(made) == 4
    second = VolumeReader(str(folder))
    assert len(made) == 4
    assert second.facts == first.facts
    assert np.array_equal(first[2]["image"], second[2]["image"])


def test_a_build_that_stopped_goes_on(folder: Path, made: list[str], cache: Path) -> None:
    VolumeReader(str(folder))
    made.clear()
    files = sorted(cache.rglob("*.json"))
    files[0].unlink()  # it is written last, so that this one was not whole
    files[1].write_text("{")
    next(cache.rglob("*.npy")).with_name(".half.npy.1.2").write_bytes(b"")
    assert len(VolumeReader(str(folder))) == 4
    assert len(made) == 2


def test_a_source_that_changed_is_read_again(folder: Path, made: list[str], nifti: Write, voxels: Array) -> None:
    VolumeReader(str(folder))
    made.clear()
    path = nifti("data/1.nii.gz", voxels + 100)
    os.utime(path, ns=(1, 1))
    assert int(np.asarray(VolumeReader(str(folder))[1]["image"]).max()) == int(voxels.max()) + 100
    assert made == ["1.nii.gz"]


def test_what_was_broken_is_looked_at_again(folder: Path, nifti: Write, voxels: Array) -> None:
    (folder / "x.nii.gz").write_bytes(b"")
    assert VolumeReader(str(folder)).notices
    nifti("data/x.nii.gz", voxels)
    assert len(VolumeReader(str(folder))[4]["image"]) == 1


def test_other_settings_have_a_cache_of_their_own(folder: Path, made: list[str]) -> None:
    VolumeReader(str(folder))
    VolumeReader(str(folder), spacing=2.0)
    VolumeReader(str(folder), orientation="LPS")
    assert len(made) == 12


def test_intensity_is_no_part_of_the_cache(folder: Path, made: list[str]) -> None:
    for intensity in ("zscore", "percentile", "none", "ct"):
        VolumeReader(str(folder), intensity=intensity)  # type: ignore[arg-type]
    assert len(made) == 4


def test_a_cache_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the cache"):
        VolumeReader(str(folder), cache=str(tmp_path / "file"))
    with pytest.raises(UserError, match="lies in the data"):
        VolumeReader(str(folder), cache=str(folder / "cache"))


def test_a_stack_of_which_some_is_there_is_made_whole(tmp_path: Path, made: list[str], cache: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 200, (5, 6, 7, 8), np.uint8)
    np.savez(tmp_path / "x.npz", images=stack)
    VolumeReader(str(tmp_path / "x.npz"))
    about = [path for path in cache.rglob("*.json") if json.loads(path.read_text())["most"] == [float(stack[3].max())]]
    about[0].unlink()
    reader = VolumeReader(str(tmp_path / "x.npz"))
    assert len(made) == 6
    assert all(np.array_equal(reader[at]["image"][0], stack[at]) for at in range(5))
