"""Clusters of features, and cross-entropy over them, against loops."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from toy import CLOCK, ToyEncoder, compare
from unlabeled.branches import Look, Passes
from unlabeled.contract import Encoded, Tokens
from unlabeled.errors import UserError
from unlabeled.masking import Hidden
from unlabeled.targets import Checkpoint, Values
from unlabeled.terms.token_ids import TokenIds


def tokens_of(values: Tensor) -> Tokens:
    B, N, _ = values.shape
    coords = torch.linspace(0, 1, N)[None, :, None].expand(B, N, 1)
    return Tokens(values, coords, torch.ones(B, N, dtype=torch.bool), {})


class Blobs:
    """Tokens around three points far from each other."""

    points = torch.tensor([[0.0, 0, 9], [9, 0, 0], [0, 9, 0]])

    def __init__(self) -> None:
        self.which = torch.arange(60).view(6, 10) % 3
        self.batch = tokens_of(self.points[self.which] + 0.1 * torch.randn(6, 10, 3))

    def tokens(self, samples: int) -> Iterator[Tokens]:
        yield self.batch

    def instances(self) -> Tensor:
        raise AssertionError("nobody asks")


def made(**options: object) -> TokenIds:
    encoder = ToyEncoder()
    return TokenIds(encoder, target=Values(encoder), **{"codes": 3, "out": 8, **options})


def test_clusters_are_found_once_and_saved() -> None:
    blobs, term = Blobs(), made(codes=5)
    term.prepare(CLOCK, blobs)
    assert int(term.count) == 5
    term = made(codes=3)
    term.prepare(CLOCK, blobs)
    ids = term.ids(blobs.batch)
    assert all(len(ids[blobs.which == k].unique()) == 1 for k in range(3))
    assert len(ids.unique()) == 3
    before = copy.deepcopy(term.state_dict())
    term.prepare(CLOCK, Blobs())
    assert all(torch.equal(value, before[name]) for name, value in term.state_dict().items())
    other = made(codes=3)
    other.load_state_dict(before)
    assert torch.equal(other.ids(blobs.batch), ids)


def test_fewer_different_features_than_codes() -> None:
    blobs, term = Blobs(), made(codes=7)
    blobs.batch = tokens_of(blobs.points[blobs.which])
    term.prepare(CLOCK, blobs)
    assert int(term.count) == 3
    assert set(term.ids(blobs.batch).unique().tolist()) == {0, 1, 2}


def test_equals_the_naive_loss_and_its_gradients() -> None:
    blobs, term = Blobs(), made(temperature=0.3)
    term.prepare(CLOCK, blobs)
    hidden = torch.rand(6, 10) < 0.5
    ids = term.ids(blobs.batch)

    def passes(latent: Tensor) -> Passes:
        look = Look(1, blobs.batch, Encoded(latent, latent.mean(1)), Hidden(hidden, (hidden,)), True)
        return Passes("shared", {"plain": [look]}, {"plain": look}, CLOCK)

    def naive(term: TokenIds, inputs: list[Tensor]) -> Tensor:
        errors = []
        codes = [row / (row @ row) ** 0.5 for row in term.code]
        for b, n in hidden.nonzero().tolist():
            guess = term.projector.weight @ inputs[0][b, n] + term.projector.bias
            guess = guess / (guess @ guess) ** 0.5
            score = torch.stack([(guess @ code / 0.3).exp() for code in codes])
            errors.append(-(score[ids[b, n]] / score.sum()).log())
        return torch.stack(errors).mean()

    compare(term, [torch.randn(6, 10, 16)], lambda term, x: term(passes(x[0]))["loss"], naive)


def test_the_checkpoint_target_is_the_earlier_encoder(tmp_path: Path) -> None:
    first, second = ToyEncoder(), ToyEncoder()
    (tmp_path / "encoder").mkdir()
    save_file(first.state_dict(), tmp_path / "encoder" / "encoder.safetensors")
    tokens = Blobs().batch
    for run in (tmp_path, tmp_path / "encoder"):
        torch.testing.assert_close(Checkpoint(second, run=str(run))(tokens), first.eval()(tokens).tokens)
    layer = Checkpoint(second, run=str(tmp_path), layer=1)
    torch.testing.assert_close(layer(tokens), first(tokens, layers=1).layers[0])
    assert not any(weight.requires_grad for weight in layer.parameters())
    assert not layer.train().module.training
    with pytest.raises(UserError, match="no layer 2"):
        Checkpoint(second, run=str(tmp_path), layer=2)
    with pytest.raises(UserError, match="another encoder's weights"):
        Checkpoint(ToyEncoder(width=8), run=str(tmp_path))
    with pytest.raises(UserError, match="finds no encoder"):
        Checkpoint(second, run=str(tmp_path / "nowhere"))
