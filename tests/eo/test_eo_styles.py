"""Fourier styles: what they change and what they leave, and that all chips of a step and view have one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from test_eo_views import FACTS, made
from unlabeled.contract import Batch
from unlabeled.data.collate import collate
from unlabeled.errors import UserError
from unlabeled.plugins import load
from unlabeled.randomness import Draws, sample_keys
from unlabeled_eo import styles
from unlabeled_eo.views import OpticalViews, SarViews

QUIET: dict[str, Any] = {"speckle": 0.0, "multilook": 0.0, "despeckle": 0.0, "flips": "", "crop": 32}


def chips(number: int, seed: int = 0, side: int = 32) -> torch.Tensor:
    return torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(seed)) + 0.5


def test_a_style_is_what_the_low_waves_become_and_phases_stay() -> None:
    x, style = chips(3), styles.amplitudes(chips(3, 1, side=20))
    out = styles.styled(x, style)
    torch.testing.assert_close(styles.amplitudes(out), style, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(styles.styled(x, styles.amplitudes(x)), x)
    before, after = torch.fft.fft2(x.double()), torch.fft.fft2(out.double())
    low = torch.zeros(32, 32, dtype=torch.bool)
    low[torch.tensor([-2, -1, 0, 1, 2])[:, None], torch.tensor([-2, -1, 0, 1, 2])] = True
    torch.testing.assert_close(after[..., ~low], before[..., ~low], rtol=1e-4, atol=1e-4)
    turn = after[..., low] / before[..., low]
    torch.testing.assert_close(turn / turn.abs(), torch.ones_like(turn), rtol=0, atol=1e-3)


def test_a_style_by_hand() -> None:
    """A wave of amplitude A down a chip is A / 2 in each of two opposite numbers; its level is at 0, 0."""
    down = (2 * torch.pi * torch.arange(16) / 16)[:, None].expand(16, 16)
    found = styles.amplitudes((3 + 0.5 * down.cos())[None])[0]
    wanted = torch.zeros(5, 3)
    wanted[2, 0], wanted[1, 0], wanted[3, 0] = 3, 0.25, 0.25
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_chips_of_few_pixels_have_styles(side: int) -> None:
    x = chips(2, side=side)
    out = styles.styled(x, styles.amplitudes(chips(2, 1)))
    assert out.shape == x.shape
    assert out.isfinite().all()
    torch.testing.assert_close(out.mean((-2, -1)), chips(2, 1).mean((-2, -1)))


def in_steps(view: Any, image: torch.Tensor, steps: torch.Tensor) -> Batch:
    """Global views of chips, each of a step of its own."""
    keys = sample_keys(0, 0, torch.arange(len(image)))
    samples = [{"image": one, "valid": torch.ones(one.shape[1:], dtype=torch.bool)} for one in image]
    cut = [view.sample(one, "global", Draws(keys[at : at + 1])) for at, one in enumerate(samples)]
    return view.batch(collate(cut, load("eo")), "global", Draws(keys, steps))


def test_chips_of_one_step_have_one_style_and_other_steps_another() -> None:
    bank = styles.amplitudes(chips(8, 3) * torch.linspace(0.5, 2, 8)[:, None, None, None])
    view = SarViews({**FACTS, "scale": "db", "styles": bank.tolist()}, style=1.0, **QUIET)
    image = chips(24)
    steps = Draws(torch.tensor([5, 6, 7])).bits(1)[:, 0].repeat_interleave(8)
    found = styles.amplitudes(in_steps(view, image, steps)["image"]).view(3, 8, -1)
    torch.testing.assert_close(found, found[:, :1].expand_as(found), rtol=1e-3, atol=1e-5)
    nearest = torch.cdist(found[:, 0], bank.flatten(1)).min(1)
    assert nearest.values.max() < 1e-3
    assert len(nearest.indices.unique()) > 1
    split = torch.cat([in_steps(view, image, steps)["image"][:5], in_steps(view, image, steps)["image"][5:]])
    torch.testing.assert_close(in_steps(view, image, steps)["image"], split)


def test_pixels_without_a_value_stay_without_and_take_no_part() -> None:
    bank = styles.amplitudes(chips(8, 3)).tolist()
    quiet: dict[str, Any] = {"contrast": 0, "brightness": 0, "drop": 0, "blur": 0, "turns": False, "zoom": (1, 1)}
    view = OpticalViews({**FACTS, "styles": bank}, style=1.0, crop=24, **quiet)
    image = chips(4, side=24)
    valid = torch.ones(24, 24, dtype=torch.bool)
    valid[:6] = False
    outs = []
    for hole in (0.0, 1e6):
        samples = [{"image": torch.where(valid, one, hole), "valid": valid} for one in image]
        outs.append(made(view, samples, "global"))
    torch.testing.assert_close(outs[0]["image"], outs[1]["image"])
    assert (outs[0]["image"][~outs[0]["valid"][:, None].expand(-1, 3, -1, -1)] == 0).all()


@pytest.mark.parametrize("scale", ["linear", "amplitude", "db"])
def test_no_power_is_below_nothing(scale: str) -> None:
    """A dark chip in the style of one with a strong wave; decibels may well be negative."""
    bank = styles.amplitudes(chips(8) + 2 * torch.linspace(0, 6, 32).sin()[:, None])
    view = SarViews({**FACTS, "scale": scale, "styles": bank.tolist()}, style=1.0, **QUIET)
    out = in_steps(view, 0.1 * chips(8), torch.zeros(8, dtype=torch.int64))["image"]
    assert (float(out.min()) < 0) == (scale == "db")
    assert float(out.max()) > 0.5


def test_a_share_of_the_steps_and_bad_options() -> None:
    bank = styles.amplitudes(chips(8, 3) * 3).tolist()
    view = SarViews({**FACTS, "styles": bank}, style=0.5, **QUIET)
    image = chips(64)
    out = in_steps(view, image, Draws(torch.arange(64)).bits(1)[:, 0])["image"]
    same = (out == image).flatten(1).all(1)
    assert 16 < int(same.sum()) < 48
    with pytest.raises(UserError, match="share of the steps"):
        SarViews({**FACTS, "styles": bank}, style=1.5)
    with pytest.raises(UserError, match="before styles were kept"):
        SarViews({key: value for key, value in FACTS.items() if key != "styles"}, style=0.5)
    with pytest.raises(UserError, match="complex"):
        SarViews({**FACTS, "styles": bank, "complex": True}, style=0.5)


def test_readers_keep_styles_of_their_chips(scenes: str) -> None:
    from unlabeled_eo.readers import EOReader

    reader = EOReader(scenes)
    bank = torch.tensor(reader.facts["styles"])
    assert bank.shape[1:] == (len(reader.facts["channels"]), 5, 3)
    assert 1 <= len(bank) <= styles.KEPT
    samples = [sample for at in range(len(reader)) if (sample := reader.or_none(at)) is not None]
    found = [styles.amplitudes(styles.filled(one["image"], one["valid"])) for one in samples]
    assert all(min(float((one - style).abs().max()) for one in found) < 1e-3 * float(style.max()) for style in bank)


def test_where_few_of_many_chips_can_be_read_these_have_styles(tif: Callable[..., Path], tmp_path: Path) -> None:
    from unlabeled_eo.readers import EOReader

    for number in range(40):
        path = tif(f"scenes/{number:02d}.tif", np.random.default_rng(number).random((1, 16, 16)).astype(np.float32))
        if number not in (17, 30):
            path.write_bytes(path.read_bytes()[:-600])  # the header is whole and the pixels are not
    reader = EOReader(str(tmp_path / "scenes"), stored="linear")
    assert sum(reader.or_none(index) is not None for index in range(40)) == 2
    assert len(reader.facts["styles"]) == 1
