"""Freed memory stays with the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

KEEP = """
from pathlib import Path
from unlabeled.memory import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

{call}
before = resident()
block = b"x" * (64 << 20)
del block
print(resident() - before)
"""


def kept(call: str, **environment: str) -> int:
    """MiB of 64 that stay with a process when they are free."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    line = [sys.executable, "-c", KEEP.format(call=call)]
    return int(subprocess.run(line, env={**clean, **environment}, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone gives memory back so eagerly")
def test_freed_memory_is_kept_unless_the_user_says_otherwise() -> None:
    assert kept("") < 8
    assert kept("keep_freed_memory()") > 56
    assert kept("keep_freed_memory()", MALLOC_MMAP_THRESHOLD_="1048576") < 8
