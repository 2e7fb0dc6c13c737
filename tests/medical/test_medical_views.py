"""Crops lie where `where` says, chance is the sample's, and nothing is done that the modality forbids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from unlabeled.contract import Kind, Sample
from unlabeled.errors import UserError
from unlabeled.randomness import Draws, sample_keys
from unlabeled_medical.encoders import ViT
from unlabeled_medical.patches import centres
from unlabeled_medical.readers import VolumeReader
from unlabeled_medical.segmentation import classes_at
from unlabeled_medical.views import Crops

Write = Callable[..., Path]
KINDS: tuple[Kind, ...] = get_args(Kind)
KEYS = sample_keys(0, 0, torch.arange(32))


def ramp(shape: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    """[W, H, D] whose voxels say where they are: 10000 d + 100 h + w, so that a crop shows its place."""
    w, h, d = np.indices(shape)
    return (10000 * d + 100 * h + w).astype(np.float32)


@pytest.fixture
def reader(nifti: Write) -> VolumeReader:
    return VolumeReader(str(nifti("a.nii", ramp((24, 20, 18)))), intensity="none")


def batch_of(view: Crops, sample: Sample, kind: Kind, rows: int = 32) -> dict[str, Tensor]:
    draws = Draws(KEYS[:rows])
    crops = [view.sample(sample, kind, draws.fork("s").rows(torch.tensor([row]))) for row in range(rows)]
    batch = {name: torch.stack([torch.as_tensor(crop[name]) for crop in crops]) for name in crops[0]}
    return dict(view.batch(batch, kind, draws.fork("b")))


def places(batch: dict[str, Tensor], side: int, shape: tuple[int, int, int]) -> Tensor:
    """[B, N, 3] voxels of the volume (depth, height, width) that the middles of the crop's voxels lie on."""
    points = centres([side] * 3, torch.device("cpu"))
    where = batch["where"]
    return (points @ where[..., :3].mT + where[:, None, :, 3]) * torch.tensor(shape) - 0.5


def test_plain_crops_hold_the_very_voxels_that_where_names(reader: VolumeReader) -> None:
    batch = batch_of(Crops(reader.facts, crop=8), reader[0], "plain")
    d, h, w = places(batch, 8, (18, 20, 24)).unbind(-1)
    torch.testing.assert_close(10000 * d + 100 * h + w, batch["image"].flatten(1), atol=0.1, rtol=0)


def test_scaled_and_turned_crops_hold_what_where_names_but_for_interpolation(reader: VolumeReader) -> None:
    view = Crops(reader.facts, crop=8, strength=0.0)
    batch = batch_of(view, reader[0], "global")
    place = places(batch, 8, (18, 20, 24))
    inner = centres([8] * 3, torch.device("cpu"))[0].sub(0.5).abs().amax(1) < 0.2  # turned corners are from outside
    d, h, w = place.unbind(-1)
    wanted = 10000 * d + 100 * h + w
    inside = (place >= 1).all(-1) & (place <= torch.tensor([18, 20, 24]) - 2).all(-1) & inner
    assert inside.sum() > 200
    off = (batch["image"].flatten(1) - wanted)[inside].abs()
    assert off.max() < 150, "a hundredth of a voxel in depth is a hundred"
    assert batch["where"][:, :, :3].det().abs().std() > 0, "scales differ"


def test_a_share_of_the_crops_is_zoomed_over_the_whole_range(reader: VolumeReader) -> None:
    def extents(zoomed: float) -> Tensor:
        """Voxels a side of 2,000 crops."""
        view, sample = Crops(reader.facts, crop=12, zoomed=zoomed), reader[0]
        draws = Draws(sample_keys(0, 0, torch.arange(2000))).each()
        return torch.stack([view.sample(sample, "global", one)["spacing"][0] for one in draws]).mul(12).round()

    assert set(extents(0.0).tolist()) == {12.0}
    few, every = extents(0.25), extents(1.0)
    assert (few != 12).float().mean() == pytest.approx(0.25 * float((every != 12).float().mean()), abs=0.03)
    for found in (few, every):
        assert (found.min(), found.max()) == (round(12 / 1.4), round(12 / 0.7))


