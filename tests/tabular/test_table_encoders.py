"""Both encoders keep the contract: nothing of hidden or absent cells gets through, whatever stands there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from unlabeled import plugins
from unlabeled.contract import Encoded, Encoder, Tokens
from unlabeled.errors import UserError
from unlabeled_tabular.encoders import MLP, FTTransformer
from unlabeled_tabular.readers import TableReader

SMALL: dict[str, list[dict[str, Any]]] = {
    "ft_transformer": [
        {"width": 16, "depth": 2, "heads": 2},
        {"width": 16, "depth": 1, "pool": "cls"},
        {"width": 16, "depth": 1, "numbers": "piecewise"},
        {"width": 16, "depth": 1, "numbers": "linear"},
    ],
    "mlp": [{"width": 16, "depth": 1}, {"width": 16, "depth": 2, "cell": 4, "numbers": "piecewise"}],
}
CASES = [(name, options) for name, every in SMALL.items() for options in every]


def test_every_encoder_is_tested() -> None:
    assert set(SMALL) == set(plugins.load("tabular").encoders)


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1].get('pool', case[1].get('numbers', ''))}")
def encoder(request: pytest.FixtureRequest, reader: TableReader) -> Encoder:
    name, options = request.param
    made: Encoder = plugins.load("tabular").make("encoder", name, reader.facts, **options)
    return made.eval()


@pytest.fixture
def tokens(encoder: Encoder, reader: TableReader) -> Tokens:
    return encoder.tokenize(reader.batch(range(12)))


def same(one: Encoded, other: Encoded) -> None:
    assert one.tokens is not None
    assert other.tokens is not None
    torch.testing.assert_close(one.tokens, other.tokens, rtol=0, atol=0)
    torch.testing.assert_close(one.instances, other.instances, rtol=0, atol=0)


def junk(values: Tensor) -> Tensor:
    """What may stand at places nobody may look at: huge, negative, out of every vocabulary, not finite."""
    wild = torch.randn_like(values) * 1e4
    return torch.where(torch.rand_like(values) < 0.2, torch.nan, wild)


def test_shapes(encoder: Encoder, tokens: Tokens) -> None:
    assert tokens.values.shape == (12, 6, 3)
    assert tokens.coords.shape == (12, 6, 1)
    assert tokens.coords[0, :, 0].tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert tokens.values.isfinite().all()
    assert tokens.valid.all()
    out = encoder(tokens)
    assert out.tokens.shape == (12, 6, encoder.width)
    assert out.instances.shape == (12, encoder.width)
    assert out.layers is None
    if encoder.depth:
        layers = encoder(tokens, layers=encoder.depth).layers
        assert layers is not None
        assert layers.shape == (encoder.depth, 12, 6, encoder.width)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 1.0])
def test_hidden_cells_do_not_leak(encoder: Encoder, tokens: Tokens, share: float) -> None:
    hidden = torch.rand(12, 6) < share
    values = torch.where(hidden[..., None], junk(tokens.values), tokens.values)
    same(encoder(tokens, hidden), encoder(replace(tokens, values=values), hidden))


def test_absent_cells_do_not_leak(encoder: Encoder, tokens: Tokens) -> None:
    valid = torch.rand(12, 6) < 0.6
    values = torch.where(valid[..., None], tokens.values, junk(tokens.values))
    with_junk = replace(tokens, values=values, valid=valid)
    same(encoder(replace(tokens, valid=valid)), encoder(with_junk))
    same(encoder(replace(tokens, valid=valid)), encoder(tokens, ~valid))


def test_hidden_cells_give_no_gradient(encoder: Encoder, tokens: Tokens) -> None:
    hidden = torch.rand(12, 6) < 0.5
    values = tokens.values.clone().requires_grad_()
    out = encoder(replace(tokens, values=values), hidden)
    (out.tokens.square().sum() + out.instances.square().sum()).backward()
    assert values.grad is not None
    assert (values.grad[hidden] == 0).all()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in encoder.parameters())


def test_seen_cells_matter_each(encoder: Encoder, tokens: Tokens, reader: TableReader) -> None:
    whole = encoder(tokens).instances
    for place in range(6):
        values = tokens.values.clone()
        values[:, place, 0] += 1
        values[:, place, 1] = (values[:, place, 1] + 1) % 4
        assert (encoder(replace(tokens, values=values)).instances != whole).any(1).all() or place == 1
        hidden = torch.zeros(12, 6, dtype=torch.bool)
        hidden[:, place] = True
        assert (encoder(tokens, hidden).instances != whole).any(1).all()


def test_missing_is_a_value_and_not_absence(encoder: Encoder, reader: TableReader) -> None:
    batch = reader.batch(range(1))
    gone = {**batch, "missing": torch.tensor([[True, False, False, False]])}
    hidden = torch.tensor([[True, *[False] * 5]])
    seen, missing = (encoder(encoder.tokenize(one)).instances for one in (batch, gone))
    absent = encoder(encoder.tokenize(batch), hidden).instances
    assert not torch.allclose(seen, missing)
    assert not torch.allclose(missing, absent)
    other = {**gone, "numbers": gone["numbers"] + torch.tensor([[5.0, 0, 0, 0]])}
    torch.testing.assert_close(encoder(encoder.tokenize(other)).instances, missing)


def test_rows_do_not_see_each_other(encoder: Encoder, tokens: Tokens) -> None:
    whole = encoder(tokens).instances
    few = Tokens(tokens.values[3:5], tokens.coords[3:5], tokens.valid[3:5], {})
    torch.testing.assert_close(encoder(few).instances, whole[3:5], rtol=1e-4, atol=1e-5)


def test_column_subsets_become_absent_cells(encoder: Encoder, reader: TableReader) -> None:
    batch = dict(reader.batch(range(4)))
    kept = torch.rand(4, 6) < 0.5
    tokens = encoder.tokenize({**batch, "kept": kept})
    assert torch.equal(tokens.valid, kept)
    assert (tokens.values[~kept] == 0).all()


def test_mixed_precision(encoder: Encoder, tokens: Tokens) -> None:
    hidden = torch.rand(12, 6) < 0.5
    with torch.autocast("cpu", torch.bfloat16):
        out = encoder(tokens, hidden)
    torch.testing.assert_close(out.instances.float(), encoder(tokens, hidden).instances, rtol=0.1, atol=0.1)


def test_a_code_that_training_never_saw_starts_at_nothing(reader: TableReader) -> None:
    embed = FTTransformer(reader.facts, width=8, depth=1).cells
    assert embed.codes is not None
    rare, city = 1, 0
    assert (embed.codes.weight[embed.offsets[city] + rare] == 0).all()
    assert (embed.codes.weight[embed.offsets[city]] != 0).all()  # "city" has missing cells


def test_the_predictor_tells_columns_by_place_alone(encoder: Encoder, tokens: Tokens) -> None:
    predictor = encoder.predictor(5, 16, 1)
    assert predictor is not None
    wanted = torch.zeros(12, 6, dtype=torch.bool)
    wanted[:, 2] = True
    latent = torch.randn(12, 6, encoder.width)
    out = predictor(latent, tokens, ~wanted, wanted)
    assert out.shape == (12, 6, 5)
    other = replace(tokens, values=junk(tokens.values))
    torch.testing.assert_close(predictor(torch.where(wanted[..., None], 9.0, latent), other, ~wanted, wanted), out)


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (FTTransformer, {"width": 10, "heads": 3}, "width 10 is not a multiple of 3 heads"),
        (FTTransformer, {"pool": "max"}, "there are: mean, cls"),
        (FTTransformer, {"numbers": "raw"}, "there are: periodic, piecewise, linear"),
        (MLP, {"width": 0}, "width must be at least 1"),
    ],
)
def test_options_that_make_no_sense(reader: TableReader, make: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        make(reader.facts, **options)
