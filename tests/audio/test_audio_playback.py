"""Known ways to play a clip: backwards against loops, faster against what a sine and its log-mel must become."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unlabeled_audio.features import Mel, centres, frames_of, log_mel, place_of
from unlabeled_audio.playback import WAYS, played

MEL = Mel(16000, 64, 160, 400, 60.0, 7800.0, mean=-5.0, std=4.0)
S = 8000


def sine(hertz: float, count: int = S) -> Tensor:
    return 0.5 * torch.sin(2 * math.pi * hertz / MEL.rate * torch.arange(S)) * (torch.arange(S) < count)


def batch(*lengths: int, hertz: float = 1000.0, logmel: bool = False) -> dict[str, Tensor]:
    out = {"wave": torch.stack([sine(hertz, count) for count in lengths]), "length": torch.tensor(lengths)}
    return {**out, "logmel": log_mel(out["wave"], out["length"], MEL)} if logmel else out


def test_backwards_by_loops() -> None:
    chance = torch.Generator().manual_seed(0)
    lengths = torch.tensor([400, 170, 1])
    wave = torch.randn(3, 400, generator=chance) * (torch.arange(400) < lengths[:, None])
    mels = torch.randn(3, 5, 3, generator=chance)  # one frame each 160 samples: 3, 2 and 1 of them
    out = played({"wave": wave, "length": lengths, "logmel": mels}, torch.tensor([0, 1, 1]), MEL)
    assert out["wave"][0].equal(wave[0])
    assert out["wave"][1].tolist() == [*reversed(wave[1, :170].tolist()), *[0.0] * 230]
    assert out["logmel"][1].equal(mels[1][:, [1, 0, 2]])
    assert out["logmel"][2].equal(mels[2])
    assert out["length"].equal(lengths)


@pytest.mark.parametrize("hertz", [200.0, 1000.0, 3000.0])
def test_a_sine_is_a_quarter_higher_and_shorter(hertz: float) -> None:
    made = batch(8000, 5001, hertz=hertz, logmel=True)
    out = played(made, torch.tensor([2, 2]), MEL)
    assert out["length"].tolist() == [6400, 4001]
    inner = slice(100, 3900)  # of a filter's edges nothing is promised
    torch.testing.assert_close(out["wave"][0, inner], sine(1.25 * hertz)[inner], atol=0.02, rtol=0)
    assert not out["wave"][1, 4001:].any()
    again = log_mel(out["wave"], out["length"], MEL)
    loud = int(again[0, :, 15].argmax())
    assert abs(loud - float(place_of(torch.tensor(1.25 * hertz), MEL))) <= 0.75
    assert abs(int(out["logmel"][0, :, 15].argmax()) - loud) <= 1, "the log-mel of a view goes with the wave"
    frames = frames_of(out["length"], MEL)
    assert not out["logmel"][1, :, int(frames[1]) :].any()


def test_time_in_a_log_mel_passes_a_quarter_faster() -> None:
    """A click at frame 40 comes at frame 32."""
    made = batch(8000, logmel=True)
    made["logmel"] = torch.zeros_like(made["logmel"])
    made["logmel"][:, :, 40] = 1.0
    assert int(played(made, torch.tensor([2]), MEL)["logmel"][0].sum(0).argmax()) == 32
    count = int(frames_of(torch.tensor(6400), MEL))
    assert int(played(made, torch.tensor([3]), MEL)["logmel"][0].sum(0).argmax()) == count - 1 - 32


def test_both_is_one_after_the_other_and_none_is_nothing() -> None:
    made = batch(8000, 5001, 3, logmel=True)
    before = {name: value.clone() for name, value in made.items()}
    rows = torch.ones(3, dtype=torch.long)
    both, after = played(made, 3 * rows, MEL), played(played(made, 2 * rows, MEL), rows, MEL)
    for name in made:
        assert both[name].equal(after[name])
        assert made[name].equal(before[name])
        assert played(made, 0 * rows, MEL)[name].equal(made[name])
    assert WAYS == 4


def test_frequencies_find_their_bands() -> None:
    torch.testing.assert_close(place_of(centres(MEL), MEL), torch.arange(64.0, dtype=torch.float64))
    spectrum = log_mel(sine(float(centres(MEL)[30]))[None], torch.tensor([S]), MEL)
    assert int(spectrum[0, :, 20].argmax()) == 30