def test_a_turn_keeps_the_distances_of_places(reader: VolumeReader) -> None:
    view = Crops(reader.facts, crop=8, scale=(1.0, 1.0), strength=0.0)
    where = batch_of(view, reader[0], "global")["where"]
    mm = where[..., :3] * torch.tensor([18.0, 20, 24])[:, None]
    torch.testing.assert_close(mm @ mm.mT, 64 * torch.eye(3).expand(32, 3, 3), atol=1e-3, rtol=1e-4)
    off = where[..., :3] - torch.diag_embed(where[..., :3].diagonal(dim1=1, dim2=2))
    turned = (off.abs() > 1e-4).flatten(1).any(1).float().mean()
    assert 0.05 < turned < 0.5, "a fifth are turned"


def test_crops_that_are_larger_than_the_volume_are_padded_and_say_so(reader: VolumeReader) -> None:
    for kind in KINDS:
        batch = batch_of(Crops(reader.facts, crop=32, local=16), reader[0], kind, rows=4)
        assert batch["image"].shape[2:] == (16,) * 3 if kind == "local" else (32,) * 3
        assert batch["image"].isfinite().all()
    image = batch_of(Crops(reader.facts, crop=32), reader[0], "whole", rows=1)["image"][0, 0]
    assert (image[:7] == 0).all(), "the least value stands where there is no volume"
    assert torch.equal(image[7:25, 6:26, 4:28], torch.as_tensor(reader[0]["image"])[0])


def test_whole_crops_are_the_middle_or_the_resized_volume(reader: VolumeReader) -> None:
    middle = batch_of(Crops(reader.facts, crop=8), reader[0], "whole", rows=1)
    assert torch.equal(middle["image"][0, 0], torch.as_tensor(reader[0]["image"])[0, 5:13, 6:14, 8:16])
    whole = batch_of(Crops(reader.facts, crop=8, whole="resize"), reader[0], "whole", rows=1)
    assert whole["spacing"][0].tolist() == pytest.approx([3, 3, 3])
    assert whole["image"].shape == (1, 1, 8, 8, 8)


def test_crops_are_aimed_at_the_foreground(nifti: Write) -> None:
    voxels = np.zeros((60, 60, 60), np.uint8)
    voxels[50:54, 8:12, 30:34] = 1
    voxels[0, 0, 0] = 2  # three values, so no mask
    reader = VolumeReader(str(nifti("a.nii", voxels)))
    seen = {}
    for share in (0.0, 1.0):
        image = batch_of(Crops(reader.facts, crop=12, foreground=share), reader[0], "plain")["image"]
        seen[share] = float((image > -1).flatten(1).any(1).float().mean())
    assert seen[1.0] > 0.9
    assert seen[0.0] < 0.3


@pytest.mark.parametrize("letters", ["", "dh", "w"])
def test_only_the_axes_named_are_mirrored(reader: VolumeReader, letters: str) -> None:
    where = batch_of(Crops(reader.facts, crop=8, flips=letters), reader[0], "plain")["where"]
    mirrored = (where[:, :, :3].diagonal(dim1=1, dim2=2) < 0).any(0)
    assert mirrored.tolist() == [letter in letters for letter in "dhw"]


def test_volumes_are_turned_only_in_planes_of_even_spacing(nifti: Write) -> None:
    affine = np.diag([1.0, 1, 5, 1])
    thick = VolumeReader(str(nifti("thick/a.nii", ramp((24, 20, 18)), affine)))
    assert thick.facts["plane"] == "d"
    where = batch_of(Crops(thick.facts, crop=8, scale=(1.0, 1.0)), thick[0], "global")["where"]
    assert (where[:, 1, 2].abs() > 1e-4).any()
    assert (where[:, 0, 1:3].abs() < 1e-6).all(), "depth stays depth"
    assert Crops(thick.facts).transforms == 4
    uneven = VolumeReader(str(nifti("uneven/a.nii", ramp((24, 20, 18)), np.diag([1.0, 3, 5, 1]))))
    assert (uneven.facts["plane"], Crops(uneven.facts).transforms) == ("", 0)


