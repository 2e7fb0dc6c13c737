"""Grey pictures of samples: what a reader draws, small ones of it, and PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from unlabeled.contract import Batch, Reader
from unlabeled.errors import UserError, one_line

Picture = NDArray[np.uint8]  # [h, w]

LONGEST = 2  # times the short side: a longer small picture is squeezed, else nothing of it could be seen


def drawn(reader: Reader, batch: Batch, without: str) -> Sequence[Picture] | None:
    """Grey pictures [h, w] of a batch; None where its reader draws none.

    Args:
        without: how to do without pictures, for the error.

    Raises:
        UserError: the reader fails at it: a plugin's fault, which is said to be that.
    """
    try:
        pictures = reader.pictures(batch)
        if pictures is None:
            return None
        return [(one.clamp(0, 1) * 255).byte().view(one.shape[:2]).numpy() for one in pictures]
    except UserError:
        raise
    except Exception as error:
        who = type(reader)
        raise UserError(
            f"the reader {who.__name__} of {who.__module__} fails to draw ({type(error).__name__}: {one_line(error)}); "
            f"tell whoever wrote that plugin, and {without}"
        ) from error


def small(picture: Picture, side: int) -> Picture:
    """At most side × side pixels, by means over areas; proportions are kept up to LONGEST to one."""
    h, w = picture.shape
    shape = (min(h, LONGEST * w), min(w, LONGEST * h))
    scale = min(1.0, side / max(shape))
    size = [max(1, round(one * scale)) for one in shape]
    if size == [h, w]:
        return picture
    made = F.interpolate(torch.from_numpy(picture)[None, None].float(), size, mode="area")
    out: Picture = made[0, 0].round().byte().numpy()
    return out


def png(image: Picture) -> bytes:
    """A grey picture [h, w] as a PNG file (ISO/IEC 15948)."""
    height, width = image.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    lines = np.zeros((height, width + 1), np.uint8)  # each line begins with its filter, none
    lines[:, 1:] = image
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines.tobytes())) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts
