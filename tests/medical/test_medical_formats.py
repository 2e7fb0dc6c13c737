"""Every format says the same of the same volume, however its axes lie on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from at_hand import at_hand
from medical_data import Slices
from unlabeled.data.labels import labels_of
from unlabeled.errors import UserError
from unlabeled_medical.readers import VolumeReader

Array = np.ndarray[Any, Any]
Write = Callable[..., Path]
AFFINE = np.array([[2.0, 0, 0, -7], [0, 3, 0, 11], [0, 0, 4, 5], [0, 0, 0, 1]])


def expected(voxels: Array) -> torch.Tensor:
    """[1, D, H, W] of voxels [X, Y, Z] in RAS."""
    return torch.from_numpy(np.ascontiguousarray(voxels.transpose(2, 1, 0)[None]))


def check(path: Path, voxels: Array, spacing: tuple[float, ...] = (4, 3, 2)) -> None:
    sample = VolumeReader(str(path))[0]
    assert torch.equal(torch.as_tensor(sample["image"]), expected(voxels))
    torch.testing.assert_close(sample["spacing"], torch.tensor(spacing, dtype=torch.float32))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti(nifti: Write, voxels: Array, suffix: str) -> None:
    check(nifti(f"a{suffix}", voxels, AFFINE), voxels)


def test_axes_are_turned_to_ras_whatever_their_order_and_direction(nifti: Write, voxels: Array) -> None:
    from nibabel import orientations as way

    for codes in ("LPS", "RAS", "PIR", "SAL", "AIL"):
        change = way.ornt_transform(way.axcodes2ornt("RAS"), way.axcodes2ornt(tuple(codes)))
        stored = way.apply_orientation(voxels, change)
        affine = AFFINE @ way.inv_ornt_aff(change, voxels.shape)
        path = nifti(f"{codes}.nii", stored, affine)
        check(path, voxels)
        kept = VolumeReader(str(path), orientation="")[0]["image"]
        assert torch.equal(torch.as_tensor(kept), expected(stored))


def test_nrrd_and_mha_mirror_the_axes_that_they_count_to_the_left_and_back(tmp_path: Path, voxels: Array) -> None:
    import itk
    import nrrd

    flipped = voxels[::-1, ::-1]  # their space is LPS
    header = {"space": "left-posterior-superior", "space directions": np.diag([2.0, 3, 4]), "space origin": [0, 0, 0]}
    nrrd.write(str(tmp_path / "a.nrrd"), flipped, header)
    check(tmp_path / "a.nrrd", voxels)
    image = itk.image_from_array(np.ascontiguousarray(flipped.T))
    image.SetSpacing([2.0, 3.0, 4.0])
    itk.imwrite(image, str(tmp_path / "b.mha"))
    check(tmp_path / "b.mha", voxels)


def test_dicom_slices_are_sorted_by_position_and_their_distance_is_not_their_thickness(
    series: Slices, voxels: Array
) -> None:
    pixels = voxels[::-1, ::-1].transpose(2, 1, 0)  # DICOM counts to the left and back, rows first
    folder = series("mr", pixels, spacing=(3.0, 2.0), step=4.0)
    assert sorted(folder.iterdir())[1].name != "1-1.dcm", "names do not sort by position"
    check(folder, voxels)


def test_oblique_dicom_keeps_its_spacing_and_goes_to_the_nearest_axes(series: Slices, voxels: Array) -> None:
    pixels, c, s = voxels[::-1, ::-1].transpose(2, 1, 0), np.cos(0.3), np.sin(0.3)
    folder = series("mr", pixels, spacing=(3.0, 2.0), step=4.0, orientation=(c, s, 0, -s, c, 0))
    check(folder, voxels)


def test_rescaling_gives_hounsfield_units_and_the_modality_decides_the_intensity(series: Slices, voxels: Array) -> None:
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1024, "Modality": "CT"}
    reader = VolumeReader(str(series("ct", voxels.transpose(2, 1, 0), **tags)))
    image = torch.as_tensor(reader[0]["image"])
    assert image.min() == 2 * int(voxels.min()) - 1024
    assert image.dtype == torch.int16, "whole numbers stay compact"
    assert reader.facts["intensity"] == "ct"


def test_series_mixed_in_one_folder_are_told_apart(series: Slices, voxels: Array) -> None:
    pixels = voxels.transpose(2, 1, 0)
    series("both", pixels, uid="1.2.3", names=[f"a{n}.dcm" for n in range(8)], SeriesNumber=4)
    series("both", pixels[:5], uid="1.2.4", names=[f"b{n}" for n in range(5)], SeriesNumber=9)
    reader = VolumeReader(str(series("both/below", pixels[:3], uid="1.2.5").parent))
    assert [reader.name(at) for at in range(3)] == ["series#1", "series#2", "below"]
    assert [reader[at]["image"].shape[1] for at in range(3)] == [8, 5, 3]


def test_a_fourth_dimension_is_channels_or_time(nifti: Write, voxels: Array) -> None:
    path = nifti("a.nii.gz", np.stack([voxels, voxels + 1, voxels + 2], -1))
    together = VolumeReader(str(path))
    assert together.facts["channels"] == 3
    assert together[0]["image"].shape == (3, 8, 10, 12)
    split = VolumeReader(str(path), channels="split")
    assert [split.name(at) for at in range(len(split))] == ["a.nii.gz#1", "a.nii.gz#2", "a.nii.gz#3"]
    for at in range(3):
        assert torch.equal(torch.as_tensor(split[at]["image"]), expected(voxels + at))


def test_what_has_other_channels_than_the_encoder_is_broken(nifti: Write, voxels: Array) -> None:
    for name in "abc":
        nifti(f"{name}.nii", voxels)
    folder = nifti("d.nii", np.stack([voxels, voxels], -1)).parent
    reader = VolumeReader(str(folder))
    with pytest.raises(Exception, match="2 channels, and the encoder's data 1"):
        reader[3]


def test_a_stack_has_splits_and_labels(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    arrays = {
        f"{name}_images": chance.integers(0, 2, (n, 9, 8, 7), np.uint8) * 255 for name, n in (("train", 4), ("test", 3))
    }
    labels = {"train_labels": np.array([[0], [1], [0], [1]], np.uint8), "test_labels": np.zeros((3, 1), np.uint8)}
    np.savez_compressed(tmp_path / "x.npz", **arrays, **labels)
    train, test = VolumeReader(str(tmp_path / "x.npz")), VolumeReader(f"{tmp_path}/x.npz:test")
    assert (len(train), len(test)) == (4, 3)
    assert train.name(2) == "x.npz:train:2"
    assert train.labels("label").tolist() == [0, 1, 0, 1]
    assert train.facts["intensity"] == "binary"
    assert np.array_equal(test[2]["image"][0], arrays["test_images"][2])
    with pytest.raises(UserError, match=r"no 'val_images'; there are: test, train"):
        VolumeReader(f"{tmp_path}/x.npz:val")


def test_a_manifest_names_files_and_folders_and_labels(nifti: Write, series: Slices, voxels: Array) -> None:
    folder = nifti("in/a.nii.gz", voxels).parents[1]
    series("in/mr", voxels.transpose(2, 1, 0))
    (folder / "list.csv").write_text("path,age\nin/a.nii.gz,61\nin/mr,\nin/gone.nii,50\n")
    reader = VolumeReader(str(folder / "list.csv"))
    assert [reader.name(at) for at in range(3)] == ["in/a.nii.gz", "in/mr", "in/gone.nii"]
    assert reader.labels("age").tolist()[::2] == [61.0, 50.0]
    assert np.isnan(reader.labels("age")[1])
    with pytest.raises(Exception, match="does not exist; mend the path"):
        reader[2]
    (folder / "twice.csv").write_text("path\nin/a.nii.gz\nin/a.nii.gz\n")
    with pytest.raises(UserError, match=r"in/a.nii.gz is there twice"):
        VolumeReader(str(folder / "twice.csv"))


def test_patterns_and_tables_of_labels(nifti: Write, voxels: Array) -> None:
    folder = nifti("x/a.nii.gz", voxels).parents[1]
    nifti("y/b.nii.gz", voxels)
    reader = VolumeReader(f"{folder}/**/*.nii.gz")
    assert [reader.name(at) for at in range(2)] == ["x/a.nii.gz", "y/b.nii.gz"]
    assert reader.labels("folder").tolist() == ["x", "y"]
    (folder / "sex.csv").write_text("name,sex\na,f\nb.nii.gz,m\n")
    assert labels_of(reader, f"{folder}/sex.csv:sex").tolist() == ["f", "m"]
    with pytest.raises(UserError, match=r"no label of .* is called 'sx'"):
        reader.labels("sx")
    (folder / "others.csv").write_text("name,sex\np.nii.gz,f\nq.nii.gz,m\n")
    with pytest.raises(
        UserError, match=r"labels no sample: its column 'name' has p.nii.gz, q.nii.gz, and samples are x/a"
    ):
        labels_of(reader, f"{folder}/others.csv:sex")


def test_resampling_reaches_the_spacing_and_keeps_masks_masks(nifti: Write, voxels: Array) -> None:
    made = VolumeReader(str(nifti("a.nii", voxels, AFFINE)), spacing=[2.0])
    assert made[0]["spacing"].tolist() == pytest.approx([2, 2, 2])
    assert made[0]["image"].shape[3] == 12, "12 voxels of 2 mm"
    assert abs(made[0]["image"].shape[1] - 16) <= 1, "8 voxels of 4 mm"
    mask = VolumeReader(str(nifti("m.nii", (voxels > 500).astype(np.uint8), AFFINE)), spacing=1.5)
    assert torch.as_tensor(mask[0]["image"]).unique().tolist() == [0, 1]


def test_shared_dicom_has_the_spacing_that_positions_say() -> None:
    reader = VolumeReader(str(at_hand("medical/dicom")))
    kinds = {tuple(reader[at]["image"].shape): reader[at]["spacing"].tolist() for at in range(len(reader))}
    assert kinds[(1, 22, 320, 280)] == pytest.approx([6.5, 0.6875, 0.6875], abs=1e-3)
    assert kinds[(1, 40, 50, 34)] == pytest.approx([1, 1, 1])
