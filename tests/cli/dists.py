"""Distributions as pip leaves them."""

from __future__ import annotations

import tomllib
from pathlib import Path


def installed(folder: Path, source: Path) -> None:
    """As pip would: the names of the entry points, where importlib.metadata finds them."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = source / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["unlabeled"]
    (info / "entry_points.txt").write_text("[unlabeled]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
