"""The dense probe: its metric against scikit-learn's, masks that belong to chips, and a scene that colours tell."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from unlabeled.cli.main import main
from unlabeled.errors import BrokenItem, UserError
from unlabeled.training.pretrain import pretrain
from unlabeled_eo.readers import EOReader
from unlabeled_eo.segmentation import IGNORED, intersection_over_union, segment

Tif = Callable[..., Path]


def test_intersection_over_union_is_scikit_learns() -> None:
    from sklearn.metrics import jaccard_score

    chance = torch.Generator().manual_seed(0)
    truth, said = (torch.randint(0, 3, (4, 9, 9), generator=chance) for _ in range(2))
    wanted = jaccard_score(truth.flatten(), said.flatten(), average=None)
    np.testing.assert_allclose(intersection_over_union(said, truth, 3), wanted)
    truth[:, :4] = IGNORED
    wanted = jaccard_score(truth[:, 4:].flatten(), said[:, 4:].flatten(), average=None)
    got = intersection_over_union(said, truth, 4)
    np.testing.assert_allclose(got[:3], wanted)
    assert math.isnan(got[3])


@pytest.fixture
def ships(tif: Tif, tmp_path: Path) -> Path:
    """Ten chips of sea with a bright square somewhere, and masks that say where."""
    chance = np.random.default_rng(0)
    for number in range(10):
        power = chance.gamma(4, 0.25, (1, 40, 40)).astype(np.float32)
        row, column = chance.integers(4, 20, 2)
        mask = np.zeros((40, 40), np.uint8)
        mask[row : row + 14, column : column + 14] = 1
        power[0][mask > 0] *= 30
        tif(f"images/{number}.tif", power)
        tif(f"masks/{number}.tif", mask)
    pretrain(
        "eo",
        tmp_path / "images",
        "mae",
        out=tmp_path / "run",
        reader={"name": "eo", "stored": "linear", "scale": "db"},
        view={"name": "sar", "crop": 32},
        encoder={"name": "vit", "width": 32, "depth": 2, "patch": 4},
        steps=2,
        batch_size=4,
        quiet=True,
    )
    return tmp_path


def test_a_bright_square_is_found_and_the_table_has_its_baselines(
    ships: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [str(ships / name) for name in ("run", "images", "masks")]
    assert main(["eo", "evaluate-segmentation", *parts, "--seeds", "2", "--json", str(ships / "a.json")]) == 0
    assert "mean IoU" in capsys.readouterr().out
    rows = {row["features"]: np.array(row["iou"]) for row in json.loads((ships / "a.json").read_text())}
    assert set(rows) == {"trained (mae)", "untrained", "raw pixels"}
    assert rows["raw pixels"].shape == (2, 2)
    assert rows["raw pixels"].min() > 0.9
    assert rows["trained (mae)"].min() > 0.6


def test_masks_are_cut_as_chips_are(tif: Tif, tmp_path: Path) -> None:
    whole = np.arange(70 * 80, dtype=np.float32).reshape(70, 80) % 251
    tif("images/a.tif", whole + 1)
    tif("masks/a.tif", whole.astype(np.uint8))
    reader = EOReader(str(tmp_path / "images"), chip=32)
    for index in range(len(reader)):
        mask = reader.classes(str(tmp_path / "masks"), index)
        assert mask is not None
        torch.testing.assert_close(mask + 1, reader[index]["image"][0])


def test_masks_that_do_not_belong(tif: Tif, tmp_path: Path, ships: Path) -> None:
    reader = EOReader(str(ships / "images"))
    tif("other/else.tif", np.zeros((40, 40), np.uint8))
    with pytest.raises(UserError, match=r"no raster of .*other is called as a scene: there 'else', here '0'"):
        reader.classes(str(tmp_path / "other"), 0)
    tif("small/0.tif", np.zeros((20, 20), np.uint8))
    with pytest.raises(BrokenItem, match=r"is not on the grid of its scene \(40 × 40 pixels\)"):
        reader.classes(str(tmp_path / "small"), 0)
    with pytest.raises(UserError, match="all chips are of one group"):
        segment([ships / "run"], str(ships / "images"), str(ships / "masks"), groups="folder", seeds=1)
