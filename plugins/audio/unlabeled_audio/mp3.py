"""Long MP3 files by their frames: an index of where each begins, so that a segment costs a segment.

Decoders count the frames of a file at every opening. Here they are found once a process, from their headers, and a
decoder is given those around the segment alone. The same bytes give the same samples, whatever was read before.
"""

from __future__ import annotations

import io
import mmap
import os
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LEAST = 1 << 20  # bytes of a file that is worth an index
BEFORE = 4  # frames that a decoder hears ahead of a segment: windows overlap, and its filters have a memory
RESERVOIR = 512  # bytes before a frame, in which its data may begin
DELAY = 529  # samples of a decoder's own, that are cut where a file says how many its encoder added
TRIED = 100  # frames into a file, where what the index gives is compared with the file decoded from its beginning
LARGEST = 1441  # bytes of a frame
CLOSE = 1e-4  # of samples by the index and by the whole file
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
KILOBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


@dataclass(frozen=True)
class Index:
    """Where frames begin, of a file that is all of one layer, rate and version."""

    starts: NDArray[np.int64]  # [n + 1] bytes, the end of the last frame too
    frame: int  # samples of a frame
    skip: int  # samples at the beginning that are none of the sound
    side: int  # bytes of a frame, behind its header, that say how its data are to be read

    def __len__(self) -> int:
        return len(self.starts) - 1


@lru_cache(16)
def index(path: str, stamp: tuple[int, int]) -> Index | None:
    """Of an MP3 file by its size and time; None where it is no plain one, or where its parts decode to something else.

    Args:
        stamp: size and time of the file, so that a changed one is looked at again.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = _scanned(data)
    if found is None or len(found) < 2 * TRIED:
        return None
    place = found.frame * TRIED
    whole, part = _whole(path, place, 2 * found.frame), read(path, found, place, 2 * found.frame)
    same = whole.shape == part.shape and bool(np.abs(whole - part).max() < CLOSE)
    return found if same else None


def segment(path: str, start: int, count: int) -> NDArray[np.float32] | None:
    """[count, channels] of a long MP3 file by its index; None where another way must be taken."""
    if not path.lower().endswith(".mp3"):
        return None
    try:
        state = os.stat(path)
        known = index(path, (state.st_size, state.st_mtime_ns)) if state.st_size >= LEAST else None
        if known is None or 2 * count > len(known) * known.frame:  # most of it is decoded as fast without
            return None
        return read(path, known, start, count)
    except (OSError, RuntimeError):  # soundfile's own are of the second kind: the usual way says what is wrong
        return None


def read(path: str, known: Index, start: int, count: int) -> NDArray[np.float32]:
    """[count, channels] from sample `start` on, fewer at the end of the file."""
    import soundfile as sf

    first = min((known.skip + start) // known.frame, len(known) - 1)
    last, early = (known.skip + start + count) // known.frame, max(0, first - BEFORE)
    silent = 0  # frames in front whose data only fill what later ones read from
    while early > 0 and known.starts[early + silent] - known.starts[early] < RESERVOIR + silent * (4 + known.side):
        early, silent = early - 1, silent + 1
    ahead = known.skip + start - early * known.frame
    end = min(last + 2, len(known))
    sizes = np.diff(known.starts[early : end + 1])
    with open(path, "rb") as file:
        file.seek(int(known.starts[early]))
        data = bytearray(file.read(int(sizes.sum())))
    tail = bytearray(data[len(data) - int(sizes[-1]) :])
    _silence(data, sizes[:silent], known)
    _silence(tail, sizes[-1:], known)
    # The length of a part is guessed from its first frame, so that silence must follow where others are shorter.
    data += tail * (2 + max(0, int(sizes[0]) * len(sizes) - len(data)) // len(tail))
    with sf.SoundFile(io.BytesIO(data)) as part:
        decoded: NDArray[np.float32] = part.read(ahead + count, dtype="float32", always_2d=True)
    return decoded[ahead : min(ahead + count, len(sizes) * known.frame)]


def _silence(data: bytearray, sizes: NDArray[np.int64], known: Index) -> None:
    """Make frames at the beginning of `data` say that they have no sound, and that later ones may read from them.

    Else a decoder would complain that it lacks what stands before them.
    """
    reserve, at, longest = 0, 4, 511 if known.frame == 1152 else 255
    for size in sizes.tolist():
        begin = min(reserve, longest)
        data[at : at + known.side] = bytes(known.side)
        data[at : at + 2] = (begin << 7 if longest == 511 else begin << 8).to_bytes(2, "big")  # its first 9 or 8 bits
        at, reserve = at + size, reserve + size - 4 - known.side


def _whole(path: str, start: int, count: int) -> NDArray[np.float32]:
    """As `read`, from the beginning."""
    import soundfile as sf

    with sf.SoundFile(path) as file:
        out: NDArray[np.float32] = file.read(start + count, dtype="float32", always_2d=True)
    return out[start:]


def _scanned(data: bytes | mmap.mmap) -> Index | None:
    """Frames from the first to the last whole one; None where these are no frames of one kind in a row."""
    at = _after_tag(data)
    head = _header(data, at)
    if head is None:
        return None
    kind, frame, size = head
    tag = data[at : at + size]
    marked = max(tag.find(b"Xing", 4, 64), tag.find(b"Info", 4, 64))
    skip = 0
    if marked > 0 or tag[36:40] == b"VBRI":  # a first frame that holds no sound
        skip = _delay(tag, marked)
        at += size
    starts = []
    while (head := _header(data, at)) is not None and at + head[2] <= len(data):
        if head[0] != kind:
            return None
        starts.append(at)
        at += head[2]
    if len(data) - at >= LARGEST and data[at : at + 3] not in (b"TAG", b"APE", b"LYR"):  # no tag at the end
        return None
    side = {(1152, True): 17, (1152, False): 32, (576, True): 9, (576, False): 17}[frame, kind[2]]
    return Index(np.array([*starts, at], dtype=np.int64), frame, skip, side)


def _after_tag(data: bytes | mmap.mmap) -> int:
    """Where an ID3v2 tag ends."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = sum((byte & 127) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    return 10 + size + (10 if data[5] & 16 else 0)


def _header(data: bytes | mmap.mmap, at: int) -> tuple[tuple[int, int, bool], int, int] | None:
    """Version, rate and whether it is mono; samples and bytes of a frame of layer III; None if there is none here.

    Frames with checksums, which hardly anyone writes, are none.
    """
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE7 != 0xE3:
        return None
    version, bits, rate = data[at + 1] >> 3 & 3, data[at + 2] >> 4, data[at + 2] >> 2 & 3
    if version == 1 or bits in (0, 15) or rate == 3:
        return None
    first = version == 3
    hertz = RATES[version][rate]
    size = (144_000 if first else 72_000) * KILOBITS[first][bits] // hertz + (data[at + 2] >> 1 & 1)
    return (version, hertz, data[at + 3] >> 6 == 3), 1152 if first else 576, size


def _delay(tag: bytes, marked: int) -> int:
    """Samples that an encoder put before the sound, and a decoder's own, where a LAME tag says so."""
    if marked < 0:
        return 0
    flags = int.from_bytes(tag[marked + 4 : marked + 8], "big")
    at = marked + 8 + 4 * bool(flags & 1) + 4 * bool(flags & 2) + 100 * bool(flags & 4) + 4 * bool(flags & 8)
    if not tag[at : at + 4].strip(b"\x00"):
        return 0
    delay = int.from_bytes(tag[at + 21 : at + 24], "big") >> 12
    return delay + DELAY
