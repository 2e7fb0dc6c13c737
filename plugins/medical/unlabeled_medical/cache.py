"""Prepared volumes on disk: oriented, resampled, one memory-mapped .npy each, so that a crop reads a crop.

Beside each array lies a .json with its geometry and statistics, written last: what has one is whole, so that a
build that was stopped goes on. It also holds the size and the time of the source; where these differ it is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import BrokenItem, UserError
from unlabeled_medical.formats import Volume, volumes
from unlabeled_medical.sources import Item
from unlabeled_medical.statistics import statistics

VERSION = 1
SPACINGS = (0.01, 100.0)  # mm; from micro-CT to the thickest slices, and beyond it the header is wrong
MOST_VOXELS = 1 << 33


@dataclass(frozen=True)
class Settings:
    """What a prepared volume depends on beside its source."""

    spacing: tuple[float, ...] | None = None  # mm of depth, height, width; None: as stored
    orientation: str = "RAS"  # axis codes of width, height, depth; "": as stored
    classes: bool = False  # voxels are numbers of classes: never interpolated, and may be all alike

    def key(self) -> str:
        """A name for the folder of volumes prepared so."""
        text = json.dumps([VERSION, self.spacing, self.orientation, self.classes])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Entry:
    """One prepared volume: where it lies and what is known of it, or why it is broken."""

    path: str
    about: Mapping[str, Any]

    @property
    def broken(self) -> str:
        """Why it cannot be used, or nothing."""
        return str(self.about.get("broken", ""))

    def open(self) -> NDArray[Any]:
        """[C, D, H, W], memory-mapped: what is not looked at is not read."""
        array: NDArray[Any] = np.load(self.path, mmap_mode="c")
        return array


def default_folder() -> Path:
    """Where caches lie unless the user says: $UNLABELED_CACHE, else the user's own folder for such things."""
    own = os.environ.get("UNLABELED_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "unlabeled"


def prepare(items: Sequence[Item], folder: Path, settings: Settings, watch: Callable[[int], None]) -> list[Entry]:
    """Entries of all items in their order; what is not there, or is of an older source, is made.

    Args:
        watch: called with 1 for each volume made, from several threads.

    Raises:
        UserError: the cache cannot be written.
    """
    folder = folder / settings.key()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the cache {folder} ({error.strerror}); choose another --cache") from None
    entries = {item.name: _known(item, folder) for item in items}
    missing = [item for item in items if entries[item.name] is None]

    def make(part: list[Item]) -> None:
        for item, volume in volumes(part):
            entries[item.name] = _make(item, volume, folder, settings)
            watch(1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # threads: decompression and array work release the lock
        list(pool.map(make, _jobs(missing)))
    made = [entries[item.name] for item in items]
    return [entry for entry in made if entry is not None]


def count_missing(items: Sequence[Item], folder: Path, settings: Settings) -> int:
    """How many volumes `prepare` would make."""
    return sum(_known(item, folder / settings.key()) is None for item in items)


def _jobs(items: Sequence[Item]) -> list[list[Item]]:
    """An item a job; those of one archive together, as it is read once from front to end."""
    jobs: list[list[Item]] = []
    for (form, _, _), part in groupby(items, lambda item: (item.form, item.files[:1], item.key)):
        several = list(part)
        jobs += [several] if form == "stack" else [[item] for item in several]
    return jobs


def _stem(item: Item, folder: Path) -> Path:
    where = f"{os.path.abspath(item.files[0])}|{item.key}|{item.row}"
    return folder / hashlib.sha256(where.encode()).hexdigest()[:32]


def _stamp(item: Item) -> list[int]:
    """Files, bytes and the newest time; zeros where the source is not there."""
    try:
        states = [os.stat(file) for file in item.files]
    except OSError:
        return [0, 0, 0]
    return [len(states), sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)]


def _known(item: Item, folder: Path) -> Entry | None:
    stem = _stem(item, folder)
    try:
        about = json.loads(stem.with_suffix(".json").read_text())
    except (OSError, ValueError):
        return None
    path = stem.with_suffix(".npy")
    fresh = about["stamp"] == _stamp(item) and about["stamp"][0] > 0 and not about.get("broken")
    return Entry(str(path), about) if fresh and path.exists() else None


def _make(item: Item, volume: Volume | BrokenItem, folder: Path, settings: Settings) -> Entry:
    """Prepare a volume and write it. What is broken is not kept: it is looked at again, as it may be mended."""
    stem = _stem(item, folder)
    try:
        if isinstance(volume, BrokenItem):
            raise volume
        array, about = prepared(volume, settings)
    except BrokenItem as error:
        return Entry("", {"broken": str(error)})
    path = stem.with_suffix(".npy")
    about = {"stamp": _stamp(item), **about}
    _write(path, lambda file: np.save(file, array))
    _write(stem.with_suffix(".json"), lambda file: file.write(json.dumps(about).encode()))
    return Entry(str(path), about)


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """As files.write_whole, but aside under a name of its own: ranks may make the same cache at once."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with aside.open("wb") as file:
            write(file)
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise UserError(f"cannot write the cache {path.parent} ({error.strerror}); choose another --cache") from None


# ---- one volume


def prepared(volume: Volume, settings: Settings) -> tuple[NDArray[Any], dict[str, Any]]:
    """The array [C, D, H, W] in a compact type, and what is known of it: spacing, orientation, statistics.

    Raises:
        BrokenItem: it is flat, constant, has an impossible geometry or no finite voxel.
    """
    import nibabel

    stored = _check_geometry(volume)
    before = "".join(code or "?" for code in nibabel.aff2axcodes(volume.affine))
    array, affine = _oriented(volume, settings.orientation)
    array, holes = _finite(array)
    about = {
        "stored": {"shape": list(volume.array.shape), "spacing": stored, "orientation": before},
        "modality": volume.modality,
        "holes": holes,
    }
    nearest = settings.classes or _two_valued(array)
    array, affine = _resampled(array, affine, settings.spacing, nearest)
    array = np.ascontiguousarray(_compact(array).transpose(0, 3, 2, 1))
    if settings.classes and (array.dtype == np.float32 or array.min() < 0):
        raise BrokenItem("its voxels are no numbers of classes from 0; give the segmentation, not the scan")
    spacing = [float(x) for x in np.sqrt((affine[:3, :3] ** 2).sum(0))][::-1]
    measured = {} if settings.classes else asdict(statistics(array))
    return array, {**about, "shape": list(array.shape), "spacing": spacing, **measured}


def _check_geometry(volume: Volume) -> list[float]:
    """Distances of voxels along the stored axes, in millimetres."""
    shape = volume.array.shape[1:]
    if min(shape) < 2:
        what = "×".join(map(str, shape))
        raise BrokenItem(f"it is flat ({what} voxels), an image among volumes; keep images apart")
    if volume.array.size > MOST_VOXELS:
        raise BrokenItem(f"it has {volume.array.size:,} voxels, which no scanner makes; its header may be damaged")
    spacing = np.sqrt((volume.affine[:3, :3] ** 2).sum(0))
    least, most = SPACINGS
    if not np.isfinite(volume.affine).all() or spacing.min() < least or spacing.max() > most:
        given = " × ".join(f"{x:.3g}" for x in spacing)
        raise BrokenItem(f"its header says that voxels are {given} mm, which cannot be; mend the header")
    return [float(x) for x in spacing]


def _oriented(volume: Volume, codes: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Axes turned and mirrored, without interpolation, to the nearest orientation of that name."""
    from nibabel import orientations as way

    if not codes:
        return volume.array, volume.affine
    now, wanted = way.io_orientation(volume.affine), way.axcodes2ornt(tuple(codes))
    if np.isnan(now).any():
        raise BrokenItem("two of its axes point the same way; mend the header")
    change = way.ornt_transform(now, wanted)
    array = np.stack([way.apply_orientation(channel, change) for channel in volume.array])
    return array, volume.affine @ way.inv_ornt_aff(change, volume.array.shape[1:])


def _finite(array: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Voxels that are no numbers become the least of their channel, where nothing is; and how many there were."""
    if not np.issubdtype(array.dtype, np.floating):
        return array, 0
    finite = np.isfinite(array)
    if finite.all():
        return array, 0
    if not finite.reshape(len(array), -1).any(1).all():
        raise BrokenItem("no voxel of a channel is a finite number")
    least = [channel[known].min() for channel, known in zip(array, finite, strict=True)]
    return np.where(finite, array, np.reshape(least, (-1, 1, 1, 1))), int((~finite).sum())


def _resampled(
    array: NDArray[Any], affine: NDArray[np.float64], spacing: tuple[float, ...] | None, nearest: bool
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Resampled by MONAI to the spacing, linearly or, as masks are, by the nearest neighbour."""
    now = np.sqrt((affine[:3, :3] ** 2).sum(0))
    if spacing is None or np.allclose(now, spacing[::-1], rtol=1e-3):
        return array, affine
    import torch
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.spatial.array import Spacing

    mode = "nearest" if nearest else "bilinear"
    change = Spacing(spacing[::-1], mode=mode, padding_mode="border", dtype=np.float32)
    voxels = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    made: Any = change(MetaTensor(voxels, affine=torch.from_numpy(affine)))
    return made.numpy(), np.asarray(made.affine, dtype=np.float64)


def _two_valued(array: NDArray[Any]) -> bool:
    low, high = array.min(), array.max()
    return bool(((array == low) | (array == high)).all())


def _compact(array: NDArray[Any]) -> NDArray[Any]:
    """The smallest of uint8, int16 and float32 that holds the values, exactly where they are whole numbers."""
    low, high = float(array.min()), float(array.max())
    whole = np.issubdtype(array.dtype, np.integer) or array.dtype == bool or bool((array == np.rint(array)).all())
    for kind in (np.uint8, np.int16) if whole else ():
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return array.astype(kind)
    if max(abs(low), abs(high)) > float(np.finfo(np.float32).max):
        raise BrokenItem("its values are beyond single precision; mend the scale in its header")
    return array.astype(np.float32)
