"""Freed memory stays with the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COUNT = """
import resource
import numpy as np
from unlabeled.memory import keep_freed_memory

keep_freed_memory()
for step in range(21):
    np.ones(1 << 22, np.float32)  # 16 MiB, freed at once
    if not step:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> int:
    """Pages that the system had to give again, of 20 times 16 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone gives memory back so eagerly")
def test_freed_memory_is_used_again() -> None:
    assert faults() < 1000
    assert faults(MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="1048576") > 1000, "the user's own choice"
