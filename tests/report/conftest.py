"""A real run on a small table, whose report the tests look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unlabeled.training.pretrain import pretrain


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On 60 rows, with a class and a number that the encoder is not given; the last row is the one before it again."""
    folder = tmp_path_factory.mktemp("reported")
    random = np.random.default_rng(0)
    rows = [",".join(f"{value:.3f}" for value in row) for row in random.normal(size=(60, 3))]
    rows[-1] = rows[-2]
    table = [f"{row},{'even' if at % 2 == 0 else 'odd'},{at / 7:.3f}" for at, row in enumerate(rows)]
    (folder / "table.csv").write_text("\n".join(["a,b,c,kind,size", *table]) + "\n")
    pretrain(
        "tabular",
        str(folder / "table.csv"),
        "mae",
        out=folder / "run",
        encoder={"name": "mlp", "width": 16},
        reader={"exclude": ["kind", "size"]},
        steps=3,
        quiet=True,
    )
    return folder / "run"
