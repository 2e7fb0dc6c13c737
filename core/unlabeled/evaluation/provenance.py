"""Where a number comes from: the run's configuration, and the code that measured."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import unlabeled
from unlabeled.config import load_config
from unlabeled.saved import encoder_files


def config_hash(run: str | Path) -> str:
    """Of config.yaml as data, or of the encoder's description where there is an encoder alone."""
    described, _ = encoder_files(run)
    folder = described.parent
    configs = [path for path in (Path(run) / "config.yaml", folder.parent / "config.yaml") if path.exists()]
    data: Any = load_config(configs[0]) if configs else json.loads(described.read_text())
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def commit() -> str | None:
    """Of the checkout that this package runs from, "-dirty" where files differ from it; None where there is none."""
    folder = Path(unlabeled.__file__).parent
    tracked = ["ls-files", "--error-unmatch", "__init__.py"]  # not of a project whose folder holds an environment
    found = ""
    for arguments in (tracked, ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]):
        try:
            done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode:
            return None
        found = done.stdout.strip()
    return found


def place(source: str) -> str:
    """Of data: an absolute path, whatever folder they are named from; what is no path (a name, a glob) as it is."""
    return str(Path(source).resolve()) if Path(source).exists() else source