def test_masks_stay_masks_in_every_view(nifti: Write) -> None:
    ball = (((np.indices((20, 20, 20)) - 9.5) ** 2).sum(0) < 40).astype(np.uint8) * 255
    reader = VolumeReader(str(nifti("a.nii", ball)))
    assert reader.facts["intensity"] == "binary"
    for kind in KINDS:
        assert set(batch_of(Crops(reader.facts, crop=12), reader[0], kind)["image"].unique().tolist()) == {0.0, 1.0}


def test_hounsfield_units_are_windowed_and_never_gamma_changed(nifti: Write) -> None:
    from unlabeled_medical import views

    names = {name for name, _, _ in views.CALIBRATED}
    assert "window" in names
    assert not names & {"gamma", "brightness", "contrast"}
    chance = np.random.default_rng(0)
    reader = VolumeReader(str(nifti("a.nii", chance.integers(-1024, 3000, (20, 20, 20)).astype(np.int16))))
    assert reader.facts["intensity"] == "ct"
    image = batch_of(Crops(reader.facts, crop=12), reader[0], "whole", rows=1)["image"]
    assert (float(image.min()), float(image.max())) == (-1.0, 1.0)
    for value, wanted in ((0, 0.0), (500, 0.5)):
        voxels = np.full((9, 9, 9), value, np.int16)
        voxels[0, 0, 0] = 1000
        one = VolumeReader(str(nifti(f"{value}.nii", voxels)), facts=reader.facts)
        image = batch_of(Crops(one.facts, crop=8), one[0], "whole", rows=1)["image"]
        assert float(image.median()) == pytest.approx(wanted)


def test_a_row_does_not_depend_on_its_batch(reader: VolumeReader) -> None:
    view = Crops(reader.facts, crop=8, strength=5.0)
    for kind in KINDS:
        many, few = batch_of(view, reader[0], kind, rows=9), batch_of(view, reader[0], kind, rows=3)
        torch.testing.assert_close(many["image"][:3], few["image"])


def test_known_turns_are_all_different_and_where_follows_them(reader: VolumeReader) -> None:
    view = Crops(reader.facts, crop=8)
    assert view.transforms == 24
    batch = batch_of(view, reader[0], "whole", rows=24)
    turned = dict(view.transform(batch, torch.arange(24)))
    d, h, w = places(turned, 8, (18, 20, 24)).unbind(-1)
    torch.testing.assert_close(10000 * d + 100 * h + w, turned["image"].flatten(1), atol=0.1, rtol=0)
    assert len({tuple(row.tolist()) for row in turned["image"].flatten(1)}) == 24


def test_classes_follow_the_voxels_of_any_view(nifti: Write) -> None:
    blocks = np.kron(np.arange(27).reshape(3, 3, 3), np.ones((7, 7, 7))).astype(np.uint8)
    reader = VolumeReader(str(nifti("a.nii", blocks)), intensity="none")
    truth = np.asarray(reader[0]["image"])[0]
    batch = batch_of(Crops(reader.facts, crop=10, strength=0.0), reader[0], "global")
    found = torch.stack([classes_at(where, truth, (10, 10, 10)) for where in batch["where"]])
    same = (found == batch["image"][:, 0].round()).float().mean()
    assert same > 0.75, "but where voxels between two blocks are interpolated"
    plain = batch_of(Crops(reader.facts, crop=10), reader[0], "plain")
    found = torch.stack([classes_at(where, truth, (10, 10, 10)) for where in plain["where"]])
    assert torch.equal(found, plain["image"][:, 0].long())


