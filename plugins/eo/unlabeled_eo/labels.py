"""What is known of scenes: folders, names, a manifest's columns, and JSON files beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.data.names import fields_of, label_values, parse_names
from unlabeled.errors import UserError, nearest
from unlabeled_eo import torchgeo
from unlabeled_eo.listed import MANY, Scene

PRODUCT = re.compile(r"S[12][A-D]_\w{6,}")  # Sentinel-1 and -2


def of(scenes: Sequence[Scene], spec: str, pattern: str | None, source: str) -> NDArray[Any]:
    """A label per scene; "" where it has none.

    folder: of the file. label: of TorchGeo's items. scene: the product, or the folder, for groups that must not be
    split. SUFFIX.json:KEY: what a file whose name ends so says beside the scene, several with | between. Else a
    manifest's column, a field of the pattern, or the field of a pattern that `spec` itself is.

    Raises:
        UserError: there is no such label.
    """
    files = [one.files[0].path for one in scenes]
    if ".json:" in spec:
        return np.array(_beside(files, *spec.split(":", 1)), dtype=np.str_)
    if spec == "label" and all(file.startswith(torchgeo.PREFIX) for file in files):
        return label_values(torchgeo.labels(files))
    table: dict[str, Sequence[str]] = {
        name: [one.columns.get(name, "") for one in scenes] for one in scenes[:1] for name in one.columns
    }
    table.setdefault("folder", [one.folder for one in scenes])
    table.setdefault("scene", [_product(one) for one in scenes])
    if "{" in spec:
        wanted = fields_of(spec)
        if len(wanted) != 1:
            raise UserError(f"label {spec!r} must have one field in braces, as in '{{type}}_x*'")
        table[spec] = parse_names(spec, files)[wanted[0]]
    elif pattern:
        table |= parse_names(pattern, files)
    if spec not in table:
        raise UserError(
            f"{source} has no label {spec!r}; {nearest(spec, table)}, or give a pattern of the file names, as in "
            "'{type}_x*', or SUFFIX.json:KEY"
        )
    return label_values(table[spec])


def _product(scene: Scene) -> str:
    """What a chip is of: the product that a folder above it is called after, else the outermost folder, else itself."""
    if scene.product:
        return scene.product
    above = [part for part in Path(scene.files[0].path).parent.parts if PRODUCT.match(part)]
    parts = Path(scene.name).parts
    return above[-1] if above else parts[0] if len(parts) > 1 else scene.name


def _beside(files: Sequence[str], suffix: str, key: str) -> list[str]:
    out = []
    for file in files:
        path = next(iter(sorted(Path(file).parent.glob(f"*{suffix}"))), None)
        if path is None:
            out.append("")
            continue
        try:
            found = json.loads(path.read_text())[key]
        except (ValueError, KeyError, TypeError, OSError):
            raise UserError(f"{path} has no {key!r}, or is no JSON object") from None
        out.append(MANY.join(map(str, found)) if isinstance(found, list) else str(found))
    if not any(out):
        raise UserError(f"no scene has a file *{suffix} beside it")
    return out
