"""The contact sheet is a picture with a row a volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unlabeled.cli.main import main
from unlabeled_medical.sheet import GAP, TILE, VIEWS


def test_a_row_a_volume_that_can_be_read(scans: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sheet.png"
    assert main(["medical", "sheet", scans, "-o", str(path), "--most", "20"]) == 0
    assert "8 volumes in" in capsys.readouterr().out
    picture = np.asarray(Image.open(path))
    assert picture.shape == (8 * (TILE + GAP), (3 + len(VIEWS)) * (TILE + GAP))
    tiles = picture.reshape(8, TILE + GAP, 3 + len(VIEWS), TILE + GAP).std((1, 3))
    assert (tiles > 5).all(), "there is something on every tile"


def test_a_picture_that_cannot_be_written(scans: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["medical", "sheet", scans, "-o", str(tmp_path / "sheet.xyz")]) == 2
    assert "give the name of a .png" in capsys.readouterr().err


def test_a_volume_is_its_middle_slice_upright_and_at_its_proportions(scans: str, cache: Path) -> None:
    from unlabeled_medical.readers import VolumeReader

    reader = VolumeReader(scans)
    image = torch.arange(2 * 1 * 4 * 4 * 4).reshape(2, 1, 4, 4, 4).float()
    batch = {"image": image, "spacing": torch.tensor([[1.0, 1.0, 1.0], [5.0, 2.0, 1.0]])}
    even, tall = reader.pictures(batch)
    want = image[0, 0, 2].flip(0)
    assert torch.equal(even, (want - want.min()) / (want.max() - want.min()))
    assert tall.shape == (8, 4), "rows are 2 mm apart, columns 1"
    flat = {"image": torch.full((1, 1, 4, 4, 4), 3.0), "spacing": torch.ones(1, 3)}
    assert torch.equal(reader.pictures(flat)[0], torch.zeros(4, 4))