@pytest.mark.parametrize(
    "options",
    [
        {"crop": 1},
        {"flips": "xy"},
        {"scale": (1.2, 0.5)},
        {"zoomed": 2.0},
        {"foreground": 2.0},
        {"strength": -1.0},
        {"whole": "all"},
    ],
)
def test_options_that_make_no_sense(reader: VolumeReader, options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Crops(reader.facts, **options)


def test_slices_repeat_one_depth_that_where_names(reader: VolumeReader) -> None:
    view = Crops(reader.facts, crop=8, strength=0.0, scale=(1.0, 1.0), turn=0.0, slices=1.0)
    batch = batch_of(view, reader[0], "global")
    assert (batch["image"] == batch["image"][:, :, :1]).all()
    d, h, w = places(batch, 8, (18, 20, 24)).unbind(-1)
    torch.testing.assert_close(10000 * d + 100 * h + w, batch["image"].flatten(1), atol=0.1, rtol=0)
    some = batch_of(Crops(reader.facts, crop=8, strength=0.0, slices=0.5), reader[0], "local")["image"]
    flat = (some == some[:, :, :1]).flatten(1).all(1)
    assert 6 < int(flat.sum()) < 26
    plain = batch_of(view, reader[0], "plain")["image"]
    assert (plain != plain[:, :, :1]).flatten(1).any(1).all()


@pytest.fixture
def masked(nifti: Write, tmp_path: Path) -> VolumeReader:
    """A volume whose places above the middle of depth and left of the middle are excluded, and one without a mask."""
    voxels = ramp((24, 20, 18))
    nifti("scans/a.nii", voxels), nifti("scans/b.nii", voxels)
    w, _, d = np.indices(voxels.shape)
    nifti("masks/a.nii", ((d >= 9) & (w < 12)).astype(np.uint8))
    return VolumeReader(str(tmp_path / "scans"), intensity="none", excluded=str(tmp_path / "masks"))


@pytest.mark.parametrize("kind", ["plain", "global", "whole"])
def test_what_is_excluded_moves_with_the_crop(masked: VolumeReader, kind: Kind) -> None:
    view = Crops(masked.facts, crop=8, strength=0.0, scale=(1.0, 1.0), turn=0.0)
    batch = batch_of(view, masked[0], kind)
    d, _, w = places(batch, 8, (18, 20, 24)).unbind(-1)
    assert (batch["excluded"].flatten(1) == ((d > 8.9) & (w < 11.1))).all()
    assert not batch_of(view, masked[1], kind)["excluded"].any()
    for number in range(0, view.transforms, 5):
        turned = view.transform(batch, torch.full((32,), number))
        d, _, w = places(dict(turned), 8, (18, 20, 24)).unbind(-1)
        assert (turned["excluded"].flatten(1) == ((d > 8.9) & (w < 11.1))).all()


def test_what_is_excluded_is_turned_and_never_a_token(masked: VolumeReader) -> None:
    view = Crops(masked.facts, crop=16, strength=0.0, turn=30.0)
    batch = batch_of(view, masked[0], "global")
    place = places(batch, 16, (18, 20, 24))
    d, _, w = place.unbind(-1)
    sure = ((d - 8.5).abs() > 1.5) & ((w - 11.5).abs() > 1.5)  # voxels on the border may go either way
    sure &= (centres([16] * 3, torch.device("cpu"))[0] - 0.5).norm(dim=1) < 0.4  # turned corners are from outside
    wanted = (d > 8.5) & (w < 11.5) & (place > 0).all(-1) & (place < torch.tensor([17, 19, 23])).all(-1)
    inside = sure & (place > 1).all(-1) & (place < torch.tensor([16, 18, 22])).all(-1)
    assert (batch["excluded"].flatten(1) == wanted)[inside].float().mean() > 0.999
    tokens = ViT(masked.facts, patch=4, width=16, depth=1).tokenize(batch)
    cut = batch["excluded"].view(32, 4, 4, 4, 4, 4, 4).permute(0, 1, 3, 5, 2, 4, 6).reshape(32, 64, 64).any(-1)
    assert not (tokens.valid & cut).any()
    assert (tokens.values[cut] == 0).all()
    assert (tokens.valid | cut).all(1).any()


def test_masks_of_broken_volumes_are_left_out_with_them(nifti: Write, tmp_path: Path) -> None:
    voxels = ramp((24, 20, 18))
    for name in ("a", "b"):
        nifti(f"scans/{name}.nii", voxels), nifti(f"masks/{name}.nii", (voxels > 500).astype(np.uint8))
    (tmp_path / "scans" / "b.nii").write_bytes(b"cut short")
    reader = VolumeReader(str(tmp_path / "scans"), intensity="none", excluded=str(tmp_path / "masks"))
    assert reader[0]["excluded"].any()
    assert reader.or_none(1) is None
    nifti("masks/a.nii", np.ones((5, 5, 5), np.uint8))
    with pytest.raises(UserError, match="is of shape"):
        VolumeReader(str(tmp_path / "scans"), intensity="none", excluded=str(tmp_path / "masks"))
