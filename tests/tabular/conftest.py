"""Tables on disk, tiny ones made here and Adult where it is at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from at_hand import at_hand
from unlabeled_tabular.example import write
from unlabeled_tabular.readers import TableReader


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="session")
def reader(example: str) -> TableReader:
    return TableReader(example, exclude=["churned"])


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., str]:
    """make("a,b\\n1,2\\n") writes a CSV and returns its path."""

    def write_file(text: str | bytes, name: str = "table.csv") -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write_file


@pytest.fixture(scope="session")
def adult() -> Path:
    return at_hand("tabular/adult")
