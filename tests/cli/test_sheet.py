"""The contact sheet of `inspect`: a PNG that any decoder reads, with a row a sample and a column a view."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from unlabeled import plugins
from unlabeled.cli.sheet import GAP, GREY, write_sheet
from unlabeled.errors import UserError
from unlabeled.pictures import png

PIL = pytest.importorskip("PIL.Image")


def test_a_png_holds_what_was_drawn() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 13), dtype=np.uint8)
    assert np.array_equal(np.asarray(PIL.open(io.BytesIO(png(image)))), image)


def test_a_sheet_has_a_row_a_sample_and_a_column_a_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = plugins.load("tabular")
    reader = registry.make("reader", None, "sklearn:wine")
    view = registry.make("view", None, reader.facts)
    with pytest.raises(UserError, match="draws no pictures"):
        write_sheet(tmp_path / "sheet.png", reader, view, registry)
    monkeypatch.setattr(
        reader, "pictures", lambda batch: [torch.full((5, 3), 0.5) for _ in batch["numbers"]], raising=False
    )
    write_sheet(tmp_path / "sheet.png", reader, view, registry, samples=4)
    image = np.asarray(PIL.open(tmp_path / "sheet.png"))
    assert image.shape == (4 * 5 + 5 * GAP, 6 * 3 + 7 * GAP)
    assert set(np.unique(image)) == {GREY, 127}
    assert (image == 127).sum() == 4 * 6 * 5 * 3
    with pytest.raises(UserError, match=r"call it .*sheet\.png"):
        write_sheet(tmp_path / "sheet.jpg", reader, view, registry)


@pytest.mark.parametrize("fault", ["raises", "colours"])
def test_a_reader_that_cannot_draw_is_named_after_all_else_was_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    from unlabeled.cli.main import main

    registry = plugins.load("tabular")
    kind = type(registry.make("reader", None, "sklearn:wine"))

    def draw(self: object, batch: object) -> list[torch.Tensor]:
        if fault == "colours":
            return [torch.zeros(4, 4, 3)] * 48
        raise ZeroDivisionError("no pixels")

    monkeypatch.setattr(kind, "pictures", draw)
    assert main(["tabular", "inspect", "sklearn:wine", "--sheet", str(tmp_path / "sheet.png")]) == 2
    said = capsys.readouterr()
    assert "samples tried can be read" in said.out
    assert f"the reader {kind.__name__} of unlabeled_tabular.readers fails to draw" in said.err
    assert not (tmp_path / "sheet.png").exists()
