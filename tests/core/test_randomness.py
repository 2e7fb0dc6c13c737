"""Draws are uniform, independent of each other, and belong to their row."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unlabeled.randomness import FEW, Draws, sample_keys


def draws(rows: int = 64, seed: int = 0, epoch: int = 0) -> Draws:
    return Draws(sample_keys(seed, epoch, torch.arange(rows)))


def chi2(x: Tensor, bins: int) -> float:
    """Pearson's statistic of numbers in [0, 1), in standard deviations from its mean."""
    seen = torch.histc(x.float().flatten(), bins, 0, 1)
    goal = x.numel() / bins
    return (((seen - goal) ** 2 / goal).sum().item() - (bins - 1)) / math.sqrt(2 * (bins - 1))


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation, in standard deviations of its chance value."""
    a, b = a.flatten().double() - a.double().mean(), b.flatten().double() - b.double().mean()
    return ((a * b).mean() / (a.std() * b.std())).item() * math.sqrt(a.numel())


@pytest.mark.parametrize("rows", [1, 64, 20_000])
def test_uniform_along_places_and_along_rows(rows: int) -> None:
    x = draws(rows).uniform(60_000 // rows + 1)
    assert x.dtype == torch.float32
    assert 0 <= x.min() < x.max() < 1
    assert abs(chi2(x, 256)) < 5
    assert abs(x.mean().item() - 0.5) < 5 * math.sqrt(1 / 12 / x.numel())


def test_every_bit_is_even() -> None:
    bits = draws(256).bits(128)
    ones = torch.stack([((bits >> place) & 1).double().mean() for place in range(64)])
    assert (ones - 0.5).abs().max() < 5 * 0.5 / math.sqrt(bits.numel())


def test_uniform_in_a_range() -> None:
    x = draws().uniform(1000, low=-2.0, high=3.0)
    assert -2 <= x.min() < -1.99
    assert 2.99 < x.max() <= 3
    assert abs(chi2((x + 2) / 5, 64)) < 5


def test_normal_moments() -> None:
    x = draws(200).normal(500).double()
    n = math.sqrt(x.numel())
    assert abs(x.mean()) < 5 / n
    assert abs((x**2).mean() - 1) < 5 * math.sqrt(2) / n
    assert abs((x**3).mean()) < 5 * math.sqrt(15) / n
    assert abs((x**4).mean() - 3) < 5 * math.sqrt(96) / n
    assert x.isfinite().all()
    assert abs(chi2(torch.special.ndtr(x), 64)) < 5


def test_integers_cover_their_range_evenly() -> None:
    x = draws().integers(-3, 8, 1000)
    assert x.unique().tolist() == list(range(-3, 8))
    assert abs(chi2((x + 3.5) / 11, 11)) < 5
    assert (draws().integers(5, 6, 10) == 5).all()


def test_chance() -> None:
    x = draws(100).chance(0.3, 100).double()
    assert abs(x.mean() - 0.3) < 5 * math.sqrt(0.21 / x.numel())
    assert not draws().chance(0.0, 100).any()
    assert draws().chance(1.0, 100).all()


def test_shapes() -> None:
    assert draws(3).uniform().shape == (3,)
    assert draws(3).uniform(2, 4).shape == (3, 2, 4)
    assert draws(3).uniform(0).shape == (3, 0)
    assert draws(0).uniform(5).shape == (0, 5)


def test_independent_across_calls_forks_rows_places_epochs_and_seeds() -> None:
    one, same = draws(128), draws(128)
    x = one.uniform(256)
    others = {
        "calls": one.uniform(256),
        "forks": same.fork("mask").uniform(256),
        "numbered forks": same.fork(0).uniform(256),
        "epochs": draws(128, epoch=1).uniform(256),
        "seeds": draws(128, seed=1).uniform(256),
        "rows": x.roll(1, 0),
        "places": x.roll(1, 1),
    }
    for name, other in others.items():
        assert abs(correlation(x, other)) < 5, name
        assert abs(correlation((x - 0.5).abs(), (other - 0.5).abs())) < 5, name
        assert abs(chi2((x - other) % 1, 64)) < 5, name


def test_forks_of_forks_depend_on_the_whole_path() -> None:
    root = draws(16)
    paths = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), ("a",), ("b",), ("a", "b"), ("b", "a"), (2**40,), (-1,)]
    seen = set()
    for path in paths:
        stream = root
        for label in path:
            stream = stream.fork(label)
        seen.add(tuple(stream.bits(2).flatten().tolist()))
    assert len(seen) == len(paths)


def test_repeatable_and_forking_does_not_advance() -> None:
    one, two = draws(), draws()
    first = one.uniform(3)
    two.fork("view")
    assert torch.equal(first, two.uniform(3))
    assert not torch.equal(first, two.uniform(3))
    assert torch.equal(draws().normal(5), draws().normal(5))


def test_a_row_depends_on_its_own_key_alone() -> None:
    keys = sample_keys(0, 0, torch.arange(10))
    order = torch.randperm(10)
    whole, shuffled, part = Draws(keys), Draws(keys[order]), Draws(keys[3:5])
    for stream in (whole, shuffled, part):
        stream.uniform(2)
    x = whole.fork("a").normal(4)
    assert torch.equal(shuffled.fork("a").normal(4), x[order])
    assert torch.equal(part.fork("a").normal(4), x[3:5])
    assert torch.equal(whole.rows(slice(3, 5)).uniform(2), whole.uniform(2)[3:5])


def test_one_samples_few_numbers_are_those_of_a_batch() -> None:
    keys = sample_keys(3, 1, torch.arange(40))
    many = Draws(keys).fork("view").fork(2)
    drawn = [many.uniform(2, 3), many.bits(4), many.uniform(1, low=-3.0, high=0.1), many.normal(2), many.bits(FEW + 1)]
    for row in range(40):
        one = Draws(keys[row : row + 1]).fork("view").fork(2)
        assert torch.equal(one.keys, many.keys[row : row + 1])
        alone = [one.uniform(2, 3), one.bits(4), one.uniform(1, low=-3.0, high=0.1), one.normal(2), one.bits(FEW + 1)]
        for mine, theirs in zip(alone, drawn, strict=True):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs[row : row + 1])
    assert torch.equal(Draws(keys[:1]).integers(2, 9, 3), Draws(keys).integers(2, 9, 3)[:1])


def test_a_place_does_not_depend_on_how_many_are_drawn() -> None:
    assert torch.equal(draws().uniform(10)[:, :4], draws().uniform(4))


def test_folded_depends_on_every_key_and_their_order() -> None:
    keys = sample_keys(0, 0, torch.arange(5))
    one = Draws(keys).folded().bits(1)
    assert one.shape == (1, 1)
    assert torch.equal(one, Draws(keys.clone()).folded().bits(1))
    others = [keys.flip(0), keys[:4], torch.cat([keys[:4], keys[:1]]), keys[[1, 0, 2, 3, 4]]]
    assert len({one.item(), *(Draws(other).folded().bits(1).item() for other in others)}) == 5


def test_sample_keys_do_not_collide() -> None:
    indices = torch.arange(5_000)
    keys = torch.cat([sample_keys(seed, epoch, indices) for seed in range(4) for epoch in range(10)])
    assert len(keys.unique()) == len(keys)
    assert abs(chi2(((keys >> 11) & 0xFFFF).double() / 65536, 256)) < 5


def test_an_epoch_is_no_index() -> None:
    keys = torch.stack([sample_keys(0, epoch, torch.arange(20)) for epoch in range(20)])
    assert len(keys.unique()) == 400, "sample i in epoch j is not sample j in epoch i"


def test_any_seed_will_do() -> None:
    seen = {sample_keys(seed, 0, torch.zeros(1, dtype=torch.int64)).item() for seed in (-1, 0, 2**45, 2**63, 2**70 + 1)}
    assert len(seen) == 5


def test_generator() -> None:
    def values(row: int, calls: int = 0) -> Tensor:
        stream = draws()
        stream._calls = calls
        return torch.rand(1000, generator=stream.generator(row))

    assert torch.equal(values(0), values(0))
    for other in (values(1), values(0, calls=1)):
        assert abs(correlation(values(0), other)) < 5


def test_seeds_for_other_libraries_are_numbers_of_their_own() -> None:
    seeds = [draws().fork(name).seed(row) for name in ("one", "two") for row in range(32)]
    assert seeds == [draws().fork(name).seed(row) for name in ("one", "two") for row in range(32)]
    assert len(set(seeds)) == 64
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert draws().generator(3).initial_seed() == draws().seed(3)
    again = draws()
    assert again.seed() != again.seed()


def test_what_is_shared_is_one_stream_for_a_step_and_follows_forks_and_rows() -> None:
    step = torch.tensor([3]).expand(64)
    mine = Draws(sample_keys(0, 0, torch.arange(64)), step).fork("batch")
    other = Draws(sample_keys(0, 1, torch.arange(64, 128)), step).fork("batch")
    x = mine.shared().uniform(4)
    assert (x == x[:1]).all()
    assert (x == other.shared().uniform(4)).all()
    assert (x[:3] == mine.rows(torch.tensor([9, 2, 5])).shared().uniform(4)).all()
    assert (x[0] != mine.fork("again").shared().uniform(4)[0]).all()
    assert (x[0] != Draws(mine.keys, step + 1).fork("batch").shared().uniform(4)[0]).all()
    assert (mine.uniform(4) == Draws(sample_keys(0, 0, torch.arange(64))).fork("batch").uniform(4)).all()


def test_rows_one_by_one_are_the_rows_and_numbers_are_uniform() -> None:
    draws = Draws(sample_keys(3, 1, torch.arange(5)), torch.arange(5)).fork("view")
    for at, one in enumerate(draws.each()):
        row = draws.rows(slice(at, at + 1))
        for count in (1, 3, 40):  # few are made without tensors, many with them
            assert one.numbers(count) == row.uniform(count)[0].tolist()
        assert one.fork("noise").uniform(2).equal(row.fork("noise").uniform(2))
        assert one.shared().bits(2).equal(row.shared().bits(2))
