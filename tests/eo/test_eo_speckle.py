"""Speckle: its statistics, its three forms, and filters against loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from unlabeled.randomness import Draws, sample_keys
from unlabeled_eo import speckle
from unlabeled_eo.scales import Scale, convert


def draws(count: int, seed: int = 0) -> Draws:
    return Draws(sample_keys(seed, 0, torch.arange(count)))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("looks", [0.5, 1.0, 1.7, 4.0, 20.0, 300.0])
def test_gamma_has_mean_one_and_variance_one_over_looks(looks: float, own: bool) -> None:
    """By torch's generator, and by our own rejection, which is what other devices than processors have."""
    column = torch.full((8,), looks)
    made = speckle.gamma_by_draws(column, (2, 100, 100), draws(8)) / looks if own else None
    n = (speckle.gamma(column, (2, 100, 100), draws(8)) if made is None else made).double().flatten()
    count = len(n)
    assert abs(float(n.mean()) - 1) < 5 * math.sqrt(1 / looks / count)
    assert float(n.var()) == pytest.approx(1 / looks, rel=0.05)
    assert stats.kstest(n.numpy(), stats.gamma(looks, scale=1 / looks).cdf).pvalue > 1e-3


def test_looks_belong_to_rows() -> None:
    n = speckle.gamma(torch.tensor([1.0, 16.0]), (1, 120, 120), draws(2))
    assert float(n[0].var()) == pytest.approx(1.0, rel=0.1)
    assert float(n[1].var()) == pytest.approx(1 / 16, rel=0.1)


@pytest.mark.parametrize("make", [speckle.gamma, speckle.gamma_by_draws])
def test_a_row_of_gamma_depends_on_its_own_key_alone(make: Any) -> None:
    looks = torch.tensor([0.7, 3.0, 9.0])
    whole = make(looks, (1, 9, 9), draws(3))
    for row in range(3):
        assert torch.equal(
            whole[row : row + 1], make(looks[row : row + 1], (1, 9, 9), draws(3).rows(slice(row, row + 1)))
        )
    assert not torch.equal(make(looks, (1, 9, 9), draws(3, seed=1)), whole)


@pytest.mark.parametrize("scale", ["amplitude", "db"])
def test_the_three_forms_are_one(scale: Scale) -> None:
    power = torch.rand(3, 2, 8, 8) + 0.1
    looks = torch.tensor([1.0, 4.0, 9.0])
    linear = speckle.speckled(power, looks, "linear", draws(3))
    other = speckle.speckled(convert(power, "linear", scale), looks, scale, draws(3))
    torch.testing.assert_close(convert(other, scale, "linear"), linear, rtol=1e-4, atol=1e-6)


def test_speckle_on_speckle_follows_the_rule_of_looks() -> None:
    """1/ENL' = 1/ENL + 1/L + 1/(ENL × L)."""
    enl, more = 4.0, 3.0
    chance = np.random.default_rng(0)
    image = torch.from_numpy(chance.gamma(enl, 1 / enl, (4, 1, 200, 200)))
    out = speckle.speckled(image, torch.full((4,), more), "linear", draws(4)).double()
    got = float(out.var() / out.mean() ** 2)
    assert got == pytest.approx(1 / enl + 1 / more + 1 / (enl * more), rel=0.03)


def test_smoothing_is_the_mean_power_of_what_is_valid() -> None:
    image = torch.randn(1, 1, 6, 7)
    valid = torch.ones(1, 1, 6, 7, dtype=torch.bool)
    valid[..., 2, 3] = False
    out = speckle.smoothed(image, valid, 3, "db")
    for row in range(6):
        for column in range(7):
            if not valid[0, 0, row, column]:
                assert out[0, 0, row, column] == image[0, 0, row, column]
                continue
            near = [
                10 ** (float(image[0, 0, r, c]) / 10)
                for r in range(max(0, row - 1), min(6, row + 2))
                for c in range(max(0, column - 1), min(7, column + 2))
                if valid[0, 0, r, c]
            ]
            assert float(out[0, 0, row, column]) == pytest.approx(10 * math.log10(np.mean(near)), abs=1e-4)


def test_multilooking_multiplies_the_looks() -> None:
    image = speckle.gamma(torch.ones(4), (1, 90, 90), draws(4))
    valid = torch.ones_like(image, dtype=torch.bool)
    out = speckle.smoothed(image, valid, 3, "linear")[..., 1::3, 1::3]
    assert float(out.mean() ** 2 / out.var()) == pytest.approx(9, rel=0.1)


def test_lees_filter_against_loops() -> None:
    image = torch.rand(2, 1, 7, 8) + 0.2
    valid = torch.rand(2, 1, 7, 8) > 0.1
    looks = torch.tensor([2.0, 8.0])
    out = speckle.despeckled(image, valid, 5, looks, "linear")
    for b in range(2):
        for r in range(7):
            for c in range(8):
                if not valid[b, 0, r, c]:
                    assert out[b, 0, r, c] == image[b, 0, r, c]
                    continue
                near = image[b, 0, max(0, r - 2) : r + 3, max(0, c - 2) : c + 3]
                good = near[valid[b, 0, max(0, r - 2) : r + 3, max(0, c - 2) : c + 3]].double()
                mean, spread = float(good.mean()), float(good.var(correction=0))
                noise = 1 / float(looks[b])
                signal = max((spread - mean**2 * noise) / (1 + noise), 0)
                share = min(signal / max(spread, 1e-20), 1)
                wanted = mean + share * (float(image[b, 0, r, c]) - mean)
                assert float(out[b, 0, r, c]) == pytest.approx(wanted, abs=1e-4)


def test_lees_filter_leaves_a_flat_place_flat_and_smooths_speckle() -> None:
    image = speckle.gamma(torch.full((2,), 4.0), (1, 64, 64), draws(2))
    valid = torch.ones_like(image, dtype=torch.bool)
    smooth = speckle.despeckled(image, valid, 5, torch.full((2,), 4.0), "linear")
    assert float(smooth.var()) < 0.2 * float(image.var())
    assert float(smooth.mean()) == pytest.approx(1, abs=0.02)


def test_a_sub_aperture_of_all_is_the_image_and_half_keeps_its_power() -> None:
    image = torch.randn(2, 1, 128, 32, dtype=torch.complex64)
    whole = speckle.sub_aperture(image, torch.rand(2), torch.ones(2))
    torch.testing.assert_close(whole, image, rtol=1e-4, atol=1e-4)
    half = speckle.sub_aperture(image, torch.tensor([0.0, 1.0]), torch.full((2,), 0.5))
    assert float(half.abs().square().mean() / image.abs().square().mean()) == pytest.approx(1, rel=0.1)
    spectrum = torch.fft.fftshift(torch.fft.fft(half, dim=-2), dim=-2).abs()
    assert float(spectrum[0, :, 64:].max()) < 1e-3  # row 0 looks from the first half, row 1 from the second
    assert float(spectrum[1, :, :64].max()) < 1e-3
