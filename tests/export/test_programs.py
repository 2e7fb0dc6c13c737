"""Every encoder as a program, by torch.export and by ONNX: the same numbers on any batch, or refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from small import OF_ANOTHER, SMALL
from unlabeled import plugins
from unlabeled.contract import Batch, Encoded, Encoder, Tokens
from unlabeled.errors import UserError
from unlabeled.exporting.programs import run_onnx, save_onnx, save_program
from unlabeled.exporting.tracing import SIZES, Traced, trace
from unlabeled.testing import Bench

ROOT = Path(__file__).parents[2]
REFUSED = {("graph", "gps"): "what it does next depends on numbers in the batch, in _to_dense_batch.py"}
OTHER_SIZE = 4  # of a batch that neither the tracing nor the command sees


def registered() -> Iterator[tuple[str, str]]:
    for domain in sorted({plugin.domain for plugin in plugins.listing()}):
        names = ((domain, name) for name in plugins.load(domain).encoders)
        yield from (one for one in names if one not in OF_ANOTHER)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A domain's examples, opened once."""
    return lru_cache(lambda domain: Bench(domain, tmp_path_factory.mktemp(domain)))


def batches(bench: Bench, *sizes: int) -> list[Batch]:
    """Whole batches of samples after one another."""
    found, first = [], 0
    for size in sizes:
        part = slice(first, first + size)
        found.append(bench.batch(bench.samples[part], bench.indices[part]))
        first += size
    return found


def _bytes(x: Tensor) -> bytes:
    """As any file that holds the tensor holds it."""
    return x.contiguous().numpy().tobytes()


@pytest.mark.parametrize(("domain", "name"), [pytest.param(*one, id=" ".join(one)) for one in registered()])
def test_an_encoder_is_one_program_or_refused_by_name(bench: Any, domain: str, name: str, tmp_path: Path) -> None:
    home = bench(domain)
    encoder = home.registry.make("encoder", name, home.reader.facts, **SMALL.get((domain, name), {})).eval()
    seen = batches(home, *SIZES)
    if (domain, name) in REFUSED:
        with pytest.raises(
            UserError, match=f"encoder '{name}' cannot be exported as a program: {REFUSED[domain, name]}"
        ):
            trace(encoder, seen, name)
        return
    traced = trace(encoder, seen, name)
    with (tmp_path / "encoder.pt2").open("wb") as file:
        save_program(traced, file)
    assert save_onnx(traced, tmp_path / "encoder.onnx", name) >= 18
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert str(ROOT).encode() not in content
        assert b"site-packages" not in content
        samples = [one for one in traced.batches[0].values() if one.is_floating_point()]
        assert samples
        assert not any(_bytes(one) in content for one in samples)
    program = torch.export.load(tmp_path / "encoder.pt2").module()
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"))
    assert {one.name: one.shape for one in session.get_inputs()} == traced.shapes
    for batch in [*seen, *batches(home, OTHER_SIZE)]:
        taken = {key: batch[key] for key in traced.names}
        with torch.no_grad():
            wanted = encoder(encoder.tokenize(batch)).instances
            got = program(taken)
        far = 1e-5 * max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(got, wanted, atol=far, rtol=0)
        torch.testing.assert_close(run_onnx(session, taken), wanted, atol=far, rtol=0)
        assert any(size == "B" for shape in traced.shapes.values() for size in shape)


def test_every_case_is_of_an_encoder_that_there_is() -> None:
    assert ({*SMALL, *REFUSED}) <= set(registered())


# --- on encoders of our own


class Mean(Encoder):
    """Takes the mean of x; what else it does is up to a test."""

    value_width, coord_width, width = 1, 1, 2

    def __init__(self, doing: str = ""):
        super().__init__()
        self.doing, self.weight = doing, nn.Parameter(torch.tensor([1.0, 2.0]))

    def tokenize(self, batch: Batch) -> Tokens:
        x = batch["x"]
        if self.doing == "asks":
            assert batch["extra"] is not None
        valid = torch.ones(x.shape, dtype=torch.bool)
        return Tokens(x[..., None], torch.zeros_like(x)[..., None], valid, {})

    def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0, alter: Any = None) -> Encoded:
        x = tokens.values.mean((1, 2))[:, None] * self.weight
        if self.doing == "branches" and float(x.sum()) > 0:
            x = -x
        if self.doing == "counts":
            x = x * len(x)
        return Encoded(None, x)


def numbered(*sizes: int) -> list[Batch]:
    return [{"x": torch.randn(size, 5 + size), "extra": torch.zeros(size, 7)} for size in sizes]


def test_what_is_never_asked_for_is_no_input_and_what_differs_is_free() -> None:
    traced = trace(Mean(), numbered(*SIZES), "mean")
    assert traced.shapes == {"x": ["B", "N1"]}
    for batch in numbered(2, 9):
        got = traced.program.module()({"x": batch["x"]})
        torch.testing.assert_close(got, batch["x"].mean(1)[:, None] * torch.tensor([1.0, 2.0]))


def test_what_is_asked_for_and_not_used_stays() -> None:
    assert list(trace(Mean("asks"), numbered(*SIZES), "mean").shapes) == ["x", "extra"]


@pytest.mark.parametrize(
    ("doing", "reason"),
    [
        ("branches", "what it does next depends on numbers in the batch, in test_programs.py, line"),
        ("counts", "a size is fixed that batches differ in"),
    ],
)
def test_what_has_no_program_is_refused_in_one_line(doing: str, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=f"encoder 'mean' cannot be exported as a program: {reason}") as caught:
        trace(Mean(doing), numbered(*SIZES), "mean")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_difference_is_measured_by_the_largest_number() -> None:
    traced = trace(Mean(), numbered(*SIZES), "mean")
    large = Traced(traced.program, traced.batches, tuple(1000 * one for one in traced.wanted))
    assert traced.difference(traced.wanted) == (0.0, True)
    far, fine = traced.difference([one + 0.01 for one in traced.wanted])
    assert far == pytest.approx(0.01, rel=1e-3)
    assert not fine
    assert large.difference([one + 0.01 for one in large.wanted])[1]
    assert traced.difference([one * torch.nan for one in traced.wanted]) == (float("inf"), False)
    assert traced.difference([one[:, :1] for one in traced.wanted]) == (float("inf"), False)
