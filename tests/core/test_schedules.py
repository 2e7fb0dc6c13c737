"""Schedules at the points where they are known."""

from __future__ import annotations

import pytest

from unlabeled.schedules import Clock, cosine, infinite, linear, warmup_cosine


def test_cosine() -> None:
    assert [cosine(step, 100, 1.0, 0.0) for step in (0, 50, 100, 150)] == pytest.approx([1, 0.5, 0, 0])
    assert cosine(25, 100, 0.0, 1.0) == pytest.approx((1 - 2**-0.5) / 2)
    assert cosine(0, 100, 0.996, 1.0) == 0.996
    assert cosine(100, 100, 0.996, 1.0) == 1.0
    assert cosine(-5, 100, 3.0, 1.0) == 3.0
    assert cosine(0, 0, 3.0, 1.0) == 1.0


def test_linear() -> None:
    assert [linear(step, 30, 0.04, 0.07) for step in (0, 10, 30, 99)] == pytest.approx([0.04, 0.05, 0.07, 0.07])
    assert linear(0, 0, 3.0, 1.0) == 1.0


def test_warmup_cosine() -> None:
    values = [warmup_cosine(step, 110, 2.0, 10, 0.2) for step in range(111)]
    assert values[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert values[9] == values[10] == 2.0
    assert values[60] == pytest.approx(1.1)
    assert values[110] == pytest.approx(0.2)
    assert values[10:] == sorted(values[10:], reverse=True)
    assert warmup_cosine(0, 100, 2.0, 0) == 2.0
    assert warmup_cosine(7, 8, 2.0, 8) == 2.0, "a run that is all warm-up"


def test_infinite_without_room_for_the_annealing() -> None:
    values = [infinite(step, 8, 2.0, 1.0, 0.1, 4, 4, 2) for step in range(10)]
    assert values[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert values[4] == 2.0
    assert values[8:] == [1.0, 1.0]


def test_clock() -> None:
    assert Clock(25, 100, 10).epoch == 2
    assert Clock(25, 100, 10).fraction == 0.25
    assert Clock(0, 0, 10).fraction == 0
