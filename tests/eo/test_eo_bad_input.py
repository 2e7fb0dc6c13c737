"""Files as they come: each is read, or named with the cause and the way out, and training goes on without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from at_hand import at_hand
from unlabeled.errors import BrokenItem, UserError
from unlabeled.training.pretrain import pretrain
from unlabeled_eo.leakage import panel
from unlabeled_eo.readers import EOReader

Array = np.ndarray[Any, Any]
Tif = Callable[..., Path]
SAID = {"stored": "linear", "scale": "linear"}


@pytest.fixture
def beside(tif: Tif, noise: Array, tmp_path: Path) -> Callable[..., EOReader]:
    """A reader of the folder with a good chip, "good.tif", beside what a test puts there; "bad..." comes first."""
    tif("good.tif", noise)
    return lambda **options: EOReader(str(tmp_path), **{**SAID, **options})


def refused(reader: EOReader, words: str) -> None:
    assert reader.name(0).startswith("bad")
    for _ in range(2):
        with pytest.raises(BrokenItem, match=words):
            reader[0]
    assert reader[1]["valid"].all()
    raw = reader.raw()
    assert raw is not None
    assert np.isfinite(raw).all()


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_truncated(beside: Callable[..., EOReader], tif: Tif, noise: Array, share: float) -> None:
    cut(tif("bad.tif", noise), share)
    refused(beside(), "cannot be read")


def test_empty_and_text(beside: Callable[..., EOReader], tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_text("not a raster")
    refused(beside(), "cannot be read as a raster")


@pytest.mark.parametrize("name", ["gone.tif", "gone.npy"])
def test_absent(name: str, tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path\n{name}\n")
    with pytest.raises(UserError, match=f"{name}: it does not exist; what a manifest names is relative to"):
        EOReader(str(manifest))


def test_all_nan_and_all_nodata(beside: Callable[..., EOReader], tif: Tif, noise: Array) -> None:
    tif("bad.tif", np.full_like(noise, np.nan))
    refused(beside(), r"only 0.0% of it is valid, less than --least 0.1")


def test_infinities_of_decibels_are_nodata(tif: Tif, noise: Array) -> None:
    image = 10 * np.log10(noise)
    image[0, :5] = -np.inf
    sample = EOReader(str(tif("a.tif", image.astype(np.float32))), stored="db")[0]
    assert not sample["valid"][:5].any()
    assert sample["valid"][5:].all()


def test_negative_power(beside: Callable[..., EOReader], tif: Tif, noise: Array) -> None:
    tif("bad.tif", -noise)
    refused(beside(), "it is no linear: linear values are not negative, and these go down to")


def test_power_that_is_called_decibels(tif: Tif, noise: Array) -> None:
    with pytest.raises(UserError, match=r"it is no db: decibels lie within -200 … 100"):
        EOReader(str(tif("a.tif", 1000 * noise)), stored="db")


def test_an_unknown_scale_is_not_guessed(tif: Tif, noise: Array) -> None:
    with pytest.raises(UserError, match="so that they cannot be taken as db: declare it, as in --stored linear"):
        EOReader(str(tif("a.tif", noise)), scale="db")


def test_scales_are_not_mixed(tif: Tif, noise: Array, tmp_path: Path) -> None:
    tif("a.tif", noise, units=("dB", "dB"))
    tif("b.tif", noise, units=("amplitude", "amplitude"))
    with pytest.raises(UserError, match=r"scenes are of different scales \(amplitude, db\); ask for one"):
        EOReader(str(tmp_path))
    reader = EOReader(str(tmp_path), scale="amplitude")
    np.testing.assert_allclose(reader[0]["image"], 10 ** (noise / 20), rtol=1e-4)
    np.testing.assert_array_equal(reader[1]["image"], noise)
    with pytest.raises(UserError, match=r"b.tif says that it holds amplitude, and --stored says db"):
        EOReader(str(tmp_path), stored="db")


def test_polarisations_that_are_here_decibels_and_there_not(tif: Tif, noise: Array, tmp_path: Path) -> None:
    tif("a_VV.tif", noise[0])
    tif("b_VV.tif", (10 * np.log10(noise[0]) - 10).astype(np.float32))
    with pytest.raises(UserError, match="1 of 2 chips looked at have many negative values and the others have none"):
        EOReader(str(tmp_path))


def test_complex_where_real_was_declared(tif: Tif, noise: Array) -> None:
    path = tif("a.tif", noise.astype(np.complex64))
    with pytest.raises(UserError, match="says that it holds amplitude, and --stored says db"):
        EOReader(str(path), stored="db")


def test_chips_smaller_than_the_crop_are_padded_with_what_is_not_valid(
    beside: Callable[..., EOReader], tif: Tif, noise: Array, tmp_path: Path
) -> None:
    tif("bad_small.tif", noise[:, :9, :7])
    run = pretrain(
        "eo",
        tmp_path,
        "simclr",
        out=tmp_path / "run",
        reader={"name": "eo", **SAID},
        view={"name": "sar", "crop": 24},
        steps=1,
        batch_size=2,
        workers=0,
        quiet=True,
    )
    assert run.step == 1
    assert not (tmp_path / "run" / "quarantine.jsonl").exists()


def test_no_crs_and_rotated_are_read_as_they_are(tif: Tif, noise: Array, tmp_path: Path) -> None:
    tif("a.tif", noise, crs=None)
    tif("b.tif", noise, transform=(8.0, 6.0, 0.0, 6.0, -8.0, 0.0))
    reader = EOReader(str(tmp_path), **SAID)
    for at in (0, 1):
        np.testing.assert_array_equal(reader[at]["image"], noise)


def test_bands_without_a_place_on_other_grids_share_their_edges_and_npy_do_not(tmp_path: Path, noise: Array) -> None:
    np.save(tmp_path / "a_VV.npy", noise[0])
    np.save(tmp_path / "a_VH.npy", noise[1, ::2, ::2])
    with pytest.raises(UserError, match=r"not one chip can be read; .*; \.npy files are not resampled"):
        EOReader(str(tmp_path), **SAID)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bands": "HH"}, "has a band HH; they have 1, 2"),
        ({"chip": 0}, "chip, stride and samples must be at least 1"),
        ({"sampler": "gird"}, "did you mean grid"),
        ({"stored": "power"}, "stored scale"),
        ({"least": 0.0}, "least is a share of a chip above 0"),
        ({"bands": "1", "pairs": True}, "pairs are a real and an imaginary band each, and there are 1 bands"),
        ({"centre": 0}, "centre is a number of pixels"),
    ],
)
def test_options_that_make_no_sense(beside: Callable[..., EOReader], options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        beside(**options)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no rasters; known are: \.tif .* save other arrays .* as \.npy"):
        EOReader(str(tmp_path))
    with pytest.raises(UserError, match="does not exist, and as a pattern it matches no raster"):
        EOReader(str(tmp_path / "none"))
    (tmp_path / "list.csv").write_text("name\nx\n")
    with pytest.raises(UserError, match="has no column of paths; call it path"):
        EOReader(str(tmp_path / "list.csv"))


def test_labels_that_there_are_not(tif: Tif, noise: Array) -> None:
    reader = EOReader(str(tif("a.tif", noise)), **SAID)
    for spec, words in (("kind", "has no label 'kind'"), ("x.json:a", r"no scene has a file \*x.json beside it")):
        with pytest.raises(UserError, match=words):
            reader.labels(spec)
    with pytest.raises(UserError, match="has one class only"):
        panel(reader, "folder")


def test_a_panel_finds_what_the_size_says(tif: Tif, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for number in range(60):
        side = 20 + number % 2
        tif(f"{number % 2}/{number}.tif", chance.gamma(2, 0.5, (1, side, side)).astype(np.float32), crs=None)
    found = {leak.what: leak.accuracy for leak in panel(EOReader(str(tmp_path), **SAID), "folder")}
    assert found["size"] == 1
    assert found["border"] < 0.9


def test_opensarship_with_its_malformed_xml_is_read_whole() -> None:
    folder = at_hand("eo/opensarship")
    scenes = ",".join(str(path) for path in sorted(folder.glob("*GRD*")))
    reader = EOReader(scenes, bands="VH,VV", stored="linear", scale="db", pattern="{type}_x*")
    assert len(reader) == 122
    assert all(reader[index]["image"].isfinite().all() for index in range(len(reader)))
    assert {"Cargo", "Tanker", "Other Type"} <= set(reader.labels("type").tolist())
    assert len(set(reader.labels("scene").tolist())) == 4


def test_bigearthnet_pairs_are_one_scene_and_a_manifest_joins_sensors(tmp_path: Path) -> None:
    folder = at_hand("eo/bigearthnet-sample")
    reader = EOReader(str(folder / "BigEarthNet-S2-Example"), bands="B02,B05,B01")
    assert len(reader) == 6
    assert reader[0]["image"].shape == (3, 120, 120)
    assert "|" in reader.labels("labels_metadata.json:labels")[0]
    radar = sorted((folder / "BigEarthNet-S1-Example").iterdir())[0]
    optical = sorted((folder / "BigEarthNet-S2-Example").iterdir())[0]
    (tmp_path / "pairs.csv").write_text(f"path\n{radar};{optical}\n")
    both = EOReader(str(tmp_path / "pairs.csv"), bands="VV,VH,B04,B8A")
    assert both[0]["image"].shape == (4, 120, 120)
    assert float(both[0]["image"][0].mean()) < 0 < float(both[0]["image"][2].mean())


@pytest.mark.parametrize("name", ["RGBA.uint16.tif", "cogeo.tif", "goes.tif", "rgb_deflate.tif", "rotated.tif"])
def test_rasterios_own_rasters(name: str) -> None:
    import rasterio

    path = at_hand("eo/geotiff") / name
    reader = EOReader(str(path), chip=128, least=0.01)
    _, row, column, height, width = reader.rows[len(reader) // 2].tolist()
    sample = reader[len(reader) // 2]
    with rasterio.open(path) as file:
        window = rasterio.windows.Window(column, row, width, height)
        wanted = file.read(list(range(1, len(reader.facts["channels"]) + 1)), window=window)
    good = sample["valid"].numpy()
    np.testing.assert_array_equal(sample["image"].numpy()[:, good], wanted[:, good])


def test_a_raster_whose_nodata_is_nan() -> None:
    sample = EOReader(str(at_hand("eo/geotiff") / "float_nan.tif"))[0]
    assert sample["valid"].tolist() == [[True, True, False], [True, True, True]]
