"""Reading: grids, scales, nodata, complex numbers, SAFE products, manifests, samplers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unlabeled.contract import Facts
from unlabeled_eo import chips
from unlabeled_eo.rasters import Grid, probe, read
from unlabeled_eo.readers import EOReader
from unlabeled_eo.scales import convert
from unlabeled_eo.sources import find

Array = np.ndarray[Any, Any]
Tif = Callable[..., Path]
SAID = {"stored": "linear", "scale": "linear"}


def test_scales_convert_into_each_other_and_zero_has_no_decibels() -> None:
    power = torch.tensor([0.0, 0.01, 1.0, 250.0])
    assert torch.allclose(convert(power, "linear", "db")[1:], torch.tensor([-20.0, 0.0, 23.9794]), atol=1e-4)
    assert convert(power, "linear", "db")[0].isnan()
    assert torch.allclose(convert(power, "linear", "amplitude"), power.sqrt())
    for scale in ("amplitude", "db"):
        there = convert(power[1:], "linear", scale)
        assert torch.allclose(convert(there, scale, "linear"), power[1:], rtol=1e-5)
    assert torch.allclose(convert(torch.tensor([3.0]), "amplitude", "db"), torch.tensor([9.5424]), atol=1e-4)


def test_a_chip_is_its_file(tif: Tif, noise: Array) -> None:
    path = tif("a.tif", noise, names=("VV", "VH"))
    sample = EOReader(str(path), **SAID)[0]
    np.testing.assert_array_equal(sample["image"].numpy(), noise)
    assert sample["valid"].all()


def test_bands_are_picked_by_name_in_the_order_asked_for(tif: Tif, noise: Array) -> None:
    path = tif("a.tif", noise, names=("VV", "VH"))
    reader = EOReader(str(path), bands="vh,VV", **SAID)
    np.testing.assert_array_equal(reader[0]["image"].numpy(), noise[::-1])
    assert reader.facts["channels"] == ["VH", "VV"]


def test_a_unit_says_the_scale_and_decibels_become_amplitude(tif: Tif, noise: Array) -> None:
    path = tif("a.tif", (10 * np.log10(noise)).astype(np.float32), units=("dB", "dB"))
    assert EOReader(str(path)).scale == "db"
    np.testing.assert_allclose(EOReader(str(path), scale="amplitude")[0]["image"], np.sqrt(noise), rtol=1e-4)


def test_one_file_a_band_of_other_resolutions_on_the_finest_grid(tif: Tif) -> None:
    fine = np.arange(48.0 * 48, dtype=np.float32).reshape(48, 48)
    coarse = np.add.outer(np.arange(12.0), 10 * np.arange(12.0)).astype(np.float32)
    tif("s/S2_B04.tif", fine, pixel=10)
    path = tif("s/S2_B05_40m.tif", coarse, pixel=40)
    reader = EOReader(str(path.parent))
    assert (len(reader), reader.facts["channels"]) == (1, ["B04", "B05"])
    image = reader[0]["image"]
    assert image.shape == (2, 48, 48)
    np.testing.assert_array_equal(image[0], fine)
    inner = image[1, 8:40, 8:40].numpy()  # bilinear between middles of coarse pixels: a plane stays one
    rows = (np.arange(8, 40) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(inner, np.add.outer(rows, 10 * rows), atol=1e-3)


def test_windows_of_a_coarse_band_are_windows_of_the_whole(tif: Tif) -> None:
    coarse = np.random.default_rng(0).random((20, 20)).astype(np.float32)
    path = str(tif("a.tif", coarse, pixel=20))
    header = probe(path)
    grid = Grid(40, 40, header.crs, (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_500_000.0))
    whole = read(path, header, (1,), grid, (0, 0, 40, 40))[0]
    part = read(path, header, (1,), grid, (10, 16, 20, 12))[0]
    np.testing.assert_allclose(part[2:-2, 2:-2], whole[12:28, 18:26], atol=1e-5)


def test_another_projection_is_warped_onto_the_grid(tif: Tif) -> None:
    """A map that rises with its easting keeps doing so where it is read on a neighbouring zone's grid."""
    plane = np.tile(np.arange(60, dtype=np.float32), (60, 1))
    path = str(tif("a.tif", plane, pixel=1000, west=300_000, north=5_000_000, crs="EPSG:32633"))
    from rasterio.warp import transform

    (east,), (north,) = transform("EPSG:32633", "EPSG:32632", [330_000], [4_970_000])
    grid = Grid(8, 8, "EPSG:32632", (1000.0, 0.0, east - 4000, 0.0, -1000.0, north + 4000))
    out = read(path, probe(path), (1,), grid, (0, 0, 8, 8))
    back_east, _ = transform("EPSG:32632", "EPSG:32633", [east - 4000 + 500 + 1000 * 3], [north + 4000 - 500 - 3000])
    assert float(out[0, 3, 3]) == pytest.approx((back_east[0] - 300_000) / 1000 - 0.5, abs=0.3)
    assert out[-1].all()


