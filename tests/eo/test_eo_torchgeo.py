"""TorchGeo's data sets by name, with a stand-in for the library; tried by hand with 0.8.1 and UCMerced."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from unlabeled.errors import BrokenItem, UserError
from unlabeled_eo import torchgeo
from unlabeled_eo.readers import EOReader


class NonGeoDataset:
    pass


class Sea(NonGeoDataset):
    """Six chips of two bands; the fifth is smaller, the last is no picture."""

    all_bands = ("VV", "VH")
    classes = ("ice", "oil", "waves")
    seen: ClassVar[dict[str, Any]] = {}

    def __init__(self, root: Path = Path("data"), split: str = "train", download: bool = False):
        if split not in ("train", "test"):
            raise AssertionError  # as TorchGeo's own sets do
        Sea.seen = {"root": root, "split": split, "download": download}

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        side = 16 if index == 4 else 24
        image = torch.full((2, side, side), float(index + 1)) + torch.arange(side)
        if index == 5:
            raise OSError("truncated")
        return {"image": image, "label": torch.tensor(index % 3)}


class Many(Sea):
    def __init__(self, root: Path = Path("data")):
        pass

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": torch.rand(5, 24, 24), "label": torch.tensor([1, 0, int(index > 2)])}


class Offline(Sea):
    def __init__(self, root: Path = Path("data"), download: bool = False):
        raise RuntimeError("no network")


class Layer:
    pass


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    module, datasets = types.ModuleType("torchgeo"), types.ModuleType("torchgeo.datasets")
    for one in (NonGeoDataset, Sea, Many, Offline, Layer):
        setattr(datasets, one.__name__, one)
    module.datasets = datasets  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchgeo", module)
    monkeypatch.setitem(sys.modules, "torchgeo.datasets", datasets)
    monkeypatch.setenv("UNLABELED_DATA", str(tmp_path))
    for cached in (torchgeo._opened, torchgeo.item, torchgeo.shape):
        cached.cache_clear()
    yield
    for cached in (torchgeo._opened, torchgeo.item, torchgeo.shape):
        cached.cache_clear()


def test_items_are_scenes_with_bands_and_labels(tmp_path: Path) -> None:
    reader = EOReader("torchgeo:Sea/test", stored="linear", scale="db")
    assert Sea.seen == {"root": tmp_path / "torchgeo" / "Sea", "split": "test", "download": True}
    assert len(reader) == 6
    assert reader.facts["bands"] == ["VV", "VH"]
    power = 3.0 + np.arange(24)
    torch.testing.assert_close(
        reader[2]["image"], torch.tensor(10 * np.log10(power)).float().expand(2, 24, 24), rtol=1e-5, atol=1e-5
    )
    assert reader.labels("label").tolist() == ["ice", "oil", "waves", "ice", "oil", ""]
    assert reader.name(2) == "Sea/test#2"
    with pytest.raises(BrokenItem, match="16 × 16"):
        reader[4]
    with pytest.raises(BrokenItem, match="truncated"):
        reader[5]


def test_chips_are_cut_from_items_and_bands_chosen() -> None:
    reader = EOReader("torchgeo:Sea", stored="linear", bands="VH", sampler="grid", chip=12)
    assert len(reader) == 6 * 4
    torch.testing.assert_close(reader[1]["image"][0, 0], 1.0 + torch.arange(12, 24))


def test_many_labels_and_no_splits() -> None:
    reader = EOReader("torchgeo:Many", stored="none")
    assert reader.facts["bands"] == ["1", "2", "3", "4", "5"]  # two names are not those of five bands
    assert reader.labels("label").tolist() == ["ice"] * 3 + ["ice|waves"] * 3
    with pytest.raises(UserError, match="no splits; write torchgeo:Many"):
        EOReader("torchgeo:Many/train")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("torchgeo:Sae/train", "did you mean Sea"),
        ("torchgeo:Sea/val", "there is no split 'val'"),
        ("torchgeo:Layer", "give the folder"),
        ("torchgeo:Offline", "no network"),
    ],
)
def test_what_there_is_not(source: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        EOReader(source)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchgeo", None)
    with pytest.raises(UserError, match="pip install torchgeo"):
        EOReader("torchgeo:Sea")
