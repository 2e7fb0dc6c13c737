"""Masks: exact counts, no invalid token, every token hidden and seen in its turn, a row by its own key."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unlabeled.contract import Tokens
from unlabeled.errors import UserError
from unlabeled.masking import BlockMask, ContextTargets, Hidden, Mask, RandomMask, box_distance
from unlabeled.randomness import Draws, sample_keys

RATIOS = (0.125, 0.5, 0.75, 0.875)  # exact in binary, so that both sides round the same number


def tokens_of(valid: Tensor, P: int = 2) -> Tokens:
    """Tokens at random places."""
    B, N = valid.shape
    coords = torch.rand(B, N, P, generator=torch.Generator().manual_seed(N))
    return Tokens(torch.zeros(B, N, 1), coords, valid, {})


def grid(*sides: int, samples: int = 1) -> Tokens:
    """A full grid of tokens, in any number of dimensions."""
    axes = torch.meshgrid(*(torch.linspace(0, 1, side) for side in sides), indexing="ij")
    coords = torch.stack([axis.flatten() for axis in axes], -1).expand(samples, -1, -1)
    return Tokens(torch.zeros(*coords.shape[:2], 1), coords, torch.ones(coords.shape[:2], dtype=torch.bool), {})


def draws(rows: int, seed: int = 0) -> Draws:
    return Draws(sample_keys(seed, 0, torch.arange(rows)))


@st.composite
def uneven(draw: st.DrawFn) -> Tokens:
    """1 to 4 samples of 0 to 12 valid tokens, anywhere among the invalid, in 1 to 3 dimensions."""
    B, N = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    rows = [draw(st.lists(st.booleans(), min_size=N, max_size=N)) for _ in range(B)]
    return tokens_of(torch.tensor(rows), draw(st.integers(1, 3)))


def check(tokens: Tokens, out: Hidden) -> None:
    """What holds of any mask."""
    assert not (out.hidden & ~tokens.valid).any()
    for target in out.targets:
        assert not (target & ~out.hidden).any(), "a target must be hidden"
    seen = (tokens.valid & ~out.hidden).sum(1)
    assert (seen[tokens.valid.any(1)] > 0).all(), "something must be seen"


@given(uneven(), st.sampled_from(RATIOS), st.booleans(), st.integers(0, 9))
def test_random_and_block_hide_exact_counts(tokens: Tokens, ratio: float, block: bool, seed: int) -> None:
    out = (BlockMask if block else RandomMask)(ratio)(tokens, draws(len(tokens.valid), seed))
    check(tokens, out)
    assert len(out.targets) == 1
    assert torch.equal(out.targets[0], out.hidden)
    for row, hidden in zip(tokens.valid, out.hidden, strict=True):
        valid = int(row.sum())
        assert hidden.sum() == min(max(round(ratio * valid), 1), max(valid - 1, 0))


@given(uneven(), st.integers(1, 5), st.integers(0, 9))
def test_context_and_targets(tokens: Tokens, targets: int, seed: int) -> None:
    out = ContextTargets(targets)(tokens, draws(len(tokens.valid), seed))
    check(tokens, out)
    assert len(out.targets) == targets
    union = torch.stack(out.targets).any(0)
    context = tokens.valid & ~out.hidden
    assert not (context & union).any()
    for b, row in enumerate(tokens.valid):
        valid = int(row.sum())
        least, most = (min(max(round(share * valid), 1), valid) for share in (0.15 - 1e-5, 0.2 + 1e-5))
        for target in out.targets:  # a context saved from its targets is the one exception
            assert target[b].sum() in (range(least, most + 1) if context[b].sum() > 1 else range(most + 1))


@given(uneven(), st.integers(1, 5), st.integers(0, 9))
def test_scattered_targets_take_nothing_of_the_context(tokens: Tokens, targets: int, seed: int) -> None:
    mask = ContextTargets(targets, scale=(0.2, 0.4), context=(0.3, 0.5), shape="scattered")
    out = mask(tokens, draws(len(tokens.valid), seed))
    check(tokens, out)
    context = tokens.valid & ~out.hidden
    for b, row in enumerate(tokens.valid):
        valid = int(row.sum())
        low, high = (min(max(round(share * valid), 1), max(valid - 1, 1), valid) for share in (0.3 - 1e-5, 0.5 + 1e-5))
        assert context[b].sum() in range(low, high + 1)
        rest = valid - int(context[b].sum())
        least, most = (min(max(round(share * valid), 1), rest) for share in (0.2 - 1e-5, 0.4 + 1e-5))
        assert all(target[b].sum() in range(least, most + 1) for target in out.targets)


def test_context_is_the_block_less_the_targets() -> None:
    tokens = grid(12, 12, samples=8)
    out = ContextTargets(2, context=(0.5, 0.5))(tokens, draws(8))
    context = (~out.hidden).sum(1)
    assert (context < 72).all()
    assert (context >= 72 - 2 * 0.2 * 144).all()
    alone = ContextTargets(1, scale=(0.01, 0.01), context=(1.0, 1.0))(tokens, draws(8))
    assert ((~alone.hidden).sum(1) == 143).all()


@pytest.mark.parametrize("N", [1, 2, 3])
@pytest.mark.parametrize(
    "mask", [RandomMask(0.9), BlockMask(0.9), ContextTargets(4), ContextTargets(4, shape="scattered")]
)
def test_very_few_tokens(mask: Mask, N: int) -> None:
    tokens = tokens_of(torch.ones(64, N, dtype=torch.bool))
    out = mask(tokens, draws(64))
    check(tokens, out)
    if N > 1:
        assert (out.hidden.sum(1) >= 1).float().mean() > 0.9
        assert torch.stack(out.targets).any(0).any(0).all()


@pytest.mark.parametrize(
    "mask", [RandomMask(0.75), BlockMask(0.5), ContextTargets(2), ContextTargets(2, shape="scattered")]
)
@pytest.mark.parametrize("sides", [(9,), (3, 4), (2, 3, 2)])
def test_every_token_is_hidden_and_seen_and_wanted(mask: Mask, sides: tuple[int, ...]) -> None:
    out = mask(grid(*sides, samples=300), draws(300))
    assert out.hidden.any(0).all()
    assert (~out.hidden).any(0).all()
    assert torch.stack(out.targets).any(0).any(0).all()


def test_random_hides_every_token_equally_often() -> None:
    out = RandomMask(0.5)(grid(10, samples=4000), draws(4000))
    share = out.hidden.float().mean(0)
    assert (share - 0.5).abs().max() < 5 * 0.5 / math.sqrt(4000)
    together = (out.hidden[:, 0] & out.hidden[:, 1]).float().mean()
    assert abs(together - 2 / 9) < 5 * math.sqrt(2 / 9 * 7 / 9 / 4000), "drawn without replacement"


@pytest.mark.parametrize(
    "mask", [RandomMask(0.5), BlockMask(0.5), ContextTargets(3), ContextTargets(3, shape="scattered")]
)
def test_a_row_depends_on_its_own_key_alone(mask: Mask) -> None:
    valid = torch.arange(12) < torch.tensor([12, 3, 7, 1, 9, 12])[:, None]
    tokens, keys = tokens_of(valid), sample_keys(0, 0, torch.arange(6))
    whole = mask(tokens, Draws(keys))
    for rows in (torch.randperm(6), torch.tensor([2, 3]), torch.tensor([5])):
        part = replace(tokens, values=tokens.values[rows], coords=tokens.coords[rows], valid=valid[rows])
        out = mask(part, Draws(keys[rows]))
        assert torch.equal(out.hidden, whole.hidden[rows])
        assert all(torch.equal(a, b[rows]) for a, b in zip(out.targets, whole.targets, strict=True))
    assert not torch.equal(mask(tokens, Draws(keys + 1)).hidden, whole.hidden)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.booleans(), st.integers(0, 9))
def test_flat_storage_keeps_the_counts_of_each_sample(sizes: list[int], mixed: bool, seed: int) -> None:
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))[None]
    owner = owner[:, torch.randperm(owner.shape[1])] if mixed else owner
    valid = torch.ones_like(owner, dtype=torch.bool)
    valid[:, ::4] = False
    tokens = replace(tokens_of(valid), owner=owner)
    per = [int((valid & (owner == sample)).sum()) for sample in range(len(sizes))]
    for mask in (RandomMask(0.75), BlockMask(0.75)):
        hidden = mask(tokens, draws(len(sizes), seed)).hidden
        assert not (hidden & ~valid).any()
        counts = [int((hidden & (owner == sample)).sum()) for sample in range(len(sizes))]
        assert counts == [min(max(round(0.75 * v), 1), max(v - 1, 0)) for v in per]
    for shape in ("block", "scattered"):
        out = ContextTargets(3, shape=shape)(tokens, draws(len(sizes), seed))
        context = valid & ~out.hidden
        for sample, count in enumerate(per):
            assert (context & (owner == sample)).any() == (count > 0)
        assert not (context & torch.stack(out.targets).any(0)).any()


def test_flat_storage_depends_on_all_keys() -> None:
    owner = torch.repeat_interleave(torch.arange(4), 8)[None]
    tokens = replace(tokens_of(torch.ones(1, 32, dtype=torch.bool)), owner=owner)
    masks = {tuple(RandomMask(0.5)(tokens, draws(4, seed)).hidden[0].tolist()) for seed in range(8)}
    assert len(masks) == 8


@pytest.mark.parametrize("sides", [(8, 8), (5, 9), (4, 4, 5)])
@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_blocks_are_connected_and_compact(sides: tuple[int, ...], ratio: float) -> None:
    out = BlockMask(ratio)(grid(*sides, samples=12), draws(12))
    for row in out.hidden:
        cells = {tuple(cell) for cell in row.view(sides).nonzero().tolist()}
        reached = [next(iter(cells))]
        for cell in reached:  # through faces, edges and corners
            reached += [c for c in cells - set(reached) if max(abs(a - b) for a, b in zip(c, cell, strict=True)) == 1]
        assert len(reached) == len(cells)
        extent = [max(axis) - min(axis) + 1 for axis in zip(*cells, strict=True)]
        assert len(cells) >= 0.4 * math.prod(extent)


@pytest.mark.parametrize("sides", [(7, 7), (4, 4, 4)])
def test_a_block_without_aspect_is_what_is_nearest_to_one_of_its_tokens(sides: tuple[int, ...]) -> None:
    tokens = grid(*sides, samples=16)
    far = (tokens.coords[0][:, None] - tokens.coords[0][None]).abs().amax(-1)
    for hidden in BlockMask(0.4, aspect=1.0)(tokens, draws(16)).hidden:
        inside, outside = far[:, hidden].amax(1), far[:, ~hidden].amin(1)
        assert (inside <= outside + 1e-5)[hidden].any()


def test_aspect_bounds_the_ratio_of_a_blocks_sides() -> None:
    out = BlockMask(1 / 64, aspect=4.0)(grid(64, 64, samples=60), draws(60))
    blocks = [row.view(64, 64) for row in out.hidden]
    inner = [row for row in blocks if not (row[0] | row[-1] | row[:, 0] | row[:, -1]).any()]
    ratio = torch.stack([row.any(1).sum() / row.any(0).sum() for row in inner])
    assert len(inner) > 20
    assert ratio.max() > 2
    assert ratio.min() < 1 / 2
    assert ratio.maximum(1 / ratio).max() <= 6, "16 × 4 and a ring of its own"


def test_ties_fall_at_random() -> None:
    share = BlockMask(0.4)(grid(5, samples=2000), draws(2000)).hidden.float().mean(0)
    assert abs(share[0] - share[4]) < 5 * math.sqrt(2 * 0.3 / 2000), "two of five: the centre and a neighbour"


def test_box_distance_starts_at_a_valid_token() -> None:
    valid = torch.arange(9) < torch.tensor([9, 4, 1])[:, None]
    tokens = tokens_of(valid)
    far = box_distance(tokens, draws(3), 1.5)[0]
    assert (far.masked_fill(~valid, 9).amin(1) < 1e-5).all()
    assert (far[0] > 1e-3).sum() == 8


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandomMask(0.0), "ratio.*between 0 and 1"),
        (lambda: RandomMask(1.0), "ratio.*between 0 and 1"),
        (lambda: BlockMask(-1), "ratio.*between 0 and 1"),
        (lambda: BlockMask(0.5, aspect=0), "aspect.*1 or more"),
        (lambda: ContextTargets(0), "at least one target"),
        (lambda: ContextTargets(scale=(0.1, 1.0)), "scale.*between 0 and 1"),
        (lambda: ContextTargets(context=(0.5, 1.1)), "context.*between 0 and 1"),
        (lambda: ContextTargets(shape="round"), "no shape 'round'.*block, scattered"),
    ],
)
def test_what_makes_no_sense_is_refused(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]
