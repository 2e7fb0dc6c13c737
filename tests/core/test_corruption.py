"""Masks that change content, and the newer options of those that hide it: who stands where, from whom, how often."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from test_masking import check, draws, tokens_of, uneven
from toy import CLOCK, ToyEncoder, compare
from unlabeled.branches import Look, Passes
from unlabeled.contract import Alteration, Encoded, Tokens
from unlabeled.corruption import CorruptMask, FuseMask, MixMask, ShuffleMask
from unlabeled.errors import UserError
from unlabeled.masking import BlockMask, ContextTargets, Hidden, Mask, RandomMask, others
from unlabeled.randomness import Draws, sample_keys
from unlabeled.terms.fusion import Fusion


def numbered(tokens: Tokens) -> Tokens:
    """Every token's value is its own number, so that sources can be read off."""
    B, N = tokens.valid.shape
    return replace(tokens, values=torch.arange(1.0, B * N + 1).view(B, N, 1) * tokens.valid[..., None])


def flattened(tokens: Tokens, order: torch.Tensor | None = None) -> Tokens:
    """The valid tokens in one row, with owners; samples one after another, or in any order."""
    owner = torch.arange(len(tokens.valid))[:, None].expand_as(tokens.valid)[tokens.valid]
    order = torch.arange(len(owner)) if order is None else order
    parts = [part[tokens.valid][order][None] for part in (tokens.values, tokens.coords, tokens.valid)]
    return Tokens(*parts, {}, owner[order][None])


# ---- options of masks that hide


@given(uneven(), st.sampled_from([(0.25, 0.5), (0.5, 0.5), (0.125, 0.875)]), st.booleans(), st.integers(0, 9))
def test_a_pair_of_ratios_bounds_each_samples_own(
    tokens: Tokens, ratio: tuple[float, float], block: bool, seed: int
) -> None:
    out = (BlockMask if block else RandomMask)(ratio)(tokens, draws(len(tokens.valid), seed))
    check(tokens, out)
    for row, hidden in zip(tokens.valid, out.hidden, strict=True):
        valid = int(row.sum())
        low, high = (min(max(round(share * valid), 1), max(valid - 1, 0)) for share in ratio)
        assert low <= hidden.sum() <= high


def test_ratios_of_samples_differ() -> None:
    tokens = tokens_of(torch.ones(64, 40, dtype=torch.bool))
    counts = RandomMask((0.1, 0.9))(tokens, draws(64)).hidden.sum(1)
    assert len(counts.unique()) > 15
    assert 16 < counts.float().mean() < 24


def test_a_share_of_the_samples_is_masked() -> None:
    tokens = tokens_of(torch.ones(400, 8, dtype=torch.bool))
    for mask in (RandomMask(0.5, samples=0.5), BlockMask(0.5, samples=0.5, inverse=True), BlockMask(0.5, samples=0.5)):
        counts = mask(tokens, draws(400)).hidden.sum(1)
        assert set(counts.tolist()) == {0, 4}
        assert 150 < (counts > 0).sum() < 250


@given(uneven(), st.sampled_from([0.1, 0.3, 0.9]), st.booleans(), st.integers(0, 9))
def test_boxes_of_a_size_keep_the_count(tokens: Tokens, size: float, inverse: bool, seed: int) -> None:
    out = BlockMask(0.5, size=size, inverse=inverse)(tokens, draws(len(tokens.valid), seed))
    check(tokens, out)
    for row, hidden in zip(tokens.valid, out.hidden, strict=True):
        valid = int(row.sum())
        assert hidden.sum() == min(max(round(0.5 * valid), 1), max(valid - 1, 0))


def test_boxes_of_a_size_are_spans_and_their_inverse_is_what_is_left() -> None:
    places = torch.linspace(0, 1, 100)[:, None].expand(20, 100, 1)
    line = Tokens(torch.zeros(20, 100, 1), places, torch.ones(20, 100) > 0, {})
    few = BlockMask(0.3, size=0.1)(line, draws(20)).hidden
    one = BlockMask(0.3)(line, draws(20)).hidden

    def spans(hidden: torch.Tensor) -> float:
        return float((hidden[:, 1:] & ~hidden[:, :-1]).sum(1).float().mean() + hidden[:, 0].float().mean())

    assert spans(one) == 1
    assert 1.5 < spans(few) < 6
    kept = ~BlockMask(0.7, size=0.1, inverse=True)(line, draws(20)).hidden
    assert (kept.sum(1) == 30).all()
    assert 1.5 < spans(kept) < 6


