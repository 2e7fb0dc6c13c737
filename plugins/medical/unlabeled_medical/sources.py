"""What is behind a source: volume files, DICOM series, npz stacks and rows of a manifest, each an item with a name."""

from __future__ import annotations

import csv
import glob
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Literal

import numpy as np

from unlabeled.errors import UserError, nearest
from unlabeled_medical import dicom, medmnist

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
PATHS = ("path", "image", "file")  # columns of a manifest that may hold the paths
SPLITS = ("train", "val", "test")

Form = Literal["file", "series", "stack"]


@dataclass(frozen=True, slots=True)
class Item:
    """One volume before it is read; its name is a path relative to the source, never something of a header."""

    name: str
    form: Form
    files: tuple[str, ...]  # the slices of a series, else one
    key: str = ""  # of a stack: the array in the archive
    row: int | None = None  # of a stack the volume, of a 4D file the time point
    columns: dict[str, str] = field(default_factory=dict)  # of the manifest


def find(source: str, split: str) -> list[Item]:
    """The items of a file, a folder, a pattern, a CSV manifest or a stack ("FILE.npz", "FILE.npz:test", MedMNIST's).

    Raises:
        UserError: there is nothing, or nothing that is a volume.
    """
    if source.startswith(medmnist.PREFIX):
        archive, named = medmnist.stack(source)
        return _stack(archive, named or split)
    stack, colon, named = source.rpartition(":")
    if colon and stack.endswith(".npz"):
        return _stack(Path(stack), named)
    path = Path(source)
    if path.is_dir():
        items = _folder(path)
        if not items:
            raise UserError(f"folder {source} holds no volume: no DICOM and no file ending in {', '.join(SUFFIXES)}")
        return items
    if path.is_file():
        return _file(path, split)
    found = sorted(file for file in glob.glob(source, recursive=True) if Path(file).is_file())
    if not found:
        raise UserError(f"{source} does not exist; give a volume, a folder or pattern of them, a .csv or a .npz file")
    root = _root(source)
    return [*_files(root, (Path(file) for file in found if file.endswith(SUFFIXES))), *_series(root, _dicom(found))]


def _file(path: Path, split: str) -> list[Item]:
    if path.suffix == ".npz":
        return _stack(path, split)
    if path.suffix == ".csv":
        return _manifest(path)
    if path.name.endswith(SUFFIXES):
        return _files(path.parent, [path])
    if dicom.is_dicom(path):
        raise UserError(f"{path} is one slice of a DICOM series; give the folder that holds the series")
    raise UserError(f"{path} is no volume; known are DICOM folders, .csv, .npz and {', '.join(SUFFIXES)}")


def _folder(folder: Path) -> list[Item]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return [*_files(folder, (path for path in files if path.name.endswith(SUFFIXES))), *_series(folder, _dicom(files))]


def _root(pattern: str) -> Path:
    """The part of a pattern before its first wildcard."""
    parts = Path(pattern).parts
    first = next((at for at, part in enumerate(parts) if any(sign in part for sign in "*?[")), len(parts))
    return Path(*parts[:first])


def _files(root: Path, paths: Iterable[Path]) -> list[Item]:
    return [Item(path.relative_to(root).as_posix(), "file", (str(path),)) for path in paths]


def _dicom(files: Iterable[str | Path]) -> list[Path]:
    other = (Path(file) for file in files if not str(file).endswith((*SUFFIXES, ".npz", ".csv", ".json", ".txt")))
    return [path for path in other if dicom.is_dicom(path)]


def _series(root: Path, files: Sequence[Path]) -> list[Item]:
    """An item a series; the second one of a folder and later ones are numbered."""
    items = []
    by_folder: dict[Path, list[Path]] = {}
    for path in files:
        by_folder.setdefault(path.parent, []).append(path)
    for folder, inside in by_folder.items():
        series = dicom.series(inside)
        for number, slices in enumerate(series):
            name = folder.relative_to(root).as_posix() if folder != root else "series"
            name += f"#{number + 1}" if len(series) > 1 else ""
            items.append(Item(name, "series", tuple(map(str, slices))))
    return items


# ---- manifests


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [{(k or "").strip(): (v or "").strip() for k, v in row.items()} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, AttributeError) as error:
        raise UserError(f"{path} cannot be read as CSV ({error}); give a header line and rows under it") from None
    if not rows:
        raise UserError(f"{path} has no rows; give a header line and rows under it")
    return rows


