"""DICOM series: slices sorted by position, and only the tags that geometry and pixels need are ever parsed.

What names a patient is not among them, so that it cannot reach a name, a log, facts or a run folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.errors import BrokenItem

SUFFIXES = (".dcm", ".dicom", ".ima")
GEOMETRY = ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames"]
PIXELS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored"),
    *("HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "Modality", "PixelData"),
]
MODALITIES = ("CT", "MR", "PT", "NM", "US", "XA", "MG", "CR", "DX", "RTDOSE", "SEG", "OPT")  # no free text gets on
SAME_PLACE = 1e-3  # mm; below it two slices are one
UNEVEN = 0.1  # share by which distances of slices may differ; positions are rounded, and gantries are tilted
GAP = 1.5  # distances above this many usual ones lack a slice
DECODERS = "pylibjpeg pylibjpeg-openjpeg pylibjpeg-libjpeg pylibjpeg-rle"


def is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's mark, or its suffix."""
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.name == "DICOMDIR" or (path.suffix and not path.suffix[1:].isdigit()):  # UIDs as names end in numbers
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def series(files: Sequence[Path]) -> list[list[Path]]:
    """The files of one folder by series, in the order of their numbers; unreadable ones are a series each."""
    import pydicom

    groups: dict[tuple[int, str], list[Path]] = {}
    for path in files:
        try:
            head = pydicom.dcmread(
                path, force=False, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "SeriesNumber"]
            )
            number = _text(head, "SeriesNumber")
            key = (int(number) if number.isdigit() else 0, _text(head, "SeriesInstanceUID"))
        except Exception:  # a damaged header; reading the item says so
            key = (1 << 31, str(path))
        groups.setdefault(key, []).append(path)
    return [sorted(groups[key]) for key in sorted(groups)]


def read(files: Sequence[str]) -> tuple[NDArray[Any], NDArray[np.float64], str]:
    """A series as an array [X, Y, Z], its affine to RAS millimetres, and its modality.

    Raises:
        BrokenItem: slices are missing, doubled, uneven or of several kinds, or no decoder is there.
    """
    slices = [_slice(file) for file in files]
    place, orientation = _places(slices)
    order = np.argsort(place, kind="stable")
    step = _step(place[order])
    slices = [slices[at] for at in order]
    array = np.stack([_pixels(one) for one in slices], -1).transpose(1, 0, 2)  # rows, columns, slices -> X, Y, Z
    return array, _affine(slices[0], orientation, step), _modality(slices[0])


def _text(one: Any, tag: str) -> str:
    """A value as it stands in the file; pydicom's own conversion would quote a bad one in a warning."""
    raw = one.get_item(tag)
    value = getattr(raw, "value", None) or b""
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).strip(" \0")


def _modality(one: Any) -> str:
    found = _text(one, "Modality")
    return found if found in MODALITIES else ""


def _slice(file: str) -> Any:
    import pydicom

    try:
        return pydicom.dcmread(file, specific_tags=[*GEOMETRY, *PIXELS])
    except PermissionError:
        raise BrokenItem("no permission to read a slice; change its mode or owner") from None
    except Exception as error:
        raise BrokenItem(f"slice {Path(file).name} is no readable DICOM ({type(error).__name__})") from None


def _places(slices: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far along the normal each slice lies [n], and the directions of rows and columns [2, 3]."""
    for one in slices:
        if int(one.get("NumberOfFrames") or 1) > 1:
            raise BrokenItem("it is a multi-frame DICOM; convert it to NIfTI (dcm2niix does)")
        for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            if one.get(tag) is None:
                raise BrokenItem(f"a slice has no {tag}, so that its place is unknown")
    if len(slices) < 2:
        raise BrokenItem("the series has one slice; a volume needs several")
    sizes = {(int(one.Rows), int(one.Columns)) for one in slices}
    if len(sizes) > 1:
        raise BrokenItem(f"slices differ in size: {', '.join(f'{h}×{w}' for h, w in sorted(sizes))}")
    ways = np.array([one.ImageOrientationPatient for one in slices], dtype=np.float64)
    if np.abs(ways - ways[0]).max() > 1e-2:
        raise BrokenItem("slices lie in different directions, as those of a localizer do; keep one direction")
    orientation = ways[0].reshape(2, 3)
    positions = np.array([one.ImagePositionPatient for one in slices], dtype=np.float64)
    return positions @ np.cross(*orientation), orientation


def _step(place: NDArray[np.float64]) -> float:
    """The distance of slices in millimetres, from their sorted places; the thickness is another thing."""
    steps = np.diff(place)
    if (steps < SAME_PLACE).any():
        raise BrokenItem(f"{int((steps < SAME_PLACE).sum())} slices lie where another does; remove the doubled ones")
    usual = float(np.median(steps))
    missing = int(np.maximum(np.round(steps / usual) - 1, 0)[steps > GAP * usual].sum())
    if missing:
        raise BrokenItem(f"{missing} of {len(place) + missing} slices are missing: one lies {steps.max():.3g} mm apart")
    if np.abs(steps - usual).max() > UNEVEN * usual:
        raise BrokenItem(f"slices lie from {steps.min():.3g} to {steps.max():.3g} mm apart; resample them evenly")
    return usual


def _pixels(one: Any) -> NDArray[Any]:
    """[rows, columns] in units of the modality (Hounsfield units in CT)."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = one.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and not _decodable(get_decoder, syntax):
        raise BrokenItem(f"it is compressed as {syntax.name}, and no decoder is here: pip install {DECODERS}")
    try:
        pixels: NDArray[Any] = one.pixel_array
    except Exception as error:
        raise BrokenItem(f"pixels cannot be decoded ({type(error).__name__}); the file may be cut short") from None
    if pixels.ndim != 2:
        raise BrokenItem("slices are in colour, which no scanner measures; give the original series")
    slope, intercept = float(one.get("RescaleSlope", 1)), float(one.get("RescaleIntercept", 0))
    if (slope, intercept) != (1.0, 0.0):
        pixels = pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return pixels


def _decodable(get_decoder: Any, syntax: Any) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:  # a syntax that pydicom does not know
        return False


def _affine(first: Any, orientation: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Voxel indices (column, row, slice) to RAS millimetres; DICOM's own axes are LPS."""
    down, across = (float(x) for x in first.PixelSpacing)  # distance of rows, distance of columns
    affine = np.eye(4)
    affine[:3, 0] = orientation[0] * across
    affine[:3, 1] = orientation[1] * down
    affine[:3, 2] = np.cross(*orientation) * step
    affine[:3, 3] = [float(x) for x in first.ImagePositionPatient]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
