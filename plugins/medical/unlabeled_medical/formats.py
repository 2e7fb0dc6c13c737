"""Items become volumes: MONAI's readers for files, `dicom` for series, a stream for stacks."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import BrokenItem
from unlabeled_medical import dicom
from unlabeled_medical.sources import Item, array_header

MONAI = {".nii": "NibabelReader", ".nii.gz": "NibabelReader", ".nrrd": "NrrdReader", ".mha": "ITKReader"}
MONAI[".mhd"] = MONAI[".mha"]


@dataclass(frozen=True)
class Volume:
    """Voxels and where they are."""

    array: NDArray[Any]  # [C, X, Y, Z] as stored
    affine: NDArray[np.float64]  # [4, 4] from indices to RAS millimetres
    modality: str = ""  # as DICOM calls it; "" where the format does not say


def volumes(items: Sequence[Item]) -> Iterator[tuple[Item, Volume | BrokenItem]]:
    """Each item and its volume, or why it is broken; items of one stack come together and are read as a stream."""
    if items[0].form == "stack":
        yield from _stack(items)
        return
    for item in items:
        try:
            yield item, _series(item) if item.form == "series" else _file(item)
        except BrokenItem as error:
            yield item, error


def _series(item: Item) -> Volume:
    array, affine, modality = dicom.read(item.files)
    return Volume(array[None], affine, modality)


def _file(item: Item) -> Volume:
    from monai.data import image_reader

    path = Path(item.files[0])
    kind = next((name for suffix, name in MONAI.items() if path.name.endswith(suffix)), None)
    if kind is None:
        raise BrokenItem(f"it is no volume; known are {', '.join(MONAI)}")
    try:
        reader = getattr(image_reader, kind)()
        array, about = reader.get_data(reader.read(path))
    except FileNotFoundError:
        raise BrokenItem("it does not exist; mend the path in the manifest") from None
    except PermissionError:
        raise BrokenItem("no permission to read it; change its mode or owner") from None
    except Exception as error:  # decoders raise what they like: EOFError, zlib.error, ImageFileError, RuntimeError
        raise BrokenItem(f"it cannot be decoded ({type(error).__name__}); it may be cut short or damaged") from None
    affine = np.asarray(about["affine"], dtype=np.float64)
    if affine.shape != (4, 4):
        raise BrokenItem(f"it has {len(affine) - 1} dimensions in space; a volume has 3")
    return Volume(_channels_first(np.asarray(array), item.row), affine)


def _channels_first(array: NDArray[Any], point: int | None) -> NDArray[Any]:
    """[C, X, Y, Z] of an array with channels or time points last, or one time point of it."""
    if array.ndim > 4 and array.size == np.prod(array.shape[:3]) * array.shape[-1]:
        array = array.reshape(*array.shape[:3], -1)  # NIfTI keeps vectors in the fifth dimension
    if array.ndim not in (3, 4):
        raise BrokenItem(f"it is an array of shape {array.shape}, and a volume has 3 dimensions, or 4 with channels")
    if array.dtype.fields or not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise BrokenItem(f"its voxels are {array.dtype}, not real numbers; save magnitudes")
    if array.ndim == 3:
        return array[None]
    return array[None, ..., point] if point is not None else np.moveaxis(array, -1, 0)


def points_in_time(item: Item) -> int:
    """How many time points a NIfTI file has, from its header; 1 for all else."""
    import nibabel

    if item.form != "file" or not item.files[0].endswith((".nii", ".nii.gz")):
        return 1
    try:
        header: Any = nibabel.load(item.files[0])
        shape = header.shape
    except Exception:  # reading the item says what is wrong with it
        return 1
    return int(shape[3]) if len(shape) == 4 else 1


def _stack(items: Sequence[Item]) -> Iterator[tuple[Item, Volume | BrokenItem]]:
    """Rows of an array [n, D, H, W(, C)] one after another, without holding all of it."""
    wanted = {item.row: item for item in items}
    with zipfile.ZipFile(items[0].files[0]) as archive, archive.open(f"{items[0].key}.npy") as file:
        shape, fortran, kind = array_header(file)
        size = int(np.prod(shape[1:])) * kind.itemsize
        for row in range(shape[0]):
            data = file.read(size)
            if row not in wanted:
                continue
            if fortran or len(data) < size:
                why = "the stack is in Fortran order; save it in C order" if fortran else "the archive is cut short"
                yield wanted[row], BrokenItem(why)
                continue
            array = np.frombuffer(data, kind).reshape(shape[1:])
            first = array[None] if array.ndim == 3 else np.moveaxis(array, -1, 0)
            yield wanted[row], Volume(first.transpose(0, 3, 2, 1), np.eye(4))
