"""The teacher follows at its pace, holds still otherwise, and passes are read in one order."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from toy import look, passes
from unlabeled.branches import Passes, Teacher, follow
from unlabeled.schedules import Clock


class Counter(nn.Module):
    """A weight, an average and an integer."""

    def __init__(self, value: float, count: int):
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), value))
        self.register_buffer("average", torch.full((2,), value))
        self.register_buffer("count", torch.tensor(count))


def test_follow_averages_numbers_and_copies_integers() -> None:
    student, teacher = Counter(1.0, 7), Teacher(Counter(0.0, 2))
    follow([(teacher, student)], 0.9)
    assert torch.equal(teacher.module.weight, torch.full((3,), 0.1))
    assert torch.equal(teacher.module.average, torch.full((2,), 0.1))
    assert teacher.module.count.item() == 7
    follow([(teacher, student)], 0.5)
    torch.testing.assert_close(teacher.module.weight, torch.full((3,), 0.55))
    follow([(teacher, student)], 1.0)
    torch.testing.assert_close(teacher.module.weight, torch.full((3,), 0.55), rtol=0, atol=1e-7)
    assert (student.weight == 1).all()
    assert student.weight.requires_grad
    follow([], 0.5)


def test_the_teacher_is_another_object_without_gradient() -> None:
    student = nn.Linear(3, 2)
    teacher = Teacher(student)
    assert teacher.module is not student
    assert teacher.module.weight.data_ptr() != student.weight.data_ptr()
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert not teacher(torch.randn(4, 3, requires_grad=True)).requires_grad
    assert all(weight.requires_grad for weight in student.parameters())


def test_the_teacher_drops_nothing_and_its_batch_norm_trains() -> None:
    class Path(nn.Module):  # any library's own dropout
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.bernoulli(torch.full_like(x, 0.5)) if self.training else x

    student = nn.Sequential(nn.Dropout(0.5), Path(), nn.MultiheadAttention(4, 2, dropout=0.5), nn.BatchNorm1d(4))
    teacher = Teacher(student.train()).train()
    assert [part.training for part in teacher.module] == [False, False, False, True]
    x = torch.randn(8, 4)
    part = Teacher(student[:2])
    part.train()
    assert torch.equal(part(x), x)
    assert not teacher.eval().module[3].training
    assert student[0].training


def test_instances_come_plain_then_global_then_local() -> None:
    z = torch.randn(5, 3, 4)
    seen = passes({"plain": z[:1], "global": z[1:3], "local": z[3:]})
    torch.testing.assert_close(torch.stack(seen.instances("student")), z)
    torch.testing.assert_close(torch.stack(seen.instances("teacher")), z[:3])


def test_masked_pairs_each_mask_with_the_one_whole_look() -> None:
    from dataclasses import replace

    from unlabeled.masking import Hidden

    open_look, whole = look(torch.randn(1, 2, 4)), look(torch.randn(1, 2, 4))
    mask = torch.ones(2, 1, dtype=torch.bool)
    one, two = (replace(open_look, hidden=Hidden(mask, (mask,))) for _ in range(2))
    seen = Passes("ema", {"plain": [one, two], "local": [open_look]}, {"plain": whole}, Clock(0, 1, 1))
    assert [(a is one or a is two, b is whole) for a, b in seen.masked()] == [(True, True)] * 2
    assert not one.seen.any()
    assert open_look.seen.all()
    with pytest.raises(AssertionError, match="refused"):
        _ = one.latent