def _column(path: Path, rows: Sequence[dict[str, str]], names: Sequence[str]) -> str:
    found = next((name for name in names if name in rows[0]), None)
    if found is None:
        raise UserError(f"{path} has no column called {' or '.join(names)}; its columns are {', '.join(rows[0])}")
    return found


def _manifest(path: Path) -> list[Item]:
    """An item a row; a path that is not there is an item all the same, and broken."""
    rows = _rows(path)
    column = _column(path, rows, PATHS)
    twice = [name for name, count in Counter(row[column] for row in rows).items() if count > 1]
    if twice:
        raise UserError(f"{path}: {twice[0]} is there twice; keep one row of it")
    items = []
    for row in rows:
        target = path.parent / row[column]
        slices = dicom.series(_dicom(sorted(target.iterdir()))) if target.is_dir() else []
        if len(slices) > 1:
            raise UserError(f"{path}: {row[column]} holds {len(slices)} DICOM series; give each a folder of its own")
        files = tuple(map(str, slices[0])) if slices else (str(target),)
        items.append(Item(row[column], "series" if slices else "file", files, columns=row))
    return items


def labels(items: Sequence[Item], source: str, spec: str) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    """Labels by "folder" (the parent folder) or a manifest's column; "" where one is missing.

    Raises:
        UserError: there is no such column or file.
    """
    if spec == "folder":
        return np.array([Path(item.name).parent.name for item in items])
    if spec in items[0].columns:
        return np.array([item.columns[spec] for item in items])
    raise UserError(f"no label of {source} is called {spec!r}; {nearest(spec, ['folder', *items[0].columns])}")


def stem(name: str) -> str:
    """A name without its folder and suffix, so that tables may write it either way."""
    last = name.rsplit("/", 1)[-1]
    return next((last.removesuffix(suffix) for suffix in (".nii.gz", *SUFFIXES) if last.endswith(suffix)), last)


def case(name: str) -> str:
    """The stem without the channel's number at its end: nnU-Net calls segmentations after cases, volumes case_0000."""
    return re.sub(r"_\d{4}$", "", stem(name))


# ---- stacks, as MedMNIST writes them


def _stack(path: Path, split: str) -> list[Item]:
    """An item a volume of the array "SPLIT_images", or "images" where the archive has no splits."""
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {name.removesuffix(".npy") for name in archive.namelist()}
            known = [name for name in SPLITS if f"{name}_images" in arrays]
            key = "images" if not known and "images" in arrays else f"{split}_images"
            if key not in arrays:
                raise UserError(f"{path} has no {key!r}; {nearest(split, known)} (give it as {path.name}:SPLIT)")
            with archive.open(f"{key}.npy") as file:
                shape, _, kind = array_header(file)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give the .npz file of a stack") from None
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"{path} cannot be read as .npz ({error}); download it again") from None
    if kind.hasobject or len(shape) not in (4, 5):
        raise UserError(f"{key} of {path} is {kind} of shape {shape}; a stack is [n, depth, height, width(, channels)]")
    name = f"{path.name}:{split}" if known else path.name
    return [Item(f"{name}:{row}", "stack", (str(path),), key, row) for row in range(shape[0])]


def array_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    """Shape, Fortran order and type of a .npy stream, which is left at its first value."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, kind = read(file)
    return shape, fortran, kind


def stack_labels(items: Sequence[Item], spec: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The stack's own labels, "label"."""
    first = items[0]
    key = first.key.replace("images", "labels")
    with np.load(first.files[0], allow_pickle=False) as archive:
        if spec != "label" or key not in archive:
            raise UserError(f"{first.files[0]} has no label {spec!r}; {nearest(spec, ['label'] * (key in archive))}")
        values = np.asarray(archive[key]).reshape(len(items), -1)
    if values.shape[1] > 1:
        raise UserError(f"{key} of {first.files[0]} has {values.shape[1]} columns; a probe needs one label a volume")
    return values[:, 0].astype(np.int64)


def split_time(items: Sequence[Item], points: Sequence[int]) -> list[Item]:
    """4D files as an item a time point."""
    out = []
    for item, count in zip(items, points, strict=True):
        many = [replace(item, name=f"{item.name}#{row + 1}", row=row) for row in range(count)]
        out += many if count > 1 else [item]
    return out
