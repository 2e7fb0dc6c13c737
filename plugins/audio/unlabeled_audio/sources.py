"""Which clips there are: a file, a folder, a glob, tar shards, several of these, or a manifest with columns."""

from __future__ import annotations

import csv
import glob
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unlabeled.errors import UserError
from unlabeled_audio import shards

DECODED = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64")
ENCODED = (".m4a", ".mp4", ".aac", ".wma", ".webm", ".amr", ".ac3")  # no decoder in libsndfile: shown as broken
MANIFESTS = (".csv", ".jsonl", ".tsv")
PATH_COLUMNS = ("path", "file", "file_name", "filename", "audio", "audio_filepath", "wav")
PARTS = ("start", "end")  # columns: seconds, where a row is a part of a file


@dataclass(frozen=True)
class Clips:
    """Files, or parts of files, in a fixed order, with what a manifest says of each."""

    paths: Sequence[str]
    names: Sequence[str]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    parts: Sequence[tuple[float, float | None]] | None = None  # seconds; None: whole files


def find(source: str) -> Clips:
    """The clips behind a path, a glob, a manifest, or several of them with commas between.

    Raises:
        UserError: there is nothing, or a manifest cannot be read.
    """
    if "," in source and not Path(source).exists():
        return _joined([find(part.strip()) for part in source.split(",") if part.strip()])
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(str(one) for one in path.rglob("*") if _is_audio(one) and one.is_file())
        if not files:
            raise UserError(f"{source} holds no audio files; known are: {' '.join((*DECODED, *ENCODED))}")
        return _unpacked(files, [os.path.relpath(one, path) for one in files])
    if path.is_file():
        if path.name.lower().endswith(shards.PACKED):
            raise UserError(f"{source} is compressed, so that no clip in it can be found by seeking: unpack it to .tar")
        return _manifest(path) if path.suffix.lower() in MANIFESTS else _unpacked([str(path)], [path.name])
    files = sorted(one for one in glob.glob(os.path.expanduser(source), recursive=True) if _is_audio(Path(one)))
    if not files:
        raise UserError(f"{source} does not exist, and as a pattern it matches no audio file")
    return _unpacked(files, files)


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in (*DECODED, *ENCODED, shards.SUFFIX) and not path.name.startswith(".")


def _unpacked(files: Sequence[str], names: Sequence[str]) -> Clips:
    """The files, with the clips of every tar shard in its place, and what shards say of them as columns."""
    paths: list[str] = []
    shown: list[str] = []
    known: list[Mapping[str, str]] = []
    for file, name in zip(files, names, strict=True):
        if not file.lower().endswith(shards.SUFFIX):
            paths.append(file)
            shown.append(name)
            known.append({})
            continue
        inside = [member for member in shards.members(file) if Path(member).suffix.lower() in DECODED + ENCODED]
        if not inside:
            raise UserError(f"{file} holds no audio; known are: {' '.join((*DECODED, *ENCODED))}")
        labels = shards.said(file)
        paths += [f"{file}/{member}" for member in inside]
        shown += [f"{name}/{member}" for member in inside]
        known += [labels.get(shards.stem_of(member), {}) for member in inside]
    columns = dict.fromkeys(column for one in known for column in one)
    return Clips(paths, shown, {column: [one.get(column, "") for one in known] for column in columns})


def _joined(many: Sequence[Clips]) -> Clips:
    if any(one.columns or one.parts for one in many):
        raise UserError(
            "several sources can be folders, files and patterns; join manifests into one file, and name shards with "
            "labels by one folder or pattern"
        )
    paths = list(dict.fromkeys(path for one in many for path in one.paths))
    return Clips(paths, paths)


def _manifest(path: Path) -> Clips:
    rows, root = _rows(path)
    if not rows:
        raise UserError(f"{path} lists no clips")
    column = next((name for name in PATH_COLUMNS if name in rows[0]), None)
    if column is None:
        raise UserError(f"{path} has no column of paths; call it path (or one of: {', '.join(PATH_COLUMNS[1:])})")
    paths = [str(root / str(row.get(column) or "")) for row in rows]
    columns = {name: [_text(row.get(name)) for row in rows] for name in rows[0] if name not in (column, *PARTS)}
    parts = [_part(path, row) for row in rows] if any(name in rows[0] for name in PARTS) else None
    names = [str(row.get(column)) for row in rows]
    if parts:
        names = [f"{name} @ {start:g} s" for name, (start, _) in zip(names, parts, strict=True)]
    return Clips(paths, _unique(names), columns, parts)


def _rows(path: Path) -> tuple[list[dict[str, Any]], Path]:
    """Rows by column name, and the folder that paths are relative to."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()], path.parent
        lines = text.splitlines()
        if (
            path.suffix.lower() == ".tsv" and lines and "\t" not in lines[0]
        ):  # fairseq: the folder, then name and frames
            named = [line.split("\t") for line in lines[1:] if line.strip()]
            return [{"path": name, "frames": (rest or [""])[0]} for name, *rest in named], path.parent / lines[0]
        dialect = "excel-tab" if path.suffix.lower() == ".tsv" else "excel"
        return list(csv.DictReader(lines, dialect=dialect)), path.parent
    except (ValueError, csv.Error, AttributeError) as error:
        raise UserError(f"{path} is not a readable manifest: {error}") from None


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _part(path: Path, row: Mapping[str, Any]) -> tuple[float, float | None]:
    start, stop = (_text(row.get(name)) for name in PARTS)
    try:
        part = float(start or 0), float(stop) if stop else None
    except ValueError:
        raise UserError(f"{path} has a part from {start!r} to {stop!r}; both are seconds") from None
    if part[0] < 0 or (part[1] is not None and part[1] <= part[0]):
        raise UserError(f"{path} has a part from {start} s to {stop} s; a part ends after it starts")
    return part


def _unique(names: list[str]) -> list[str]:
    """A row that names a clip once more gets a number."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return out
