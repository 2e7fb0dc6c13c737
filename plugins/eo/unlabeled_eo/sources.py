"""Which scenes there are: files, folders of them, one file a band, SAFE products, and manifests with columns."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlabeled.errors import UserError
from unlabeled_eo import torchgeo
from unlabeled_eo.listed import File, Scene

SUFFIXES = (".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg", ".npy", ".vrt", ".img")
MANIFESTS = (".csv", ".tsv", ".parquet", ".geoparquet")
PATH_COLUMNS = ("path", "file", "file_name", "filename", "image", "scene", "location")
BAND = r"(?P<band>VV|VH|HV|HH|B\d{1,2}A?|B8A)"
ONE_BAND = re.compile(rf"(?P<scene>.+?)[_.-]{BAND}(?:_\d+m)?", re.IGNORECASE)  # SCENE_VV, SCENE_B05_20m
MEASURED = re.compile(r"(?P<mode>s1\w-\w+)-(?P<kind>grd|slc)\w*-(?P<band>vv|vh|hv|hh)-.*", re.IGNORECASE)


def find(source: str) -> list[Scene]:
    """The scenes behind a path, a glob, a manifest, a name of TorchGeo's, or several of them with commas between.

    Raises:
        UserError: there is nothing, or a manifest cannot be read.
    """
    if "," in source and not Path(source).exists():
        return [scene for part in source.split(",") if part.strip() for scene in find(part.strip())]
    if source.startswith(torchgeo.PREFIX):
        return torchgeo.find(source)
    path = Path(source).expanduser()
    if path.is_dir():
        scenes = _folder(path)
        if not scenes:
            raise UserError(
                f"{source} holds no rasters; known are: {' '.join(SUFFIXES)} and .SAFE folders; save other arrays "
                "(.mat, .h5) as .npy, [bands, rows, columns]"
            )
        return scenes
    if path.is_file():
        if path.suffix.lower() in MANIFESTS:
            return _manifest(path)
        return [Scene(path.name, (File(str(path)),))]
    files = sorted(Path(one) for one in glob.glob(os.path.expanduser(source), recursive=True))
    scenes = _grouped([one for one in files if _is_raster(one)], Path())
    scenes += [scene for one in files if one.is_dir() for scene in _folder(one)]
    if not scenes:
        raise UserError(f"{source} does not exist, and as a pattern it matches no raster")
    return scenes


def _is_raster(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _folder(root: Path) -> list[Scene]:
    """Scenes below a folder, in the order of their names."""
    if root.suffix.upper() == ".SAFE":
        return _safe(root, root.parent)
    safes, plain = [], []
    for folder, inner, names in os.walk(root):
        products = [name for name in inner if name.upper().endswith(".SAFE")]
        inner[:] = sorted(set(inner) - set(products))
        safes += [Path(folder, name) for name in products]
        plain += [Path(folder, name) for name in names if _is_raster(Path(folder, name))]
    made = _grouped(sorted(plain), root) + [scene for safe in sorted(safes) for scene in _safe(safe, root)]
    return sorted(made, key=lambda scene: scene.name)


def _grouped(paths: Sequence[Path], root: Path) -> list[Scene]:
    """One scene a file, or of all files that differ in the band that ends their names."""
    scenes: dict[str, list[File]] = {}
    for path in paths:
        match = ONE_BAND.fullmatch(path.stem)
        name = str(path.with_name(match["scene"])) if match else str(path)
        scenes.setdefault(name, []).append(File(str(path), _band(match["band"]) if match else ""))
    return [Scene(os.path.relpath(name, root), tuple(files)) for name, files in scenes.items()]


def _band(name: str) -> str:
    """B2 and b02 are B02, b8a is B8A."""
    name = name.upper()
    digits = re.fullmatch(r"B0?(\d{1,2})(A?)", name)
    return name if digits is None else f"B{int(digits[1])}A" if digits[2] else f"B{int(digits[1]):02d}"


def _safe(root: Path, base: Path) -> list[Scene]:
    """Sentinel-1: measurement/*.tiff, a scene for each swath. Sentinel-2: the finest file of every band."""
    name = os.path.relpath(root, base)
    measured = [path for path in sorted((root / "measurement").glob("*")) if _is_raster(path)]
    if measured:
        swaths: dict[str, list[File]] = {}
        for path in measured:
            match = MEASURED.fullmatch(path.stem)
            mode, band = (match["mode"].upper(), _band(match["band"])) if match else (path.stem, "")
            swaths.setdefault(mode, []).append(File(str(path), band))
        if len(swaths) == 1:
            return [Scene(name, tuple(*swaths.values()), name)]
        return [Scene(f"{name}/{mode}", tuple(files), name) for mode, files in sorted(swaths.items())]
    finest: dict[str, Path] = {}
    for path in sorted(root.glob("GRANULE/*/IMG_DATA/**/*.jp2")):  # R10m before R20m before R60m
        match = ONE_BAND.fullmatch(path.stem)
        if match:
            finest.setdefault(_band(match["band"]), path)
    return [Scene(name, tuple(File(str(path), band) for band, path in finest.items()), name)] if finest else []


def _manifest(path: Path) -> list[Scene]:
    """A scene a row: a file, a folder of one scene, or several of these with ; between (sensors of one place)."""
    rows = _rows(path)
    if not rows:
        raise UserError(f"{path} lists no scenes")
    column = next((name for name in PATH_COLUMNS if name in rows[0]), None)
    if column is None:
        raise UserError(f"{path} has no column of paths; call it path (or one of: {', '.join(PATH_COLUMNS[1:])})")
    made = []
    for row in rows:
        name = str(row[column])
        columns = {key: _text(value) for key, value in row.items() if key not in (column, "geometry")}
        parts = [_named(path, path.parent / part.strip()) for part in name.split(";")]
        files = tuple(file for part in parts for file in part.files)
        made.append(Scene(name, files, parts[0].product, columns))
    return made


def _named(manifest: Path, place: Path) -> Scene:
    """The scene that a path of a manifest is."""
    if not place.is_dir():
        match = ONE_BAND.fullmatch(place.stem)
        return Scene(str(place), (File(str(place), _band(match["band"]) if match else ""),))
    found = _folder(place)
    if len(found) != 1:
        raise UserError(f"{manifest} names the folder {place}, which holds {len(found)} scenes; name a scene a row")
    return found[0]


def _rows(path: Path) -> list[dict[str, Any]]:
    from pyarrow import ArrowException, csv, parquet

    try:
        if path.suffix.lower() in (".parquet", ".geoparquet"):
            table = parquet.read_table(path)
        else:
            how = csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            table = csv.read_csv(path, parse_options=how)
    except (ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable manifest: {error}") from None
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
