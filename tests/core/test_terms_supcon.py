"""Supervised contrast against loops, and NT-Xent where nobody shares a label."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from toy import ToyEncoder, compare, passes, slow, unit
from unlabeled.terms import supcon
from unlabeled.terms.contrast import nt_xent
from unlabeled.terms.supcon import SupCon, sup_con


def naive(views: list[Tensor], labels: list[int], temperature: float) -> Tensor:
    every = [(sample, unit(z)) for view in views for sample, z in enumerate(view)]
    losses = []
    for i, (sample, anchor) in enumerate(every):
        below = sum(((anchor @ z) / temperature).exp() for k, (_, z) in enumerate(every) if k != i)
        terms = []
        for j, (other, z) in enumerate(every):
            same = other == sample or (labels[other] == labels[sample] and labels[sample] >= 0)
            if j != i and same:
                terms.append(-(((anchor @ z) / temperature).exp() / below).log())
        losses.append(torch.stack(terms).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 0], [3, -1, 3, -1, 2], [-1] * 5])
def test_equals_the_naive_loss_and_its_gradients(labels: list[int]) -> None:
    term = SupCon(ToyEncoder(), temperature=0.3, hidden=7, out=5)
    given = torch.tensor(labels)
    compare(
        term,
        [torch.randn(2, 5, 16)],
        lambda term, inputs: term(replace(passes({"global": inputs[0]}), labels=given))["loss"],
        lambda term, inputs: naive([slow(term.projector, view) for view in inputs[0]], labels, 0.3),
    )


@pytest.mark.parametrize("labels", [torch.arange(6), -torch.ones(6, dtype=torch.int64)])
def test_without_a_shared_label_it_is_nt_xent(labels: Tensor) -> None:
    z = torch.randn(3, 6, 8)
    torch.testing.assert_close(sup_con(z, labels, 0.2), nt_xent(z, 0.2))


def test_in_chunks_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    z = torch.randn(2, 7, 8, requires_grad=True)
    labels = torch.tensor([0, 1, 0, -1, 1, 2, 0])
    whole = sup_con(z, labels, 0.2)
    (goal,) = torch.autograd.grad(whole, z)
    monkeypatch.setattr(supcon, "CHUNK", 30)
    pieces = sup_con(z, labels, 0.2)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(torch.autograd.grad(pieces, z)[0], goal)
