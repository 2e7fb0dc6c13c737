"""Samples to look at: small pictures, neighbours, outliers and duplicates, within a bound of bytes."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pages import Node, Reader, made, opened
from unlabeled import plugins
from unlabeled.contract import Batch, Encoded, Encoder, Sample, Tokens, View
from unlabeled.contract import Reader as Samples
from unlabeled.pictures import png, small
from unlabeled.report.map import ALIKE, NEAR, Map, draw
from unlabeled.report.page import page
from unlabeled.report.runs import read
from unlabeled.report.samples import SIDE, Source
from unlabeled.report.scatter import MOST_BYTES, SIDES, encoded
from unlabeled.training.folder import RunFolder


class Drawn(Samples):
    """Samples with an embedding and a picture of their own."""

    def __init__(self, vectors: Tensor, pictures: Sequence[Tensor] | None, fault: str = ""):
        self.vectors, self.drawn, self.fault, self.facts = vectors, pictures, fault, {}

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, index: int) -> Sample:
        return {"vector": self.vectors[index], "number": torch.tensor(index)}

    def name(self, index: int) -> str:
        return f"<{index}>"

    def describe(self, index: int) -> dict[str, str]:
        if self.fault == "mute":
            raise ZeroDivisionError("no words")
        return {"size": str(index * 2), "</td>": "&"}

    def pictures(self, batch: Batch) -> list[Tensor] | None:
        if self.fault == "raises":
            raise ZeroDivisionError("no pixels")
        if self.fault == "few":
            return [torch.zeros(2, 2)]
        return None if self.drawn is None else [self.drawn[int(number)] for number in batch["number"]]


class Given(Encoder):
    """The embedding that a sample brings."""

    def tokenize(self, batch: Batch) -> Tokens:
        values = batch["vector"][:, None]
        return Tokens(values, torch.zeros(len(values), 1, 1), torch.ones(len(values), 1, dtype=torch.bool), {})

    def forward(self, tokens: Tokens, *rest: Any, **more: Any) -> Encoded:
        return Encoded(None, tokens.values[:, 0])


def source(reader: Samples) -> Source:
    return Source(Given(), reader, View(), plugins.core(), other=True)


def shown(tmp_path: Path, found: Map) -> Node:
    run = read(RunFolder(made(tmp_path / "run")), "run")
    (tmp_path / "page.html").write_text(page([run], [found]))
    return opened(tmp_path / "page.html")


def noise(count: int, h: int = 20, w: int = 20) -> list[Tensor]:
    return list(torch.rand(count, h, w, generator=torch.Generator().manual_seed(3)))


def decoded(text: str) -> Any:
    """A grey PNG of one piece, without filters."""
    data = base64.b64decode(text.removeprefix("data:image/png;base64,"))
    width, height = struct.unpack(">II", data[16:24])
    (length,) = struct.unpack(">I", data[33:37])
    assert data[37:41] == b"IDAT"
    lines = np.frombuffer(zlib.decompress(data[41 : 41 + length]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    return lines[:, 1:]


def test_a_sample_is_shown_by_its_picture(tmp_path: Path) -> None:
    pictures = noise(30)
    vectors = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    found = draw(source(Drawn(vectors, pictures)), 5, 0)
    tree = shown(tmp_path, found)
    dots = list(tree.every("circle", "dot"))
    grey = [(one * 255).byte().numpy() for one in pictures]
    for number, dot in enumerate(dots):
        assert np.array_equal(decoded(dot["data-picture"]), grey[number])
        assert dot["data-text"].splitlines() == [f"<{number}>", f"size: {2 * number}", "</td>: &"]
        assert dot.text == f"<{number}>", "without the script the name shows"
    groups = list(tree.every("div", "group"))
    assert len(groups) == 6
    for group, (query, near) in zip(groups, found.near, strict=True):
        cards = list(group.every("div", "sample"))
        for card, number in zip(cards, [query, *(other for other, _ in near)], strict=True):
            (image,) = card.every("img")
            assert np.array_equal(decoded(image["src"]), grey[number])
            assert card.text.startswith(f"<{number}>")
        assert [card.text.partition("cosine ")[2] for card in cards[1:]] == [f"{cosine:.2f}" for _, cosine in near]
    apart = [card for box in tree.every("div", "apart") for card in box.every("div", "sample")]
    assert [card.text.partition("distance")[0] for card in apart] == [f"<{number}>" for number, _ in found.apart]


def test_neighbours_of_a_map_made_by_hand() -> None:
    """Pairs on a circle: the partner is nearest, and the one that stands alone is furthest from all."""
    degrees = [0, 2, 40, 42, 80, 82, 120, 122, 160, 162, 200, 202, 260]
    angles = torch.tensor(degrees) * torch.pi / 180
    vectors = torch.stack([angles.cos(), angles.sin()], 1).repeat(1, 1)
    vectors -= vectors.mean(0)
    found = draw(source(Drawn(vectors, None)), 5, 0)
    assert [row[0] for row in found.every[:12]] == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]
    assert found.apart[0][0] == 12
    assert all(place not in row for place, row in enumerate(found.every))


def test_duplicates_have_one_content_and_near_ones_one_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = noise(30)
    vectors = torch.randn(30, 8, generator=torch.Generator().manual_seed(1))

    class Same(Drawn):
        def __getitem__(self, index: int) -> Sample:
            return {"vector": self.vectors[index], "number": torch.tensor(3 if index == 9 else index)}

    vectors[9] = vectors[3]  # one file twice
    vectors[12] = vectors[7]  # one thing, drawn a little brighter
    pictures[12] = (pictures[7] + 1 / 255).clamp(max=1)
    vectors[20] = vectors[21]  # a shortcut: one embedding for two things
    pictures[9] = pictures[3]
    found = draw(source(Same(vectors, pictures)), 5, 0)
    assert {(one.pair, one.exact) for one in found.twins} == {((3, 9), True), ((7, 12), False)}
    tree = shown(tmp_path, found)
    assert "the same content" in tree.text
    assert "nearly the same picture" in tree.text
    monkeypatch.setattr(Same, "together", True)
    whole = draw(source(Same(vectors, pictures)), 5, 0)
    assert whole.twins is None
    assert "Duplicates" not in shown(tmp_path / "whole", whole).text
    monkeypatch.undo()
    pictures[12] = (pictures[7] + (ALIKE + 2) / 255).clamp(max=1)
    assert [one.pair for one in draw(source(Same(vectors, pictures)), 5, 0).twins] == [(3, 9)]
    vectors[9] = vectors[3] + 0.2 * torch.randn(8, generator=torch.Generator().manual_seed(2))
    centred = vectors - vectors.mean(0)
    assert 0.95 < float(torch.cosine_similarity(centred[9], centred[3], dim=0)) < NEAR
    assert draw(source(Same(vectors, pictures)), 5, 0).twins == [], "the same, and the encoder tells them apart"
    assert "None among these samples." in shown(tmp_path / "b", draw(source(Same(vectors, pictures)), 5, 0)).text


def test_a_row_that_stands_twice_in_a_table_is_found(run: Path, tmp_path: Path) -> None:
    from unlabeled.report.write import report

    tree = opened(report([run], tmp_path / "page.html", data=str(run.parent / "table.csv")))
    (table,) = [one for one in tree.every("table", "rows") if "the same content" in one.text]
    rows = [[cell.text for cell in row.every("td")] for row in table.every("tr") if list(row.every("td"))]
    assert [row[1] for row in rows] == ["59", "60"], "names after what all begin with"
    assert rows[0][3:] == rows[1][3:]
    line = (run.parent / "table.csv").read_text().splitlines()[60].split(",")
    assert [float(cell) for cell in rows[1][3:]] == [float(cell) for cell in line[:3]], "cells as the file has them"


def test_samples_without_pictures_are_rows(tmp_path: Path) -> None:
    vectors = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    found = draw(source(Drawn(vectors, None)), 5, 0)
    tree = shown(tmp_path, found)
    assert not list(tree.every("img"))
    assert not [dot for dot in tree.every("circle", "dot") if "data-picture" in dot]
    table = next(tree.every("table", "rows"))
    assert [cell.text for cell in table.every("th")] == ["", "sample", "cosine", "size", "</td>"]
    bodies = [[[cell.text for cell in row.every("td")] for row in body.every("tr")] for body in table.every("tbody")]
    for place, (body, (query, near)) in enumerate(zip(bodies, found.near, strict=True), start=1):
        assert body[0] == [str(place), f"<{query}>", "", str(query * 2), "&"]
        assert body[1:] == [["", f"<{other}>", f"{cosine:.2f}", str(other * 2), "&"] for other, cosine in near]


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("mute", "Samples are not described: ZeroDivisionError: no words"),
        ("raises", "the reader Drawn of test_report_samples fails to draw"),
        ("few", "the reader drew 1 of 30 samples"),
    ],
)
def test_a_plugin_that_fails_to_draw_costs_its_pictures(tmp_path: Path, fault: str, sentence: str) -> None:
    vectors = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    tree = shown(tmp_path, draw(source(Drawn(vectors, noise(30), fault)), 5, 0))
    assert sentence in tree.text
    assert len(list(tree.every("circle", "dot"))) == 30
    assert bool(list(tree.every("img"))) == (fault == "mute")


# --- how large


@pytest.mark.parametrize(
    ("shape", "side", "want"),
    [((128, 128), 64, (64, 64)), ((20, 30), 64, (20, 30)), ((40, 400), 64, (32, 64)), ((300, 10), 64, (20, 10))],
)
def test_small_pictures_keep_their_proportions_up_to_two_to_one(
    shape: tuple[int, int], side: int, want: tuple[int, int]
) -> None:
    assert small(np.full(shape, 7, np.uint8), side).shape == want


def test_a_small_picture_is_of_means() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (128, 128)).astype(np.uint8)
    means = picture.reshape(32, 4, 32, 4).mean((1, 3))
    assert np.abs(small(picture, 32).astype(float) - means).max() <= 0.5


def test_pictures_shrink_and_then_thin_out() -> None:
    pictures = [(one * 255).byte().numpy() for one in noise(50, SIDE, SIDE)]
    sizes = {side: sum(len(base64.b64encode(png(small(one, side)))) for one in pictures) for side in SIDES}
    for side in SIDES:
        made = encoded(pictures, 50, sizes[side])
        assert {decoded(str(one)).shape for one in made} == {(side, side)}
    few = encoded(pictures, 50, sizes[16] // 3)
    kept = [one for one in few if one]
    assert 10 <= len(kept) <= 17
    assert sum(map(len, kept)) <= sizes[16] // 3 * 1.05
    assert encoded(None, 3, 100) == [None] * 3


@pytest.mark.parametrize("runs", [1, 6])
def test_a_page_of_noise_stays_below_three_megabytes(tmp_path: Path, runs: int) -> None:
    """Nothing compresses less than noise."""
    reader = Drawn(torch.randn(600, 16), noise(600, 80, 80))
    found = draw(source(reader), 5, 0)
    assert len(found.names) == 500
    shown = [read(RunFolder(made(tmp_path / str(number))), str(number)) for number in range(runs)]
    text = page(shown, [found] * runs)
    dots = list(Reader(text).open[0].every("circle", "dot"))
    assert all(dot.get("data-picture") for dot in dots)
    assert MOST_BYTES / 4 < len(text.encode()) < 3_000_000
