"""LeJEPA's loss against loops over directions and frequencies, and the distribution that it wants."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare, passes, slow
from unlabeled.schedules import Clock
from unlabeled.terms.base import Term
from unlabeled.terms.sigreg import SIGReg, directions, sigreg


def naive(z: Tensor, columns: Tensor) -> Tensor:
    """The integral by the trapezoidal rule over −3 … 3, 33 knots, from the definition."""
    ts = [-3 + k * 3 / 16 for k in range(33)]
    out = []
    for column in columns.T:
        x = torch.stack([(row * column).sum() for row in z])
        values = []
        for t in ts:
            real, imaginary = (t * x).cos().sum() / len(x), (t * x).sin().sum() / len(x)
            gauss = math.exp(-t * t / 2)
            values.append(((real - gauss) ** 2 + imaginary**2) * gauss)
        area = sum((a + b) / 2 * 3 / 16 for a, b in pairwise(values))
        out.append(len(x) * area)
    return torch.stack(out).mean()


def test_equals_the_naive_loss_and_its_gradients() -> None:
    term = SIGReg(ToyEncoder(), share=0.2, slices=4, hidden=7, out=3)
    columns = directions(3, 4, CLOCK.step, torch.device("cpu")).double()

    def expected(term: Term, x: list[Tensor]) -> Tensor:
        z = [slow(term.projector, view) for view in x[0]]
        centre = (z[0] + z[1]) / 2
        far = sum(((view - centre) ** 2).mean() for view in z) / 3
        return 0.8 * far + 0.2 * sum(naive(view, columns) for view in z) / 3

    compare(
        term,
        [torch.randn(3, 5, 16)],
        lambda term, x: term(passes({"global": x[0][:2], "local": x[0][2:]}))["loss"],
        expected,
    )


def test_a_gaussian_costs_least() -> None:
    chosen = directions(8, 64, 0, torch.device("cpu"))
    normal = torch.randn(2000, 8)
    cost = sigreg(normal, chosen).item()
    assert cost < 2  # of the order of one, whatever the number of rows
    for other in (2 * normal, 0.3 * normal, normal + 0.5, normal.sign(), normal * torch.tensor([1.0] * 4 + [0.0] * 4)):
        assert sigreg(other, chosen).item() > 3 * cost


def test_collapse_to_a_point_in_closed_form() -> None:
    chosen = directions(4, 8, 0, torch.device("cpu"))
    ts = [k * 3 / 16 for k in range(17)]
    values = [(1 - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2) for t in ts]
    area = 2 * sum((a + b) / 2 * 3 / 16 for a, b in pairwise(values))
    assert sigreg(torch.zeros(10, 4), chosen).item() == pytest.approx(10 * area, rel=1e-4)


def test_directions_differ_between_steps_and_not_between_calls() -> None:
    term = SIGReg(ToyEncoder(), slices=4, hidden=7, out=3).eval()
    z = torch.randn(2, 5, 16)
    seen = passes({"global": z})
    first, again = (term(seen)["loss"] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, term(replace(seen, clock=Clock(4, 100, 10)))["loss"])
