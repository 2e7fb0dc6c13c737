"""TorchGeo's data sets of chips by class and split, as torchgeo:EuroSAT/train; downloaded where there is a network.

An item stands for a file that holds all of its bands, so that everything else is as with files on disk.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import BrokenItem, UserError, choose, one_line
from unlabeled.files import DOWNLOADS, downloads
from unlabeled_eo.listed import MANY, File, Scene

PREFIX = "torchgeo:"
BANDS = ("bands", "all_bands", "all_band_names", "rgb_bands")  # what data sets call the names of theirs
ITEMS = 4  # decoded ones that a process keeps, of which several chips may be cut


def find(source: str) -> list[Scene]:
    """A scene an item.

    Raises:
        UserError: TorchGeo is not installed, has no such data set or split, or it cannot be downloaded.
    """
    name = source.removeprefix(PREFIX)
    return [Scene(f"{name}#{at}", (File(f"{source}#{at}"),)) for at in range(len(_opened(source)))]


@lru_cache(2)
def _opened(source: str) -> Any:
    try:
        from torchgeo import datasets
    except ImportError:
        raise UserError(f"{source} needs TorchGeo: pip install torchgeo") from None
    kind, _, split = source.removeprefix(PREFIX).partition("/")
    classes: dict[str, Any] = {
        name: one
        for name, one in vars(datasets).items()
        if inspect.isclass(one) and issubclass(one, datasets.NonGeoDataset) and not inspect.isabstract(one)
    }
    if kind in vars(datasets) and kind not in classes:
        raise UserError(f"{kind} is a layer of rasters on a map: give the folder of its files in place of {source}")
    factory = choose("data set of chips of TorchGeo", kind, classes)
    root = downloads("torchgeo") / kind
    takes = inspect.signature(factory).parameters
    options = {"split": split} if split else {}
    if not set(options) <= set(takes):
        raise UserError(f"{kind} of TorchGeo has no splits; write {PREFIX}{kind}")
    try:
        return factory(root=root, **options, **({"download": True} if "download" in takes else {}))
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError(
            f"{source} cannot be opened ({one_line(error, 160) or f'there is no split {split!r}'}); write "
            f"{PREFIX}CLASS/SPLIT, as {PREFIX}EuroSAT/train"
        ) from None
    except Exception as error:  # each data set downloads and unpacks in its own way
        raise UserError(
            f"{source} is not in {root} and could not be downloaded ({type(error).__name__}: "
            f"{one_line(error, 160)}); put it there, or set {DOWNLOADS} to a folder that has torchgeo/{kind}"
        ) from None


def _parts(path: str) -> tuple[str, int]:
    source, _, number = path.rpartition("#")
    return source, int(number)


@lru_cache(ITEMS)
def item(path: str) -> dict[str, Any]:
    """The bands [C, H, W] of an item as "image", and its other fields.

    Raises:
        BrokenItem: it cannot be read, or is no picture.
    """
    source, number = _parts(path)
    try:
        found = dict(_opened(source)[number])
    except UserError:
        raise
    except Exception as error:  # as each data set reads
        raise BrokenItem(f"it cannot be read ({type(error).__name__}: {one_line(error)})") from None
    image = found.get("image")
    if image is None or image.ndim != 3:
        shape = "none" if image is None else "×".join(map(str, image.shape))
        raise BrokenItem(f"an image is [bands, rows, columns], and its is {shape}")
    return {**found, "image": image.numpy()}


@lru_cache(2)
def shape(source: str) -> tuple[tuple[str, ...], int, int]:
    """Names of the bands ("" where nothing says), rows and columns of the first item that can be read: of all of them.

    Raises:
        BrokenItem: the first cannot be read.
    """
    bands, rows, columns = item(f"{source}#0")["image"].shape
    for name in BANDS:
        said = getattr(_opened(source), name, None)
        if isinstance(said, list | tuple) and len(said) == bands and all(isinstance(one, str) for one in said):
            return tuple(said), rows, columns
    return ("",) * bands, rows, columns


def read(path: str, bands: Sequence[int], window: tuple[int, int, int, int]) -> NDArray[Any]:
    """[C, rows, columns] of an item's window; bands count from 1.

    Raises:
        BrokenItem: it cannot be read, or is not as large as the others.
    """
    image = item(path)["image"]
    if image.shape[1:] != shape(_parts(path)[0])[1:]:
        raise BrokenItem(f"it has {image.shape[1]} × {image.shape[2]} pixels, and the first of them another number")
    row, column, rows, columns = window
    part: NDArray[Any] = image[[number - 1 for number in bands], row : row + rows, column : column + columns]
    return part


def labels(paths: Sequence[str]) -> list[str]:
    """The class of every item, several with | between; "" where it cannot be read.

    Raises:
        UserError: items have no label.
    """
    names = getattr(_opened(_parts(paths[0])[0]), "classes", None)
    out = []
    for path in paths:
        try:
            value = item(path).get("label")
        except BrokenItem:
            out.append("")
            continue
        if value is None:
            raise UserError(f"items of {_parts(path)[0]} have no label")
        flat = np.atleast_1d(np.asarray(value))
        numbers = flat if flat.size == 1 else np.flatnonzero(flat)  # several: a bit a class
        out.append(MANY.join(str(names[int(n)]) if names and int(n) < len(names) else str(int(n)) for n in numbers))
    return out
