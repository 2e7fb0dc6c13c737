"""SwAV and DeepCluster v2 against loops; k-means against what it should find."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare, passes, slow, unit
from unlabeled.errors import UserError
from unlabeled.schedules import Clock
from unlabeled.terms.base import Term
from unlabeled.terms.codes import DeepCluster, SwAV, spherical_kmeans


def scaled(scores: Tensor) -> Tensor:
    """SwAV's codes, from its paper's pseudo-code, in float64."""
    Q = (scores / 0.05).exp().T
    Q = Q / Q.sum()
    for _ in range(3):
        Q = Q / Q.sum(1, keepdim=True) / len(Q)
        Q = Q / Q.sum(0, keepdim=True) / Q.shape[1]
    return (Q * Q.shape[1]).T.detach()


def test_swav_equals_the_naive_loss_and_its_gradients() -> None:
    term = SwAV(ToyEncoder(), prototypes=4, hidden=7, out=5)

    def expected(term: Term, x: list[Tensor]) -> Tensor:
        prototypes = [unit(row) for row in term.prototypes]
        scores = [
            torch.stack([torch.stack([unit(row) @ p for p in prototypes]) for row in slow(term.projector, view)])
            for view in x[0]
        ]
        codes = [scaled(view) for view in scores[:2]]
        losses = []
        for j, code in enumerate(codes):
            for i, score in enumerate(scores):
                for q, s in zip(code, score, strict=True):
                    if i != j:
                        p = (s / 0.1).exp()
                        losses.append(-(q * (p / p.sum()).log()).sum())
        return torch.stack(losses).mean()

    compare(
        term,
        [torch.randn(3, 6, 16)],
        lambda term, x: term(passes({"global": x[0][:2], "local": x[0][2:]}))["loss"],
        expected,
        rtol=1e-3,
    )


def test_a_queue_of_past_rows_balances_codes_once_its_time_has_come() -> None:
    past = torch.randn(5, 5)
    term = SwAV(ToyEncoder(), prototypes=4, hidden=7, out=5, queue=9, queue_epochs=2)
    term.memory[:5] = torch.stack([unit(row) for row in past])
    term.filled += 5
    x = torch.randn(2, 6, 16)
    early, late = Clock(9, 100, 10), Clock(10, 100, 10)  # a tenth of the run, before 2 epochs

    def expected(term: Term, x: list[Tensor]) -> Tensor:
        prototypes = [unit(row) for row in term.prototypes]
        z = [slow(term.projector, view) for view in x[0]]
        scores = [torch.stack([torch.stack([unit(row) @ p for p in prototypes]) for row in view]) for view in z]
        queued = torch.stack([torch.stack([row @ p for p in prototypes]) for row in term.memory[:5]])
        codes = [scaled(torch.cat([view, queued]))[:6] for view in scores]
        guess = [(view / 0.1).log_softmax(-1) for view in scores]
        return -((codes[0] * guess[1]).sum(1).mean() + (codes[1] * guess[0]).sum(1).mean()) / 2

    compare(term, [x], lambda term, x: term(replace(passes({"global": x[0]}), clock=late))["loss"], expected, rtol=1e-3)
    term.pending.clear()
    without = copy.deepcopy(term)
    without.filled.zero_()
    assert torch.equal(*(one(replace(passes({"global": x}), clock=early))["loss"] for one in (term, without)))
    term.pending.clear()
    term(replace(passes({"global": x, "local": torch.randn(1, 6, 16)}), clock=early))
    term.after_step(early)
    z = [unit(row) for view in x for row in term.projector(view).detach()]
    assert int(term.filled) == 9
    torch.testing.assert_close(term.memory, torch.stack(z[-9:]), msg="of more rows than places the last stay")
    with pytest.raises(UserError, match=r"swav\.queue"):
        SwAV(ToyEncoder(), queue=-1)


def test_prototypes_rest_in_the_first_epoch() -> None:
    term = SwAV(ToyEncoder(), prototypes=4, hidden=7, out=5)
    for step, rests in ((0, True), (9, True), (10, False)):
        term.zero_grad()
        term(passes({"global": torch.randn(2, 6, 16)}))["loss"].backward()
        term.after_backward(Clock(step, 1000, 10))
        assert (term.prototypes.grad.abs().max() == 0) == rests


class Data:
    """All samples' instances."""

    def __init__(self, instances: Tensor):
        self.found = instances

    def instances(self) -> Tensor:
        return self.found


def test_deepcluster_equals_the_naive_loss_and_its_gradients() -> None:
    term = DeepCluster(ToyEncoder(), clusters=3, heads=2, hidden=7, out=5)
    term.prepare(CLOCK, Data(torch.randn(20, 16)))
    samples = torch.tensor([3, 19, 0, 7])

    def expected(term: Term, x: list[Tensor]) -> Tensor:
        losses = []
        for view in x[0]:
            for row, sample in zip(slow(term.projector, view), samples.tolist(), strict=True):
                for centres, assigned in zip(term.centres, term.assigned, strict=True):
                    p = torch.stack([(unit(row) @ centre / 0.1).exp() for centre in centres])
                    losses.append(-(p[assigned[sample]] / p.sum()).log())
        return torch.stack(losses).mean()

    compare(
        term,
        [torch.randn(3, 4, 16)],
        lambda term, x: term(replace(passes({"global": x[0][:2], "local": x[0][2:]}), samples=samples))["loss"],
        expected,
    )


def test_clusters_are_found_anew_and_their_sizes_survive_saving() -> None:
    term = DeepCluster(ToyEncoder(), clusters=30, heads=2, hidden=7, out=5)
    assert term.assigned.shape == (2, 0)
    term.prepare(CLOCK, Data(torch.randn(20, 16)))
    assert term.centres.shape == (2, 20, 5), "no more clusters than samples"
    assert torch.equal(term.assigned[0].sort().values, torch.arange(20))
    other = DeepCluster(ToyEncoder(), clusters=30, heads=2, hidden=7, out=5)
    other.load_state_dict(copy.deepcopy(term.state_dict()))
    assert torch.equal(other.assigned, term.assigned)
    before = term.centres
    term.prepare(CLOCK, Data(torch.randn(20, 16)))
    assert not torch.equal(term.centres, before)
    with pytest.raises(UserError, match="at least 1"):
        DeepCluster(ToyEncoder(), clusters=0)


def test_spherical_kmeans_finds_directions_whatever_it_starts_with() -> None:
    which = torch.arange(90) % 3
    x = torch.nn.functional.normalize(torch.eye(8)[which] + 0.05 * torch.randn(90, 8), dim=-1)
    found = 0
    for seed in range(5):
        centres, assigned = spherical_kmeans(x, 3, seed, 30)
        torch.testing.assert_close(centres.norm(dim=1), torch.ones(3))
        found += len({tuple(assigned[which == k].unique().tolist()) for k in range(3)}) == 3
        again = spherical_kmeans(x, 3, seed, 30)[1]
        assert torch.equal(again, assigned)
    assert found >= 3  # k-means may stay in a poor optimum, from some starts


def test_empty_clusters_start_again() -> None:
    x = torch.nn.functional.normalize(torch.randn(50, 4), dim=-1)
    x[:40] = x[0]  # most starts fall on one point
    centres, assigned = spherical_kmeans(x, 8, 0, 40)
    assert centres.isfinite().all()
    assert len(assigned.unique()) >= 6