def test_what_lies_beside_the_grid_is_not_valid(tif: Tif, noise: Array) -> None:
    path = str(tif("a.tif", noise))
    grid = Grid(40, 48, "EPSG:32633", (10.0, 0.0, 500_200.0, 0.0, -10.0, 4_500_000.0))  # 20 pixels to the east
    out = read(path, probe(path), (1,), grid, (0, 0, 48, 40))
    assert out[-1, :, :20].all()
    assert not out[-1, :, 21:].any()
    np.testing.assert_allclose(out[0, 5:40, 2:18], noise[0, 5:40, 22:38], atol=1e-5)


def test_nodata_of_the_file_of_the_user_and_nan(tif: Tif, noise: Array) -> None:
    noise = noise.copy()
    noise[0, :4] = -5
    noise[1, 10, 10] = np.nan
    noise[0, 20, 20] = 7
    sample = EOReader(str(tif("a.tif", noise, nodata=-5)), nodata=7, **SAID)[0]
    wanted = np.ones((48, 40), bool)
    wanted[:4] = wanted[10, 10] = wanted[20, 20] = False
    np.testing.assert_array_equal(sample["valid"].numpy(), wanted)
    assert sample["image"].isfinite().all()


def test_zeros_of_power_are_not_valid_in_decibels(tif: Tif, noise: Array) -> None:
    noise = noise.copy()
    noise[0, 3, 4] = 0
    sample = EOReader(str(tif("a.tif", noise)), stored="linear", scale="db")[0]
    assert not sample["valid"][3, 4]
    assert int((~sample["valid"]).sum()) == 1


def test_a_large_scene_is_cut_and_empty_chips_are_left_out(tif: Tif) -> None:
    scene = np.arange(100 * 130, dtype=np.float32).reshape(100, 130) + 1
    scene[:40, :40] = 0
    reader = EOReader(str(tif("a.tif", scene, nodata=0)), chip=32, **SAID)
    names = [reader.name(at) for at in range(len(reader))]
    assert "a.tif @ 0,0" not in names
    assert "a.tif @ 68,98" in names
    assert reader.left_out == 1
    at = names.index("a.tif @ 68,98")
    np.testing.assert_array_equal(reader[at]["image"][0].numpy(), scene[68:100, 98:130])


def test_random_chips_are_shared_out_by_area_and_the_same_again(tif: Tif) -> None:
    tif("s/a.tif", np.ones((100, 100), np.float32))
    path = tif("s/b.tif", np.ones((200, 300), np.float32))
    made = [
        EOReader(str(path.parent), sampler="random", chip=32, samples=140, sampler_seed=seed, **SAID)
        for seed in (0, 0, 1)
    ]
    assert np.bincount(made[0].rows[:, 0]).tolist() == [20, 120]
    np.testing.assert_array_equal(made[0].rows, made[1].rows)
    assert (made[0].rows != made[2].rows).any()
    assert (made[0].rows[:20, 1:3].max(0) <= 68).all()