@given(uneven(), st.sampled_from([(0.25, 0.25), (1.0, 0.0), (0.0, 0.5)]), st.integers(0, 9))
def test_swapped_and_kept_tokens_are_shares_of_the_chosen(
    tokens: Tokens, shares: tuple[float, float], seed: int
) -> None:
    swap, keep = shares
    tokens = numbered(tokens)
    out = RandomMask(0.5, swap=swap, keep=keep)(tokens, draws(len(tokens.valid), seed))
    chosen = out.targets[0]
    assert not (out.hidden & ~chosen).any()
    own = torch.arange(tokens.valid.numel()).view_as(chosen)
    for b, row in enumerate(chosen):
        count = int(row.sum())
        swapped = round(swap * count)
        assert out.hidden[b].sum() == count - swapped - min(round(keep * count), count - swapped)
    if out.source is not None:
        moved = out.source != own
        assert not (moved & (out.hidden | ~chosen)).any(), "only chosen tokens that are shown show another's content"


@given(uneven(), st.integers(0, 9), st.randoms(use_true_random=False))
def test_flat_storage_gives_a_sample_the_mask_of_padded_storage(tokens: Tokens, seed: int, random: object) -> None:
    keep = tokens.valid.any(1)  # in flat storage every sample has tokens
    tokens = Tokens(tokens.values[keep], tokens.coords[keep], tokens.valid[keep], {})
    if not len(tokens.valid):
        return
    front = tokens.valid.long().argsort(dim=1, descending=True, stable=True)  # padding last, as places are counted
    tokens = Tokens(
        tokens.values,
        tokens.coords.gather(1, front[..., None].expand_as(tokens.coords)),
        tokens.valid.gather(1, front),
        {},
    )
    flat = flattened(tokens)
    for mask in (RandomMask(0.5), BlockMask(0.5), BlockMask(0.5, size=0.2), ContextTargets(2), RandomMask((0.2, 0.8))):
        padded = mask(tokens, draws(len(tokens.valid), seed))
        other = mask(flat, draws(len(tokens.valid), seed))
        assert torch.equal(other.hidden[0], padded.hidden[tokens.valid])
        for one, two in zip(other.targets, padded.targets, strict=True):
            assert torch.equal(one[0], two[tokens.valid])


def test_several_keys_a_sample_fold_into_its_row() -> None:
    tokens = flattened(tokens_of(torch.ones(2, 9, dtype=torch.bool)))
    keys = sample_keys(0, 0, torch.arange(8))
    first = RandomMask(0.5)(tokens, Draws(keys)).hidden
    other = keys.clone()
    other[7] += 1  # belongs to the second sample
    changed = RandomMask(0.5)(tokens, Draws(other)).hidden
    assert torch.equal(first[0, :9], changed[0, :9])
    assert not torch.equal(first[0, 9:], changed[0, 9:])


@pytest.mark.parametrize(
    "make",
    [
        lambda: RandomMask((0.5, 0.2)),
        lambda: RandomMask(0.5, samples=0.0),
        lambda: RandomMask(0.5, swap=0.7, keep=0.5),
        lambda: BlockMask(0.5, size=0.0),
        lambda: CorruptMask(0.0),
        lambda: ShuffleMask(1.5),
    ],
)
def test_options_that_make_no_sense_are_refused(make: object) -> None:
    with pytest.raises(UserError):
        make()  # type: ignore[operator]


# ---- content from elsewhere


@given(st.integers(1, 7), st.integers(0, 9))
def test_others_are_never_oneself(rows: int, seed: int) -> None:
    chosen = others(draws(rows, seed), 5)
    assert ((chosen >= 0) & (chosen < rows)).all()
    itself = chosen == torch.arange(rows)[:, None]
    assert itself.all() if rows == 1 else not itself.any()


def test_others_are_everybody_in_turn() -> None:
    chosen = others(draws(6), 2000)
    for row in range(6):
        counts = torch.bincount(chosen[row], minlength=6)
        assert counts[row] == 0
        assert (counts[torch.arange(6) != row] > 300).all()


