"""Clips inside tar files, read where they lie: WebDataset's shards, whose members of one name belong together."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

from unlabeled.errors import BrokenItem, UserError, one_line

SUFFIX = ".tar"
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")  # cannot be sought in
TEXTS = (".txt", ".cls")  # members that hold one label
LARGEST = 1 << 20  # bytes of a member that says labels


@cache
def members(shard: str) -> Mapping[str, tuple[int, int]]:
    """Where each member's bytes begin and how many there are; of a truncated shard those whose header is there.

    Raises:
        UserError: it is not a tar file.
    """
    try:
        state = os.stat(shard)
        return _members(shard, state.st_mtime_ns, state.st_size)
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{shard} is not a readable tar file: {one_line(error)}") from None


@cache
def _members(shard: str, *state: int) -> Mapping[str, tuple[int, int]]:
    """Of a shard as it is now, since reading one's headers is a pass over it."""
    found: dict[str, tuple[int, int]] = {}
    with tarfile.open(shard, "r:") as tar:
        try:
            for member in tar:
                if member.isfile():
                    found[member.name] = (member.offset_data, member.size)
        except tarfile.TarError:
            pass  # its end is missing; what is cut off is told of when it is read
    return MappingProxyType(found)


def located(path: str) -> tuple[str, str] | None:
    """The shard and the member that a path such as `clips.tar/a/b.wav` names; None: an ordinary path."""
    at = path.find(SUFFIX + "/")
    while at >= 0:
        shard = path[: at + len(SUFFIX)]
        if os.path.isfile(shard):
            return shard, path[at + len(SUFFIX) + 1 :]
        at = path.find(SUFFIX + "/", at + 1)
    return None


class Part(io.RawIOBase):
    """Some bytes of a file, as a file."""

    def __init__(self, path: str, start: int, size: int):
        self._file = io.FileIO(path)
        self._start, self._size, self._at = start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, (0, self._at, self._size)[whence] + offset)
        return self._at

    def readinto(self, into: Any) -> int:
        view = memoryview(into).cast("B")
        self._file.seek(self._start + self._at)
        count = self._file.readinto(view[: max(0, min(len(view), self._size - self._at))])
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def opened(path: str) -> str | io.BufferedReader:
    """What soundfile opens: the path itself, or a member's bytes.

    Raises:
        BrokenItem: the shard has no such member, or ends before it does.
    """
    inside = located(path)
    if inside is None:
        return path
    shard, name = inside
    where = members(shard).get(name)
    if where is None:
        raise BrokenItem(f"{PurePath(shard).name} has no member {name}")
    if sum(where) > os.path.getsize(shard):
        raise BrokenItem(f"it is truncated: {PurePath(shard).name} ends before it does")
    return io.BufferedReader(Part(shard, *where))


def said(shard: str) -> dict[str, dict[str, str]]:
    """By member name without suffixes: the labels that its .json, .txt and .cls say.

    Raises:
        UserError: one of them is not readable.
    """
    out: dict[str, dict[str, str]] = {}
    whole = os.path.getsize(shard)
    for name, (start, size) in members(shard).items():
        stem, suffix = stem_of(name), Path(name).suffix.lower()
        if suffix not in (".json", *TEXTS) or size > LARGEST or start + size > whole:
            continue
        with Part(shard, start, size) as part:
            content = part.read() or b""
        try:
            values = json.loads(content) if suffix == ".json" else {suffix[1:]: content.decode()}
        except ValueError as error:
            raise UserError(f"{shard} holds {name}, which cannot be read: {one_line(error)}") from None
        if isinstance(values, dict):
            known = out.setdefault(stem, {})
            for key, value in values.items():
                if not isinstance(value, dict | list):
                    known[key] = "" if value is None else str(value).strip()
    return out


def stem_of(name: str) -> str:
    """A member's name up to the first dot of its last part, by which WebDataset tells samples apart."""
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(".")[0]