def test_windows_of_tiles_straddle_none_and_reach_every_tile(tif: Tif) -> None:
    path = tif("a.tif", np.ones((200, 136), np.uint16), tiled=True, blockxsize=64, blockysize=64)
    options: dict[str, Any] = {"chip": 32, "samples": 400, "stored": "none"}
    rows = EOReader(str(path), sampler="tiles", **options).rows
    for start, size in ((rows[:, 1], 200), (rows[:, 2], 136)):
        tile = (start + 16) // 64
        room = np.minimum(64 * tile + 64, size) - 64 * tile >= 32  # the last ones are 8 high and wide
        assert (start[room] // 64 == (start[room] + 31) // 64).all()
        assert set(tile.tolist()) >= set(range(size // 64))
        assert (start >= 0).all()
        assert (start + 32 <= size).all()
    straddles = EOReader(str(path), sampler="random", **options).rows[:, 1]
    assert (straddles // 64 != (straddles + 31) // 64).mean() > 0.2
    centred = EOReader(str(path), sampler="tiles", centre=100, **options).rows
    assert (centred[:, 1] >= 50).all()
    assert (centred[:, 1] + 32 <= 150).all()


def test_a_grid_covers_all_of_a_scene() -> None:
    (windows,) = chips.places([(70, 50)], "grid", 32, None, None, 0)
    seen = np.zeros((70, 50), bool)
    for row, column, height, width in windows:
        assert (height, width) == (32, 32)
        seen[row : row + height, column : column + width] = True
    assert seen.all()


def test_the_valid_share_of_windows_against_slices() -> None:
    mask = np.random.default_rng(0).random((13, 9)) > 0.4
    windows = [(0, 0, 20, 20), (30, 10, 40, 50), (110, 70, 20, 20)]
    shares = chips.seen_share(windows, mask, 130, 90)
    assert shares.tolist() == pytest.approx([mask[0:2, 0:2].mean(), mask[3:7, 1:6].mean(), mask[11:13, 7:9].mean()])


def test_the_centre_says_nothing_of_the_size(tif: Tif) -> None:
    tif("s/a.tif", np.ones((40, 41), np.float32))
    path = tif("s/b.tif", np.ones((90, 80), np.float32))
    reader = EOReader(str(path.parent), centre=32, **SAID)
    assert {tuple(reader[at]["valid"].shape) for at in range(2)} == {(32, 32)}
    assert reader.rows[0].tolist() == [0, 4, 4, 32, 32]


@pytest.mark.parametrize(("part", "wanted"), [("amplitude", 5.0), ("phase", np.arctan2(4, 3)), ("iq", None)])
def test_complex_rasters(tif: Tif, part: Any, wanted: float | None) -> None:
    values = np.full((16, 16), 3 + 4j, np.complex64)
    reader = EOReader(str(tif("a.tif", values)), part=part)
    image = reader[0]["image"]
    if wanted is None:
        assert image[:, 0, 0].tolist() == [3, 4]
        assert len(reader.facts["channels"]) == 2
    else:
        assert float(image[0, 0, 0]) == pytest.approx(wanted)


def test_pairs_of_bands_are_complex_and_kept_so(tif: Tif) -> None:
    values = np.stack([np.full((16, 16), 3.0), np.full((16, 16), 4.0)]).astype(np.float32)
    reader = EOReader(str(tif("a.tif", values)), bands="VV_I,VV_Q", pairs=True, part="keep", scale="db")
    assert reader[0]["image"].dtype == torch.complex64
    assert reader.facts["mean"] == [pytest.approx(20 * np.log10(5))]
    assert (reader.facts["channels"], reader.facts["complex"]) == (["VV"], True)


def test_npy_png_and_jpg_chips(tmp_path: Path) -> None:
    from PIL import Image

    chip = np.random.default_rng(0).integers(0, 255, (20, 24), dtype=np.uint8)
    np.save(tmp_path / "a.npy", chip)
    Image.fromarray(chip).save(tmp_path / "b.png")
    Image.fromarray(chip).save(tmp_path / "c.jpg", quality=100)
    reader = EOReader(str(tmp_path))
    assert len(reader) == 3
    for at in (0, 1):
        np.testing.assert_array_equal(reader[at]["image"][0].numpy(), chip)
    assert np.abs(reader[2]["image"][0].numpy() - chip).max() < 6


def safe(root: Path, tif: Tif, values: Array, kind: str = "GRDH") -> Path:
    """A Sentinel-1 product whose calibration constant is 100 at the first line and 300 at the last."""
    name = f"S1A_IW_{kind}_1SDV_X.SAFE"
    rows, columns = values.shape
    for band in ("vv", "vh"):
        stem = f"s1a-iw-grd-{band}-20200101t000000-1"
        tif(f"{name}/measurement/{stem}.tiff", values, crs=None)
        vectors = "".join(
            f"<calibrationVector><line>{line}</line><pixel>0 {columns - 1}</pixel>"
            f"<sigmaNought>{value} {value}</sigmaNought></calibrationVector>"
            for line, value in ((0, 100), (rows - 1, 300))
        )
        table = root / name / "annotation" / "calibration" / f"calibration-{stem}.xml"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(f"<calibration><calibrationVectorList>{vectors}</calibrationVectorList></calibration>")
    return root / name


def test_a_sentinel_1_product_is_calibrated_by_its_own_table(tmp_path: Path, tif: Tif) -> None:
    path = safe(tmp_path, tif, np.full((21, 16), 200, np.uint16))
    reader = EOReader(str(path), bands="VV,VH", scale="linear")
    image = reader[0]["image"]
    constant = 100 + 10 * np.arange(21.0)
    np.testing.assert_allclose(image[0, :, 5].numpy(), (200 / constant) ** 2, rtol=1e-5)
    plain = EOReader(str(path), bands="VV", calibrate=False)
    assert float(plain[0]["image"][0, 0, 0]) == 200
    assert plain.scale == "amplitude"


def test_a_sentinel_2_product_takes_the_finest_file_of_a_band(tmp_path: Path, tif: Tif) -> None:
    lossless: dict[str, Any] = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": True}
    folder = "S2A_MSIL2A_X.SAFE/GRANULE/L2A_T33/IMG_DATA"
    for place, band, size in (("R10m", "B04_10m", 24), ("R20m", "B04_20m", 12), ("R20m", "B8A_20m", 12)):
        array = np.full((size, size), size, np.uint16)
        tif(f"{folder}/{place}/T33_{band}.jp2", array, pixel=240 / size, **lossless)
    reader = EOReader(str(tmp_path))
    assert (len(reader), reader.facts["channels"]) == (1, ["B04", "B8A"])
    assert reader[0]["image"].amax((1, 2)).tolist() == [24, 12]
    assert reader.labels("scene").tolist() == ["S2A_MSIL2A_X.SAFE"]


def test_manifests_have_columns_and_scenes_of_two_sensors(tif: Tif, tmp_path: Path, noise: Array) -> None:
    tif("s1/x_VV.tif", noise[0])
    tif("s2/y_B04.tif", noise[1])
    (tmp_path / "list.csv").write_text("path,kind\ns1/x_VV.tif;s2/y_B04.tif,sea\n")
    reader = EOReader(str(tmp_path / "list.csv"), bands="B04,VV")
    np.testing.assert_array_equal(reader[0]["image"].numpy(), noise[::-1])
    assert reader.labels("kind").tolist() == ["sea"]
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"file": ["s1/x_VV.tif"], "kind": ["land"]}), tmp_path / "list.parquet")
    assert EOReader(str(tmp_path / "list.parquet")).labels("kind").tolist() == ["land"]


def test_a_scene_that_lacks_a_band_is_broken_or_partial(tif: Tif, noise: Array) -> None:
    tif("s/a.tif", noise, names=("VV", "VH"))
    path = tif("s/b.tif", noise[:1], names=("VV",))
    reader = EOReader(str(path.parent), bands="VV,VH", **SAID)
    with pytest.raises(Exception, match="it has no band VH but VV"):
        reader[1]
    assert [row["scenes"] for row in reader.summary()] == ["1 of 2"] * 2
    partial = EOReader(str(path.parent), bands="VV,VH", partial=True, **SAID)
    assert [row["scenes"] for row in partial.summary()] == ["2"] * 2
    sample = partial[1]
    assert sample["bands"].tolist() == [True, False]
    assert sample["valid"].all()
    assert not sample["image"][1].any()


def test_facts_of_a_run_rule_other_data(tif: Tif, noise: Array) -> None:
    facts: Facts = json.loads(json.dumps(EOReader(str(tif("a.tif", noise)), stored="linear", scale="db").facts))
    other = EOReader(str(tif("b.tif", 3 * noise)), facts=facts, stored="linear")
    assert other.scale == "db"
    assert other.facts == facts


def test_labels_by_folder_scene_pattern_and_json(tif: Tif, noise: Array, tmp_path: Path) -> None:
    tif("one/Patch/Cargo_x1_y2.tif", noise)
    path = tif("two/Patch/Tug_x3_y4.tif", noise)
    (path.parent / "about_labels.json").write_text(json.dumps({"labels": ["Sea", "Port"], "n": 3}))
    reader = EOReader(str(tmp_path), pattern="{type}_x*", **SAID)
    assert reader.labels("type").tolist() == ["Cargo", "Tug"]
    assert reader.labels("{what}_x*").tolist() == ["Cargo", "Tug"]
    assert reader.labels("folder").tolist() == ["Patch", "Patch"]
    assert reader.labels("scene").tolist() == ["one", "two"]
    assert reader.labels("_labels.json:labels").tolist() == ["", "Sea|Port"]


def test_names_of_bands_in_file_names() -> None:
    from unlabeled_eo.sources import ONE_BAND, _band

    for stem, scene, band in (
        ("S2A_MSIL2A_20170613T101031_87_48_B8A", "S2A_MSIL2A_20170613T101031_87_48", "B8A"),
        ("T33UUP_20200101_B2_10m", "T33UUP_20200101", "B02"),
        ("a-vv", "a", "VV"),
    ):
        match = ONE_BAND.fullmatch(stem)
        assert match is not None
        assert (match["scene"], _band(match["band"])) == (scene, band)
    assert ONE_BAND.fullmatch("hb19907") is None


def test_scenes_keep_their_order(tmp_path: Path, tif: Tif, noise: Array) -> None:
    for name in ("b.tif", "a.tif", "c/d.tif"):
        tif(name, noise)
    assert [scene.name for scene in find(str(tmp_path))] == ["a.tif", "b.tif", "c/d.tif"]
