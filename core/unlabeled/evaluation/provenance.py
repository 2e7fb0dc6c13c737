"""Where a number comes from: the run's configuration, and the code that measured."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import unlabeled
from unlabeled.config import load_config
from unlabeled.saved import encoder_files, run_folder


def config_hash(run: str | Path) -> str:
    """Of config.yaml as data, or of the encoder's description where there is an encoder alone."""
    home = run_folder(run)
    data: Any = load_config(home / "config.yaml") if home else json.loads(encoder_files(run)[0].read_text())
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
