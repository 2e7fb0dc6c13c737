"""Clips on disk, tiny ones made here, and spoken digits where they are at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf

from at_hand import at_hand
from sounds import RATE
from unlabeled.contract import Batch
from unlabeled_audio.batches import collate
from unlabeled_audio.example import write
from unlabeled_audio.readers import AudioReader


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """save("a.wav", wave, rate) writes a file and returns its path."""

    def write_file(name: str, wave: Any, rate: int = RATE, **form: Any) -> str:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(tmp_path / name, wave, rate, **form)
        return str(tmp_path / name)

    return write_file


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The plugin's example: twelve uneven clips and a damaged one."""
    return write(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def reader(example: str) -> AudioReader:
    return AudioReader(example)


@pytest.fixture(scope="session")
def batch(reader: AudioReader) -> Batch:
    """All of the example that can be read, padded."""
    return collate([reader[index] for index in range(len(reader)) if "broken" not in reader.name(index)])


@pytest.fixture(scope="session")
def digits() -> Path:
    return at_hand("audio/fsdd/recordings")
