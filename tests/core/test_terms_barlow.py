"""Barlow Twins against loops over columns and closed forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from toy import ToyEncoder, compare, method, passes, slow
from unlabeled.branches import Passes
from unlabeled.contract import Kind, Tokens
from unlabeled.corruption import MixMask
from unlabeled.errors import UserError
from unlabeled.masking import Hidden
from unlabeled.objective import Objective
from unlabeled.plugins import core
from unlabeled.randomness import Draws, sample_keys
from unlabeled.terms.barlow import Barlow, MixedBarlow, mixture_gap, redundancy, standardise


def naive(one: Tensor, other: Tensor, off_weight: float) -> Tensor:
    """Σᵢ(1 − Cᵢᵢ)² + λ Σ_{i≠j} C²ᵢⱼ, column by column."""
    N, D = one.shape
    total = one.new_zeros(())
    for i in range(D):
        for j in range(D):
            a, b = one[:, i] - one[:, i].mean(), other[:, j] - other[:, j].mean()
            C = (a * b).sum() / N / ((a * a).sum() / N + 1e-5).sqrt() / ((b * b).sum() / N + 1e-5).sqrt()
            total = total + ((1 - C) ** 2 if i == j else off_weight * C**2)
    return total


@pytest.mark.parametrize("count", [2, 3])
def test_equals_the_naive_loss_and_its_gradients(count: int) -> None:
    def expected(term: Barlow, x: list[Tensor]) -> Tensor:
        z = [slow(term.projector, view) for view in x[0]]
        return torch.stack([naive(z[i], z[j], 0.05) for i in range(count) for j in range(i)]).mean()

    compare(
        Barlow(ToyEncoder(), off_weight=0.05, hidden=7, out=5),
        [torch.randn(count, 6, 16)],
        lambda term, x: term(passes({"global": x[0]}))["loss"],
        expected,
        rtol=1e-3,
    )


def test_does_not_change_under_affine_maps_of_columns() -> None:
    one, other = torch.randn(2, 32, 6)
    scale, shift = torch.rand(6) + 0.5, torch.randn(6)
    before, after = redundancy(one, other, 0.1), redundancy(one * scale + shift, other * 2 - 1, 0.1)
    torch.testing.assert_close(torch.stack(after), torch.stack(before), rtol=1e-3, atol=1e-4)


def test_equal_views_with_uncorrelated_columns_give_zero() -> None:
    q, _ = torch.linalg.qr(torch.cat([torch.ones(16, 1), torch.randn(16, 5)], 1))
    on, off = redundancy(5 * q[:, 1:], 5 * q[:, 1:], 1.0)
    assert on.item() == pytest.approx(0, abs=1e-6)
    assert off.item() == pytest.approx(0, abs=1e-6)


def test_equal_columns_give_every_pair() -> None:
    z = torch.randn(64, 1).expand(64, 4)
    on, off = redundancy(z, z, 0.1)
    assert on.item() == pytest.approx(0, abs=1e-6)
    assert off.item() == pytest.approx(0.1 * 12, rel=1e-3)
    assert redundancy(z, -z, 0.1)[0].item() == pytest.approx(16, rel=1e-3)


def test_falls_when_views_agree() -> None:
    one, other = torch.randn(2, 64, 6)
    losses = [sum(redundancy(one, one + noise * other, 5e-3)).item() for noise in (0.0, 0.5, 2.0)]
    assert losses == sorted(losses)


def test_constant_columns_are_finite() -> None:
    z = torch.zeros(4, 8, requires_grad=True)
    on, off = redundancy(z, z + 0, 5e-3)
    (on + off).backward()
    assert on.item() == pytest.approx(8)
    assert off.item() == 0
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert standardise(torch.full((4, 2), 7.0)).abs().max() < 1e-4  # rounding of 7, over the root of 1e-5


def test_keeps_its_precision_under_autocast() -> None:
    z = torch.randn(2, 64, 8)
    with torch.autocast("cpu", torch.bfloat16):
        parts = redundancy(z[0], z[0] + 0.01 * z[1], 1.0)
    torch.testing.assert_close(parts, redundancy(z[0], z[0] + 0.01 * z[1], 1.0), rtol=1e-5, atol=1e-6)


def test_one_sample_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"'barlow'.*batch-size"):
        Barlow(ToyEncoder())(passes({"global": torch.randn(2, 1, 16)}))


def mixed_passes(mixed: Mapping[Kind, Tensor], clean: Mapping[Kind, Tensor], drawn: Mapping[Kind, Hidden]) -> Passes:
    """Passes whose student saw mixtures of what the teacher saw."""
    found = passes(mixed, "shared", clean)
    looks = {kind: [replace(found.student[kind][0], hidden=drawn.get(kind))] for kind in mixed}
    return replace(found, student=looks)


def drawn(rows: int) -> Hidden:
    """What the mixing mask draws for samples of one token."""
    tokens = Tokens(torch.randn(rows, 1, 1), torch.zeros(rows, 1, 1), torch.ones(rows, 1, dtype=torch.bool), {})
    return MixMask()(tokens, Draws(sample_keys(0, 0, torch.arange(rows))))


def standard(z: Tensor) -> list[Tensor]:
    """The rows of z with columns of mean 0 and variance 1."""
    mean = sum(z) / len(z)
    scale = (sum((row - mean) ** 2 for row in z) / len(z) + 1e-5).sqrt()
    return [(row - mean) / scale for row in z]


def naive_gap(mixed: list[Tensor], clean: list[Tensor], hidden: Hidden) -> Tensor:
    """Cross-correlations of mixed with clean views less what they would be of mixed embeddings, entry by entry."""
    M = len(clean[0])
    mixed, clean = [standard(view) for view in mixed], [standard(view) for view in clean]
    flat = [row for view in clean for row in view]
    total = []
    for k, view in enumerate(mixed):
        for other in clean:
            C, goal = 0, 0
            for m in range(M):
                row = k * M + m
                share = hidden.share[row, 0]
                C = C + torch.outer(view[m], other[m]) / M
                partner = flat[hidden.partner[row]]
                goal = (
                    goal + (share * torch.outer(flat[row], other[m]) + (1 - share) * torch.outer(partner, other[m])) / M
                )
            total.append((C - goal).square().sum())
    return torch.stack(total).sum() / 2 / len(mixed)


def test_mixed_equals_the_naive_loss_and_its_gradients() -> None:
    hidden = drawn(12)
    term = MixedBarlow(ToyEncoder(), off_weight=0.05, mixed_weight=3.0, hidden=7, out=5)

    def expected(term: Barlow, x: list[Tensor]) -> Tensor:
        mixed, clean = ([slow(term.projector, view) for view in views] for views in x)
        return naive(clean[0], clean[1], 0.05) + 0.15 * naive_gap(mixed, clean, hidden)

    compare(
        term,
        [torch.randn(2, 6, 16), torch.randn(2, 6, 16)],
        lambda term, x: term(mixed_passes({"global": x[0]}, {"global": x[1]}, {"global": hidden}))["loss"],
        expected,
        rtol=2e-3,
    )


def test_each_kind_of_view_is_mixed_on_its_own_and_local_ones_are_not() -> None:
    term = MixedBarlow(ToyEncoder(), off_weight=1.0, hidden=7, out=5).eval()
    z, m = {"plain": torch.randn(1, 6, 16), "global": torch.randn(2, 6, 16)}, torch.randn(3, 6, 16)
    each = {"plain": drawn(6), "global": drawn(12)}
    local = torch.randn(2, 6, 16)
    found = term(mixed_passes({"plain": m[:1], "global": m[1:], "local": local}, z, each))["mixture"]
    goal = [
        naive_gap([term.projector(view) for view in mixed], [term.projector(view) for view in z[kind]], each[kind])
        for kind, mixed in (("plain", m[:1]), ("global", m[1:]))
    ]
    torch.testing.assert_close(found, torch.stack(goal).mean().detach(), rtol=1e-3, atol=1e-5)


def test_what_is_not_mixed_has_no_gap() -> None:
    z = torch.randn(2, 8, 6)
    partner = torch.arange(16).roll(1)
    assert mixture_gap(z, z, torch.ones(16), partner).item() == pytest.approx(0, abs=1e-10)
    assert mixture_gap(z, z, torch.zeros(16), partner) > 0.1
    swapped = z.flatten(0, 1)[partner].view(2, 8, 6)
    gaps = [mixture_gap(torch.lerp(swapped, z, share), z, torch.zeros(16), partner) for share in (0.2, 0.5, 1.0)]
    assert gaps == sorted(gaps)


def test_the_gap_is_that_of_the_papers_four_correlations() -> None:
    """With one λ a batch, and the second view mixed into the first in another order."""
    mixed, one, two = (standardise(torch.randn(10, 4)) for _ in range(3))
    order, share = torch.randperm(10), 0.3
    goals = [share * one.T @ z + (1 - share) * two[order].T @ z for z in (one, two)]
    paper = sum((mixed.T @ z / 10 - goal / 10).square().sum() for z, goal in zip((one, two), goals, strict=True)) / 2
    whole = torch.stack([one, two])
    gap = 2 * mixture_gap(  # the second view's own mixture is as clean as it is, and adds nothing
        torch.stack([mixed, two]),
        whole,
        torch.cat([torch.full((10,), share), torch.ones(10)]),
        torch.cat([order + 10, torch.arange(10)]),
    )
    torch.testing.assert_close(gap, paper, rtol=1e-3, atol=1e-5)


def test_mixing_keeps_its_precision_under_autocast() -> None:
    mixed, whole = torch.randn(2, 2, 16, 8)
    hidden = drawn(32)
    with torch.autocast("cpu", torch.bfloat16):
        gap = mixture_gap(mixed, whole, hidden.share[:, 0], hidden.partner)
    torch.testing.assert_close(gap, mixture_gap(mixed, whole, hidden.share[:, 0], hidden.partner), rtol=1e-5, atol=1e-6)


def test_a_teacher_that_does_not_learn_is_refused() -> None:
    row = method("mixed_barlow")
    with pytest.raises(UserError, match=r"'mixed_barlow'.*'shared', not 'ema'"):
        Objective(ToyEncoder(), replace(row, teacher=replace(row.teacher, name="ema")), core())
