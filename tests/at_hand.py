"""Data beside the checkout, where they are at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


def at_hand(name: str) -> Path:
    """A file or folder of the shared data; a test that asks for what is not there is skipped, in CI failed."""
    if not (SHARED / name).exists():
        pytest.skip(f"{name} is not at hand")
    return SHARED / name
