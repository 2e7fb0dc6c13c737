"""Volumes on disk, tiny ones made here, and the shared ones where they are at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medical_data import PATIENT, Slices


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has a cache of its own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("UNLABELED_CACHE", str(folder))
    return folder


@pytest.fixture
def voxels() -> np.ndarray[Any, Any]:
    """[X, Y, Z] int16 in which every voxel differs from its neighbours and mirrors show."""
    return np.random.default_rng(0).integers(1, 1000, (12, 10, 8)).astype(np.int16)


@pytest.fixture
def nifti(tmp_path: Path) -> Callable[..., Path]:
    """nifti("a.nii.gz", voxels, affine) writes a file."""

    def write(name: str, array: np.ndarray[Any, Any], affine: Any = None) -> Path:
        import nibabel

        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
        return path

    return write


@pytest.fixture
def series(tmp_path: Path) -> Slices:
    """series("mr", array [slices, rows, columns]) writes a DICOM series, by default axial, with a patient in it."""

    def write(
        name: str,
        array: np.ndarray[Any, Any],
        *,
        positions: Sequence[Sequence[float]] | None = None,
        orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
        spacing: Sequence[float] = (1.0, 1.0),
        step: float = 1.0,
        uid: str = "1.2.3",
        names: Sequence[str] | None = None,
        **tags: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        normal = np.cross(orientation[:3], orientation[3:])
        for number, pixels in enumerate(array):
            place = positions[number] if positions is not None else normal * step * number
            file = names[number] if names else f"{(number * 7) % len(array)}-{number}.dcm"
            slice_of(pixels, place, orientation, spacing, f"{uid}.{number}", uid, tags).save_as(
                folder / file, enforce_file_format=True
            )
        return folder

    return write


def slice_of(
    pixels: np.ndarray[Any, Any],
    place: Any,
    orientation: Any,
    spacing: Any,
    uid: str,
    group: str,
    tags: dict[str, Any],
) -> Any:
    """One slice as pydicom's data set."""
    from pydicom import config
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uid
    one.SeriesInstanceUID, one.Modality = group, "MR"
    one.Rows, one.Columns = pixels.shape
    one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 1
    one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
    one.ImagePositionPatient = [float(x) for x in place]
    one.ImageOrientationPatient = [float(x) for x in orientation]
    one.PixelSpacing, one.SliceThickness = [float(x) for x in spacing], 9.0  # thickness is no distance
    one.PixelData = pixels.astype(np.int16).tobytes()
    with config.disable_value_validation():  # others write what they like
        for tag, value in {**PATIENT, **tags}.items():
            one.pop(tag, None)  # an element goes on validating as when it was made
            setattr(one, tag, value)
    return one


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The example: eight uneven NIfTI files and a broken one."""
    from unlabeled_medical.example import write

    return write(tmp_path_factory.mktemp("scans"))
