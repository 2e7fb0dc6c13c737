"""MedMNIST's volumes by name, as medmnist:adrenalmnist3d or medmnist:adrenalmnist3d_64:test (arXiv 2110.14795)."""

from __future__ import annotations

import re
from pathlib import Path

from unlabeled.errors import UserError, choose, one_line
from unlabeled.files import DOWNLOADS, downloads

PREFIX = "medmnist:"


def stack(source: str) -> tuple[Path, str]:
    """The archive of a name, fetched by the library medmnist unless it is there, and the split after a colon, if any.

    Raises:
        UserError: there is no such set of volumes, or it can neither be found nor downloaded.
    """
    name, _, split = source.removeprefix(PREFIX).partition(":")
    root = downloads("medmnist")
    path = root / f"{name}.npz"
    if not path.exists():
        _fetch(source, name, root)
    return path, split


def _fetch(source: str, name: str, root: Path) -> None:
    try:
        import medmnist
    except ImportError:
        raise UserError(
            f"{source} is not in {root}: put {name}.npz there, or let it be downloaded: pip install medmnist"
        ) from None
    flag, size = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups()  # type: ignore[union-attr]
    volumes = {key: one for key, one in medmnist.INFO.items() if key.endswith("3d")}
    kind = getattr(medmnist, choose("set of volumes of MedMNIST", flag, volumes)["python_class"])
    root.mkdir(parents=True, exist_ok=True)
    try:
        kind(split="train", download=True, root=str(root), size=int(size) if size else None)
    except AssertionError:
        raise UserError(f"{flag} of MedMNIST has no size {size}; there are: 28 (no suffix) and 64 (_64)") from None
    except Exception as error:  # as the library downloads
        raise UserError(
            f"{source} could not be downloaded ({type(error).__name__}: {one_line(error, 120)}); put {name}.npz into "
            f"{root}, or set {DOWNLOADS} to a folder that has medmnist/{name}.npz"
        ) from None
