"""What views do to sound: segments, levels, ratios in power, boxes and stripes of the log-mel, and padding."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sounds import RATE, chance, tone
from unlabeled.contract import Batch
from unlabeled.errors import UserError
from unlabeled.randomness import Draws, sample_keys
from unlabeled_audio.features import frames_of, in_place, log_mel
from unlabeled_audio.mixing import Pool, at_ratio, in_room
from unlabeled_audio.readers import AudioReader
from unlabeled_audio.views import ResizedCrops, Segments, SpecAugment, resized

Save = Callable[..., str]


def draws(count: int, seed: int = 0) -> Draws:
    return Draws(sample_keys(seed, 0, torch.arange(count)))


@pytest.mark.parametrize("ratio", [-10.0, 0.0, 20.0])
@pytest.mark.parametrize("count", [300, 1000, 4000])
def test_a_background_has_the_power_that_was_asked_for(ratio: float, count: int) -> None:
    wave, noise = chance(1000), 0.01 * chance(count).roll(3)
    mixed = at_ratio(wave, noise, ratio)
    added = (mixed - wave).square().mean()
    assert 10 * torch.log10(wave.square().mean() / added) == pytest.approx(ratio, abs=1e-3)


def test_silence_has_no_ratio() -> None:
    wave = chance(100)
    assert at_ratio(wave, torch.zeros(100), 0.0).equal(wave)
    assert not at_ratio(torch.zeros(100), wave, 0.0).any()


def test_the_view_mixes_within_its_bounds_before_the_gain(reader: AudioReader, save: Save) -> None:
    noise = save("noise.wav", np.random.default_rng(1).uniform(-0.1, 0.1, RATE), subtype="FLOAT")
    plain = Segments(reader.facts, share=(1.0, 1.0), gain=0.0)
    view = Segments(reader.facts, share=(1.0, 1.0), gain=0.0, background=noise, snr=(5.0, 9.0))
    ratios = []
    for number in range(20):
        sample = reader[4]
        clean, mixed = (one.sample(sample, "global", draws(1, number))["wave"] for one in (plain, view))
        ratios.append(float(10 * torch.log10(clean.square().mean() / (mixed - clean).square().mean())))
    assert min(ratios) >= 5 - 1e-2
    assert max(ratios) <= 9 + 1e-2
    assert max(ratios) - min(ratios) > 1


def test_a_pool_without_a_readable_clip_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("hello")
    with pytest.raises(UserError, match="cannot be read; choose another"):
        Pool(str(tmp_path), RATE).take(draws(1))


def test_a_room_of_one_echo_adds_it_and_keeps_the_power() -> None:
    impulse = torch.zeros(300)
    impulse[50], impulse[150] = 1.0, 0.5
    wave = chance(2000)
    heard = in_room(wave, impulse)
    echo = wave.clone()
    echo[100:] += 0.5 * wave[:-100]
    assert torch.allclose(heard / heard.norm(), echo / echo.norm(), atol=1e-5)
    assert heard.square().sum() == pytest.approx(float(wave.square().sum()), rel=1e-4)


def test_segments_are_parts_of_the_clip_of_the_right_length(reader: AudioReader) -> None:
    view = Segments(reader.facts, seconds=0.3, share=(0.6, 0.8), local=(0.2, 0.4), gain=0.0)
    starts = set()
    for number in range(30):
        for kind, low, high in (("global", 0.6, 0.8), ("local", 0.2, 0.4)):
            wave = reader[1]["wave"]
            made = view.sample(reader[1], kind, draws(1, number))
            part, count = made["wave"], int(made["length"])
            assert len(part) == count
            assert count <= 0.3 * RATE
            assert count <= high * len(wave) + 1
            assert count >= min(low * len(wave) - 1, 0.3 * RATE)
            place = next(at for at in range(len(wave) - count + 1) if wave[at : at + count].equal(part))
            starts.add(place)
    assert len(starts) > 20
    assert view.sample(reader[1], "whole", draws(1))["wave"].equal(reader[1]["wave"])


def test_gain_is_in_decibels(reader: AudioReader) -> None:
    view, still = Segments(reader.facts, gain=6.0), Segments(reader.facts, gain=0.0)
    decibel = []
    for number in range(40):
        loud, plain = (one.sample(reader[1], "global", draws(1, number))["wave"] for one in (view, still))
        ratio = loud.abs().max() / plain.abs().max()
        torch.testing.assert_close(loud, plain * ratio)
        decibel.append(20 * math.log10(ratio))
    assert max(map(abs, decibel)) <= 6
    assert min(decibel) < -4 < 4 < max(decibel)
    assert view.sample(reader[1], "plain", draws(1))["wave"].abs().max() == reader[1]["wave"].abs().max()


def boxes(mel: Tensor, count: Tensor, *box: Tensor) -> Tensor:
    """[B, F, T] boxes of padded log-mels [B, F, T]."""
    place = (torch.arange(mel.shape[2]) < count[:, None]).nonzero()
    logs = mel[place[:, 0], :, place[:, 1]]
    return in_place(resized(logs, place, count, *box), place, (len(mel), mel.shape[2]))


def test_a_box_of_everything_is_the_log_mel_itself(batch: Batch, reader: AudioReader) -> None:
    mel, count = log_mel(batch["wave"], batch["length"], reader.mel), frames_of(batch["length"], reader.mel)
    one, zero = torch.ones(len(mel)), torch.zeros(len(mel))
    assert torch.allclose(boxes(mel, count, one, one, zero, zero), mel, atol=1e-4)


def test_a_box_is_the_part_that_it_names(reader: AudioReader) -> None:
    """Half of the bands and of the frames, twice as large: a ramp stays a ramp of half the slope."""
    ramp = torch.arange(32.0)[:, None] + 100 * torch.arange(40.0)
    mel = torch.zeros(1, 32, 60)
    mel[0, :, :40] = ramp
    half = torch.tensor([0.5])
    out = boxes(mel, torch.tensor([40]), half, half, torch.tensor([0.25]), torch.tensor([0.5]))[0]
    frame, band = torch.arange(40.0), torch.arange(32.0)
    expected = (8 + (band + 0.5) / 2 - 0.5)[:, None] + 100 * (20 + (frame + 0.5) / 2 - 0.5)
    inside = slice(1, -1)
    assert torch.allclose(out[inside, 1:38], expected[inside, 1:38], atol=0.02)
    assert not out[:, 40:].any(), "nothing comes after the end of the clip"


def test_boxes_are_what_grid_sample_makes_of_each_clip_alone() -> None:
    chance = torch.Generator().manual_seed(0)
    mel, count = torch.randn(5, 16, 30, generator=chance), torch.tensor([30, 17, 1, 2, 29])
    height, low = torch.rand(5, generator=chance), torch.rand(5, generator=chance)
    width, start = 0.5 + torch.rand(5, generator=chance), torch.rand(5, generator=chance) - 0.5
    mel = mel * (torch.arange(30) < count[:, None])[:, None]
    out = boxes(mel, count, height, width, low * (1 - height), start)
    for row, frames in enumerate(count.tolist()):
        across = start[row] + width[row] * (torch.arange(frames) + 0.5) / frames
        up = low[row] * (1 - height[row]) + height[row] * (torch.arange(16) + 0.5) / 16
        y, x = torch.meshgrid(2 * up - 1, 2 * across - 1, indexing="ij")
        longer = torch.nn.functional.pad(mel[row, :, :frames], (0, 3))  # zeros follow a clip, as they do in a batch
        x = (x + 1) * frames / (frames + 3) - 1
        made = torch.nn.functional.grid_sample(longer[None, None], torch.stack([x, y], -1)[None], align_corners=False)
        assert torch.allclose(out[row, :, :frames], made[0, 0], atol=1e-5)
        assert not out[row, :, frames:].any()


def test_a_box_beyond_the_clip_finds_the_mean() -> None:
    mel = torch.full((1, 8, 20), 5.0)
    wide = torch.tensor([2.0])
    out = boxes(mel, torch.tensor([20]), torch.ones(1), wide, torch.zeros(1), torch.tensor([-0.5]))[0]
    assert not out[:, :4].any()
    assert not out[:, -4:].any()
    assert torch.allclose(out[:, 6:14], torch.tensor(5.0))


def test_stripes_stay_inside_the_clip_and_the_largest_share(batch: Batch, reader: AudioReader) -> None:
    view = SpecAugment(reader.facts, gain=0.0, bands=0.25, frames=0.25, masks=1)
    mel = log_mel(batch["wave"], batch["length"], reader.mel)
    count = frames_of(batch["length"], reader.mel)
    seen_bands, seen_frames = [], []
    for seed in range(20):
        out = view.batch(batch, "global", draws(len(mel), seed))["logmel"]
        there = torch.arange(mel.shape[2]) < count[:, None]
        gone = (out == 0) & (mel != 0)
        bands = (gone | ~there[:, None]).all(2)
        frames = gone.all(1)
        assert (gone == ((bands[:, :, None] | frames[:, None]) & (mel != 0))).all(), "only whole bands and frames"
        assert (bands.sum(1) <= 0.25 * 64 + 1).all()
        assert (frames.sum(1) <= 0.25 * count + 1).all()
        seen_bands.append(int(bands.sum()))
        seen_frames.append(int(frames.sum()))
    assert min(seen_bands) > 0
    assert min(seen_frames) > 0
    off = SpecAugment(reader.facts, masks=0)
    assert "logmel" not in off.batch(batch, "global", draws(len(mel)))


def test_other_kinds_get_no_log_mel(batch: Batch, reader: AudioReader) -> None:
    for view in (ResizedCrops(reader.facts), SpecAugment(reader.facts)):
        assert view.batch(batch, "whole", draws(12)) is batch
        assert "logmel" in view.batch(batch, "local", draws(12))


@pytest.mark.parametrize(
    "options", [{"share": (0.8, 0.6)}, {"share": (0.0, 0.5)}, {"seconds": 0.0}, {"gain": -1.0}, {"snr": (3.0, 900.0)}]
)
def test_bounds_that_make_no_sense(reader: AudioReader, options: dict[str, float]) -> None:
    with pytest.raises(UserError):
        Segments(reader.facts, **options)


def test_a_long_view_is_no_longer_than_said(save: Save) -> None:
    reader = AudioReader(save("long.wav", tone(4.0)))
    view = Segments(reader.facts, seconds=1.5)
    assert len(view.sample(reader[0], "plain", draws(1))["wave"]) == 1.5 * RATE
    assert len(view.sample(reader[0], "whole", draws(1))["wave"]) == 4 * RATE