@given(uneven(), st.booleans(), st.integers(0, 9))
def test_corruption_takes_the_same_place_of_another_sample(tokens: Tokens, together: bool, seed: int) -> None:
    tokens = numbered(tokens)
    B, N = tokens.valid.shape
    out = CorruptMask(0.5, together=together)(tokens, draws(B, seed))
    assert not out.hidden.any()
    own = torch.arange(B * N).view(B, N)
    moved = out.source != own
    assert torch.equal(moved, out.targets[0]), "every value differs here, so what moved is what is to be detected"
    assert B == 1 or (out.source % N == own % N).all(), "the same place, where there is another sample"
    assert tokens.valid.flatten()[out.source][moved].all(), "never of a token that is not there"
    assert not (moved & ~tokens.valid).any()
    if together and B > 1:
        for b in range(B):
            assert len((out.source[b] // N)[moved[b]].unique()) <= 1
    for b, row in enumerate(tokens.valid):
        assert moved[b].sum() <= max(round(0.5 * int(row.sum())), 1)


def test_equal_content_is_no_change() -> None:
    tokens = tokens_of(torch.ones(4, 6, dtype=torch.bool))  # all values are zero
    assert not CorruptMask(0.5)(tokens, draws(4)).targets[0].any()


@given(uneven(), st.sampled_from([0.15, 0.5, 1.0]), st.booleans(), st.integers(0, 9))
def test_shuffling_moves_every_chosen_token_within_its_sample(
    tokens: Tokens, ratio: float, flat: bool, seed: int
) -> None:
    rows = draws(len(tokens.valid), seed)
    if flat:
        if not tokens.valid.any(1).all():
            return
        tokens = flattened(tokens)
    owner = tokens.owner if flat else torch.arange(len(tokens.valid))[:, None].expand_as(tokens.valid)
    out = ShuffleMask(ratio)(tokens, rows)
    own = torch.arange(tokens.valid.numel()).view_as(tokens.valid)
    assert torch.equal(out.source != own, out.targets[0])
    assert torch.equal(out.source.flatten().sort().values, own.flatten()), "a permutation"
    assert torch.equal(owner.flatten()[out.source], owner), "inside each sample"
    assert tokens.valid.flatten()[out.source][out.targets[0]].all()
    for sample in range(len(rows)):
        valid = int((tokens.valid & (owner == sample)).sum())
        moved = int((out.targets[0] & (owner == sample)).sum())
        assert moved == (0 if valid < 2 else min(max(round(ratio * valid), 2), valid))


@given(uneven(), st.booleans(), st.integers(0, 9))
def test_a_mixture_is_what_it_says(tokens: Tokens, own: bool, seed: int) -> None:
    tokens = numbered(tokens)
    B, N = tokens.valid.shape
    out = MixMask(own)(tokens, draws(B, seed))
    assert ((out.part >= (0.5 if own else 0)) & (out.part <= 1)).all()
    assert B == 1 or not (out.partner == torch.arange(B)).any()
    mixed = Alteration(source=out.source, share=out.share)(tokens.values)
    for b in range(B):
        for n in range(N):
            there = tokens.valid[b, n] and tokens.valid[out.partner[b], n]
            other = tokens.values[out.partner[b], n] if there else tokens.values[b, n]
            goal = out.part[b] * tokens.values[b, n] + (1 - out.part[b]) * other
            torch.testing.assert_close(mixed[b, n], goal, rtol=1e-4, atol=1e-4)


def test_flat_samples_are_mixed_round_and_parts_of_one_whole_are_refused() -> None:
    valid = torch.arange(6) < torch.tensor([6, 2, 4])[:, None]
    tokens = flattened(numbered(tokens_of(valid)))
    out = MixMask()(tokens, draws(3))
    owner = tokens.owner[0]
    assert torch.equal(owner[out.source[0]], out.partner[owner])
    assert sorted(out.partner.tolist()) == [0, 1, 2]
    with pytest.raises(UserError, match="parts of one whole"):
        MixMask()(tokens, draws(12))


@given(uneven(), st.integers(1, 5), st.booleans(), st.integers(0, 9))
def test_fused_blocks_show_the_same_places_of_one_other_sample_by_steps(
    tokens: Tokens, steps: int, flat: bool, seed: int
) -> None:
    tokens = numbered(tokens)
    B, N = tokens.valid.shape
    if flat:
        if not tokens.valid.any(1).all():
            return
        tokens = flattened(tokens)
    out = FuseMask(0.6, size=0.2, steps=steps)(tokens, draws(B, seed))
    own = torch.arange(tokens.valid.numel()).view_as(tokens.valid)
    assert not out.hidden.any()
    assert torch.equal(out.targets[0], tokens.valid)
    level = (1 - out.share) * steps
    torch.testing.assert_close(level, level.round(), rtol=0, atol=1e-5)
    shown = level.round() > 0
    assert torch.equal(shown, out.source != own), "values differ, so what is shown is what comes from elsewhere"
    assert tokens.valid.flatten()[out.source][shown].all()
    assert not (shown & ~tokens.valid).any()
    if not flat and B > 1:
        assert (out.source % N == own % N).all()
        assert all(len((out.source[b] // N)[shown[b]].unique()) <= 1 for b in range(B))


def test_fused_blocks_are_spans_of_one_step_each_and_all_steps_occur() -> None:
    tokens = numbered(tokens_of(torch.ones(200, 40, dtype=torch.bool)))
    tokens = replace(tokens, coords=torch.linspace(0, 1, 40)[None, :, None].expand(200, 40, 1))
    out = FuseMask(0.3, size=0.1, steps=4)(tokens, draws(200))
    level = ((1 - out.share) * 4).round().long()
    assert set(level.unique().tolist()) == {0, 1, 2, 3, 4}
    assert 0.2 < (level > 0).float().mean() < 0.3
    changes = (level[:, 1:] != level[:, :-1]).sum(1)
    assert changes.max() <= 6, "three blocks have six ends"
    same = tokens_of(torch.ones(4, 6, dtype=torch.bool))  # all values are zero
    assert (FuseMask(0.5)(same, draws(4)).share == 1).all()


def test_one_step_is_an_exchange_and_steps_below_one_are_refused() -> None:
    tokens = numbered(tokens_of(torch.ones(9, 20, dtype=torch.bool)))
    assert set(FuseMask(0.5, steps=1)(tokens, draws(9)).share.unique().tolist()) == {0.0, 1.0}
    with pytest.raises(UserError, match="at least 1"):
        FuseMask(0.5, steps=0)
    with pytest.raises(UserError, match="at least 1"):
        Fusion(ToyEncoder(), steps=0)


def test_fusion_equals_the_naive_loss_and_its_gradients() -> None:
    tokens = tokens_of(torch.arange(5) < torch.tensor([5, 3])[:, None])
    share = torch.randint(0, 3, (2, 5)) / 2

    def seen(latent: torch.Tensor) -> Passes:
        hidden = Hidden(torch.zeros(2, 5, dtype=torch.bool), (tokens.valid,), torch.zeros(2, 5).long(), share)
        look = Look(1, tokens, Encoded(latent, latent.mean(1)), hidden)
        return Passes("shared", {"plain": [look]}, {"plain": look}, CLOCK)

    def naive(term: Fusion, x: list[torch.Tensor]) -> torch.Tensor:
        errors = []
        for b, n in tokens.valid.nonzero().tolist():
            logits = term.classifier.weight @ x[0][b, n] + term.classifier.bias
            step = round(float(1 - share[b, n]) * 2)
            errors.append(logits.exp().sum().log() - logits[step])
        return torch.stack(errors).mean()

    compare(Fusion(ToyEncoder(), steps=2), [torch.randn(2, 5, 16)], lambda term, x: term(seen(x[0]))["loss"], naive)


@pytest.mark.parametrize("mask", [CorruptMask(0.5), ShuffleMask(0.5), MixMask(), FuseMask(), RandomMask(0.5, swap=0.5)])
def test_the_same_draws_make_the_same_corruption(mask: Mask) -> None:
    tokens = numbered(tokens_of(torch.ones(4, 8, dtype=torch.bool)))
    one, two, other = (mask(tokens, draws(4, seed)) for seed in (0, 0, 1))
    assert torch.equal(one.source, two.source)
    assert not torch.equal(one.source, other.source)
