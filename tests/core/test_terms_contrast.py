"""NT-Xent against loops over samples, and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from toy import ToyEncoder, compare, passes, slow, unit
from unlabeled.errors import UserError
from unlabeled.terms.contrast import Contrast, nt_xent


def naive(views: list[Tensor], temperature: float) -> Tensor:
    """−log exp(ẑᵢ·ẑⱼ/τ) / Σ_{k≠i} exp(ẑᵢ·ẑₖ/τ), mean over anchors and positives, in loops."""
    every = [(sample, unit(z)) for view in views for sample, z in enumerate(view)]
    losses = []
    for i, (sample, anchor) in enumerate(every):
        below = sum(((anchor * z).sum() / temperature).exp() for k, (_, z) in enumerate(every) if k != i)
        for j, (other, z) in enumerate(every):
            if j != i and other == sample:
                losses.append(-(((anchor * z).sum() / temperature).exp() / below).log())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("count", [2, 3])
def test_equals_the_naive_loss_and_its_gradients(count: int) -> None:
    term = Contrast(ToyEncoder(), temperature=0.3, hidden=7, out=5)
    z = torch.randn(count, 4, 16)
    compare(
        term,
        [z],
        lambda term, inputs: term(passes({"global": inputs[0]}))["loss"],
        lambda term, inputs: naive([slow(term.projector, view) for view in inputs[0]], 0.3),
    )


def test_all_student_views_count_as_views() -> None:
    term = Contrast(ToyEncoder(), hidden=7, out=5)
    z = torch.randn(3, 4, 16)
    apart = term(passes({"global": z[:2], "local": z[2:]}))["loss"]
    torch.testing.assert_close(apart, term(passes({"global": z}))["loss"])


@pytest.mark.parametrize(("count", "samples"), [(2, 5), (3, 4)])
def test_equal_embeddings_give_the_logarithm_of_the_others(count: int, samples: int) -> None:
    z = torch.ones(count, samples, 8)
    assert nt_xent(z, 0.1).item() == pytest.approx(math.log(count * samples - 1), rel=1e-5)


def test_orthogonal_samples_whose_views_agree() -> None:
    z, t = torch.eye(6).expand(2, 6, 6), 0.5
    expected = math.log(math.exp(1 / t) + 10) - 1 / t
    assert nt_xent(z, t).item() == pytest.approx(expected, rel=1e-5)


def test_falls_when_views_agree() -> None:
    one, other = torch.randn(2, 8, 16)
    losses = [nt_xent(torch.stack([one, one + noise * other]), 0.2).item() for noise in (0.0, 0.5, 2.0)]
    assert losses == sorted(losses)


def test_ignores_the_length_of_embeddings() -> None:
    z = torch.randn(2, 6, 8)
    torch.testing.assert_close(nt_xent(z * torch.rand(2, 6, 1).add(0.1), 0.2), nt_xent(z, 0.2))


def test_zero_embeddings_are_finite() -> None:
    z = torch.zeros(2, 4, 8, requires_grad=True)
    loss = nt_xent(z, 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(7), rel=1e-5)
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_keeps_its_precision_under_autocast() -> None:
    z = torch.randn(2, 16, 32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(z, 0.05)
    torch.testing.assert_close(loss, nt_xent(z, 0.05), rtol=1e-5, atol=1e-5)


def test_one_sample_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"'contrast'.*batch-size"):
        Contrast(ToyEncoder())(passes({"global": torch.randn(2, 1, 16)}))
