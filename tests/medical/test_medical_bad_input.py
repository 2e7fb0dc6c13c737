"""What is wrong with data is said in a sentence, and one bad volume does not stop the others."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medical_data import Slices
from unlabeled.cli.main import main
from unlabeled.errors import BrokenItem, UserError
from unlabeled_medical.readers import VolumeReader

Array = np.ndarray[Any, Any]
Write = Callable[..., Path]


@pytest.fixture
def good(nifti: Write, voxels: Array) -> Path:
    """A folder with one good volume, to which a test adds a bad one that sorts before it."""
    return nifti("data/z_good.nii.gz", voxels).parent


def reason(folder: Path) -> str:
    """Why the first item is broken; the good one is read all the same, and the notice names the bad one."""
    reader = VolumeReader(str(folder))
    names = [reader.name(at) for at in range(len(reader))]
    bad = next(at for at, name in enumerate(names) if "good" not in name)
    assert reader[names.index("z_good.nii.gz")]["image"].shape[0] == 1
    with pytest.raises(BrokenItem) as error:
        reader[bad]
    assert any(note.startswith(f"{names[bad]} is left out") for note in reader.notices)
    return str(error.value)


def test_a_file_that_was_cut_short(good: Path) -> None:
    whole = (good / "z_good.nii.gz").read_bytes()
    (good / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    assert "may be cut short" in reason(good)


def test_a_file_that_is_something_else(good: Path) -> None:
    (good / "text.nrrd").write_text("hello")
    assert "cannot be decoded" in reason(good)


def test_no_permission(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monai.data.image_reader import NibabelReader

    (good / "secret.nii").write_bytes(b"")
    read = NibabelReader.read

    def refuse(self: Any, data: Any, **options: Any) -> Any:
        if "secret" in str(data):
            raise PermissionError(13, "Permission denied")
        return read(self, data, **options)

    monkeypatch.setattr(NibabelReader, "read", refuse)  # root may read everything
    assert "no permission to read it" in reason(good)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: np.zeros_like(x), "every voxel is 0; there is nothing to learn from"),
        (lambda x: np.full(x.shape, np.nan, np.float32), "no voxel of a channel is a finite number"),
        (lambda x: x[:, :, :1], "it is flat"),
        (lambda x: x[:, :, 0], "it is flat|2 dimensions|array of shape"),
        (lambda x: x.astype(np.complex64), "not real numbers"),
        (lambda x: np.full(x.shape, 1e300) * (1 + np.arange(x.shape[-1])), "beyond single precision"),
    ],
)
def test_voxels_of_no_use(good: Path, nifti: Write, voxels: Array, change: Any, said: str) -> None:
    import re

    nifti("data/bad.nii.gz", change(voxels))
    assert re.search(said, reason(good))


@pytest.mark.parametrize("spacing", [0.0, 1e-4, 5000.0])
def test_absurd_spacing(good: Path, voxels: Array, spacing: float) -> None:
    raw = bytearray(gzip.decompress((good / "z_good.nii.gz").read_bytes()))
    raw[80:84] = struct.pack("<f", spacing)  # pixdim[1]
    for row, at in enumerate((280, 296, 312)):
        struct.pack_into("<f", raw, at + 4 * row, spacing)  # the diagonal of the sform
    (good / "bad.nii").write_bytes(raw)
    assert "which cannot be; mend the header" in reason(good)


def test_single_holes_become_the_least_value_and_are_said(nifti: Write, voxels: Array) -> None:
    holes = voxels.astype(np.float32)
    holes[3, 4, 5], holes[0, 0, 0] = np.nan, np.inf
    reader = VolumeReader(str(nifti("a.nii", holes)))
    assert torch.as_tensor(reader[0]["image"])[0, 5, 4, 3] == voxels.min()
    assert "1 volumes have voxels that are no number; they count as the least value" in reader.notices


def test_a_missing_slice(good: Path, series: Slices, voxels: Array) -> None:
    pixels = voxels.transpose(2, 1, 0)
    kept = [0, 1, 2, 4, 6, 7]
    series("data/mr", pixels[kept], positions=[(0, 0, 2.5 * at) for at in kept])
    assert "2 of 8 slices are missing" in reason(good)


def test_a_doubled_slice(good: Path, series: Slices, voxels: Array) -> None:
    series("data/mr", voxels.transpose(2, 1, 0)[:4], positions=[(0, 0, at) for at in (0, 1, 1, 2)])
    assert "1 slices lie where another does" in reason(good)


def test_uneven_slices(good: Path, series: Slices, voxels: Array) -> None:
    series("data/mr", voxels.transpose(2, 1, 0)[:4], positions=[(0, 0, at) for at in (0, 1, 2, 3.3)])
    assert "apart; resample them evenly" in reason(good)


def test_slices_of_different_size(good: Path, series: Slices, voxels: Array) -> None:
    pixels = voxels.transpose(2, 1, 0)
    series("data/mr", pixels[:4])
    series("data/mr", pixels[:2, :5], positions=[(0, 0, 4), (0, 0, 5)], names=["x.dcm", "y.dcm"])
    assert "slices differ in size: 5×12, 10×12" in reason(good)


def test_a_localizer(good: Path, series: Slices, voxels: Array) -> None:
    pixels = voxels.transpose(2, 1, 0)
    series("data/mr", pixels[:2])
    series("data/mr", pixels[:2], orientation=(0, 1, 0, 0, 0, -1), names=["x.dcm", "y.dcm"])
    assert "slices lie in different directions" in reason(good)


def test_one_slice_or_one_without_a_place(good: Path, series: Slices, voxels: Array) -> None:
    folder = series("data/mr", voxels.transpose(2, 1, 0)[:1])
    assert "one slice; a volume needs several" in reason(good)
    for file in folder.iterdir():
        file.unlink()
    series("data/mr", voxels.transpose(2, 1, 0)[:2], ImagePositionPatient=None)
    assert "no ImagePositionPatient" in reason(good)


def test_a_multi_frame_file(good: Path, series: Slices, voxels: Array) -> None:
    series("data/mr", voxels.transpose(2, 1, 0)[:2], NumberOfFrames=2)
    assert "multi-frame DICOM; convert it to NIfTI" in reason(good)


def test_a_compression_without_a_decoder_is_named_with_what_to_install(
    good: Path, series: Slices, voxels: Array
) -> None:
    import pydicom
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders import JPEGLSLosslessDecoder
    from pydicom.uid import JPEGLSLossless

    assert not JPEGLSLosslessDecoder.is_available, "choose a syntax that nothing here decodes"
    for file in series("data/mr", voxels.transpose(2, 1, 0)[:2]).iterdir():
        one = pydicom.dcmread(file)
        one.file_meta.TransferSyntaxUID = JPEGLSLossless
        one.PixelData = encapsulate([b"nothing of JPEG-LS"])
        one["PixelData"].VR = "OB"
        one.save_as(file)
    words = reason(good)
    assert "compressed as JPEG-LS Lossless Image Compression" in words
    assert "pip install pylibjpeg" in words


def test_dicom_that_was_cut_short(good: Path, series: Slices, voxels: Array) -> None:
    file = sorted(series("data/mr", voxels.transpose(2, 1, 0)).iterdir())[0]
    file.write_bytes(file.read_bytes()[:-100])
    assert "cut short" in reason(good)


def test_a_source_that_is_nothing(tmp_path: Path, nifti: Write, voxels: Array) -> None:
    with pytest.raises(UserError, match="does not exist; give a volume"):
        VolumeReader(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no volume"):
        VolumeReader(str(tmp_path / "empty"))
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match="is no volume"):
        VolumeReader(str(tmp_path / "a.txt"))
    (tmp_path / "x.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="cannot be read as"):
        VolumeReader(str(tmp_path / "x.npz"))
    np.savez(tmp_path / "flat.npz", images=np.zeros((3, 5, 5)))
    with pytest.raises(UserError, match=r"a stack is \[n, depth"):
        VolumeReader(str(tmp_path / "flat.npz"))


def test_one_slice_alone_names_the_folder_as_the_way_out(series: Slices, voxels: Array) -> None:
    folder = series("mr", voxels.transpose(2, 1, 0))
    with pytest.raises(UserError, match="give the folder that holds the series"):
        VolumeReader(str(next(folder.iterdir())))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"spacing": [1.0, 2.0]}, "spacing is one number of millimetres or three"),
        ({"spacing": 0}, "above 0"),
        ({"orientation": "RAX"}, "three axis codes"),
        ({"orientation": "RLS"}, "three axis codes"),
        ({"intensity": "mri"}, "intensity cannot be 'mri'"),
        ({"window": (100, -100)}, "window goes from the lower"),
        ({"channels": "apart"}, "there are: together, split"),
    ],
)
def test_options_that_make_no_sense(nifti: Write, voxels: Array, options: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        VolumeReader(str(nifti("a.nii", voxels)), **options)


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"no")
    with pytest.raises(UserError, match=r"not one of 1 volumes of .* can be read; a.nii: it cannot be decoded"):
        VolumeReader(str(tmp_path))


def test_inspect_says_what_is_broken(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (good / "text.nrrd").write_text("hello")
    assert main(["medical", "inspect", str(good)]) == 0
    text = capsys.readouterr().out
    assert "12 × 10 × 8" in text
    assert "RAS" in text
    assert "broken: text.nrrd: BrokenItem: it cannot be decoded" in text
