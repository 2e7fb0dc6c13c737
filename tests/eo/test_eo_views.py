"""Views: where crops lie, what they change, and what they leave."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from unlabeled.contract import Batch, Kind, View
from unlabeled.data.collate import collate
from unlabeled.errors import UserError
from unlabeled.plugins import load
from unlabeled.randomness import Draws, sample_keys
from unlabeled_eo.views import Crops, OpticalViews, SarViews, SensorViews, default_crop

FACTS: dict[str, Any] = {
    "channels": ["VV", "VH", "B04"],
    "bands": ["VV", "VH", "B04"],
    "scale": "linear",
    "complex": False,
    "radar": True,
    "mean": [1.0, 0.5, 900.0],
    "std": [0.5, 0.2, 300.0],
    "low": [0.0, 0.0, 0.0],
    "high": [2.0, 1.0, 2000.0],
    "chip": 64,
    "side": 40,
    "styles": [],
}


def chip(rows: int = 40, columns: int = 44) -> dict[str, torch.Tensor]:
    """Its bands are the row, the column and one, from 1 on."""
    down = torch.arange(rows, dtype=torch.float32)[:, None].expand(rows, columns)
    over = torch.arange(columns, dtype=torch.float32).expand(rows, columns)
    image = torch.stack([(down + 0.5) / rows, (over + 0.5) / columns, torch.ones(rows, columns)])
    return {"image": image, "valid": torch.ones(rows, columns, dtype=torch.bool)}


def made(view: View, samples: list[Any], kind: Kind, seed: int = 0) -> Batch:
    keys = sample_keys(seed, 0, torch.arange(len(samples)))
    cut = [view.sample(one, kind, Draws(keys[at : at + 1])) for at, one in enumerate(samples)]
    return view.batch(collate(cut, load("eo")), kind, Draws(keys))


def shows_where_it_says(batch: Batch, close: float = 1e-4) -> None:
    """Bands that are coordinates agree with `where` at every pixel inside of the chip."""
    side = batch["image"].shape[-1]
    middle = (torch.arange(side) + 0.5) / side
    grid = torch.stack([*torch.meshgrid(middle, middle, indexing="ij"), torch.ones(side, side)])
    place = torch.einsum("bij,jhw->bihw", batch["where"], grid)
    good = batch["valid"][:, None].expand_as(place)
    torch.testing.assert_close(batch["image"][:, :2][good], place[good], rtol=0, atol=close)


@pytest.mark.parametrize("kind", ["plain", "global", "local", "whole"])
@pytest.mark.parametrize("crop", [24, 50])
def test_where_is_the_truth(kind: Kind, crop: int) -> None:
    view = Crops(FACTS, crop=crop, local=12, flips="hw", turns=True)
    batch = made(view, [chip() for _ in range(8)], kind)
    assert batch["image"].shape[-1] == (12 if kind == "local" else crop)
    shows_where_it_says(batch)


def test_where_is_the_truth_of_transforms_and_zoom() -> None:
    view = Crops(FACTS, crop=24, flips="w")
    batch = made(view, [chip() for _ in range(4)], "plain")
    shows_where_it_says(view.transform(batch, torch.arange(4)))
    shows_where_it_says(made(Crops(FACTS, crop=24, zoom=(0.7, 1.5)), [chip() for _ in range(4)], "global"), close=0.05)


def test_quarters_are_counter_clockwise() -> None:
    view = Crops(FACTS, crop=24)
    batch = made(view, [chip() for _ in range(4)], "whole")
    turned = view.transform(batch, torch.arange(4))["image"]
    for quarters in range(4):
        torch.testing.assert_close(turned[quarters], torch.rot90(batch["image"][quarters], quarters, (-2, -1)))


def test_whole_is_the_middle_whatever_the_size() -> None:
    batch = made(Crops(FACTS, crop=20), [chip(40, 44), chip(20, 20), chip(10, 30)], "whole")
    torch.testing.assert_close(batch["image"][0], chip()["image"][:, 10:30, 12:32])
    assert batch["valid"][1].all()
    assert batch["valid"][2, 5:15].all()
    assert not batch["valid"][2, :5].any()


def test_crops_keep_to_what_is_valid() -> None:
    sample = chip(80, 80)
    sample["valid"][:, :60] = False
    batch = made(Crops(FACTS, crop=20), [sample for _ in range(64)], "global")
    shares = batch["valid"].float().mean((1, 2))
    assert float((shares > 0.5).float().mean()) > 0.35  # one place in five is, of four tried
    assert float(made(Crops(FACTS, crop=20), [chip(80, 80)], "global")["valid"].float().mean()) == 1


def test_flips_are_half_and_half_and_of_the_axis_asked_for() -> None:
    batch = made(Crops(FACTS, crop=16, flips="w"), [chip() for _ in range(200)], "global")
    turned = batch["where"][:, 1, 1] < 0
    assert 0.4 < float(turned.float().mean()) < 0.6
    assert (batch["where"][:, 0, 0] > 0).all()


def test_speckle_changes_its_share_of_the_views_and_not_the_mean() -> None:
    sample = {"image": torch.ones(3, 40, 40), "valid": torch.ones(40, 40, dtype=torch.bool)}
    view = SarViews(FACTS, crop=32, speckle=0.5, looks=(4.0, 4.0), multilook=0, despeckle=0)
    image = made(view, [sample for _ in range(100)], "global")["image"]
    changed = image.flatten(1).std(1) > 0.1
    assert 0.35 < float(changed.float().mean()) < 0.65
    assert float(image[changed].mean()) == pytest.approx(1, abs=0.01)
    assert float(image[changed].var()) == pytest.approx(0.25, rel=0.03)
    assert torch.equal(made(view, [sample], "plain")["image"], torch.ones(1, 3, 32, 32))


def test_what_is_not_valid_stays_empty() -> None:
    sample = chip()
    sample["valid"][5:15, 5:15] = False
    sample["image"] = sample["image"].masked_fill(~sample["valid"], 0)
    for view in (SarViews(FACTS, crop=40, speckle=1, multilook=1), OpticalViews(FACTS, crop=40, zoom=(1.0, 1.0))):
        batch = made(view, [sample for _ in range(4)], "global")
        assert not batch["image"].masked_select(~batch["valid"][:, None]).any()


def test_gain_is_in_decibels_on_every_scale() -> None:
    sample = {"image": torch.full((3, 20, 20), 2.0), "valid": torch.ones(20, 20, dtype=torch.bool)}
    for scale in ("linear", "amplitude", "db"):
        view = SarViews({**FACTS, "scale": scale}, crop=16, speckle=0, multilook=0, despeckle=0, gain=3.0)
        image = made(view, [sample for _ in range(50)], "global")["image"][:, 0, 0, 0].double()
        change = image - 2 if scale == "db" else (10 if scale == "linear" else 20) * (image / 2).log10()
        assert 2.5 < float(change.abs().max()) <= 3.0001


def test_optical_views_scale_bands_apart_and_keep_one() -> None:
    sample = {"image": torch.randn(3, 40, 40), "valid": torch.ones(40, 40, dtype=torch.bool)}
    view = OpticalViews(FACTS, crop=32, zoom=(1.0, 1.0), blur=0, drop=0.9)
    image = made(view, [sample for _ in range(60)], "global")["image"]
    there = image.flatten(2).std(2) > 1e-6
    assert (there.sum(1) >= 1).all()
    assert float(there.float().mean()) < 0.6


def test_a_sensor_view_shows_one_sensor() -> None:
    batch = made(SensorViews(FACTS, crop=24), [chip() for _ in range(40)], "global")
    assert {tuple(row) for row in batch["bands"].tolist()} == {(True, True, False), (False, False, True)}
    assert not batch["image"][~batch["bands"]].any()
    only = {**chip(), "bands": torch.tensor([True, True, False])}
    assert made(SensorViews(FACTS, crop=24), [only] * 20, "global")["bands"].tolist() == [[True, True, False]] * 20


def test_sub_apertures_need_complex_data() -> None:
    with pytest.raises(UserError, match="sub-apertures need complex data: read them with --part keep"):
        SarViews(FACTS, aperture=0.5)
    view = SarViews({**FACTS, "complex": True}, crop=32, aperture=0.5, speckle=0)
    sample = {"image": torch.randn(3, 40, 40, dtype=torch.complex64), "valid": torch.ones(40, 40, dtype=torch.bool)}
    image = made(view, [sample, sample], "global")["image"]
    assert image.is_complex()
    spectrum = torch.fft.fft(image, dim=-2).abs().amax((1, 3))  # [B, rows]
    assert ((spectrum < 1e-3).sum(1) > 0).all()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Crops, {"crop": 1}, "at least 2 pixels"),
        (Crops, {"flips": "x"}, "letters h and w"),
        (Crops, {"zoom": (2.0, 1.0)}, "the smaller first"),
        (SarViews, {"looks": (0.0, 1.0)}, "looks are two numbers"),
        (SarViews, {"speckle": 1.5}, "shares from 0 to 1"),
        (OpticalViews, {"drop": 1.0}, "shares below 1"),
        (SensorViews, {"sensors": "1-9"}, "ranges of the 3 bands"),
    ],
)
def test_options_that_make_no_sense(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        kind(FACTS, **options)


def test_radar_views_refuse_what_nobody_called_radar() -> None:
    with pytest.raises(UserError, match="view 'sar' is for radar"):
        SarViews({**FACTS, "radar": False})


def test_default_crops_leave_room_to_move() -> None:
    assert default_crop({"side": 128, "chip": 256}) == 112
    assert default_crop({"side": 1000, "chip": 256}) == 224
    assert default_crop({"side": 12, "chip": 256}) == 16
