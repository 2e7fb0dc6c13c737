"""The conformance kit, proven by mutants: each breaks one promise and is caught by its number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import strips
from mutants.cuts import CUTS, NotAnEncoder
from mutants.leaks import CONTENT_FAULTS, LEAKS, Content, SwapsWithNeighbours
from mutants.readers import READERS, FearsAll, TupleFacts
from mutants.views import VIEWS, Cut, NotAView
from strips import Crops, StripCNN, StripFlat, StripMLP, Strips, StripViT, pad
from unlabeled import plugins
from unlabeled.contract import Batch, Encoded, Facts, Reader, Sample, Tokens, View
from unlabeled.errors import UserError
from unlabeled.plugins import Registry
from unlabeled.testing import PROMISES, Bench, BrokenPromise, check_encoder, check_plugin, check_reader, check_view

ENCODERS = [*CUTS, *LEAKS]
FACTS = {"mean": 0.0, "std": 2.0}


def caught(code: str, check: Callable[[], None]) -> str:
    """The message with which the kit says that this promise is broken."""
    with pytest.raises(BrokenPromise) as error:
        check()
    assert error.value.code == code, str(error.value)
    assert f"promise {code}" in str(error.value)
    assert "docs/plugins.md" in str(error.value)
    return str(error.value)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return strips.write(tmp_path)


@pytest.fixture
def samples(source: str) -> list[Sample]:
    reader = Strips(source)
    return [reader[index] for index in range(6)]


# --- encoders


def check(encoder: StripViT, samples: Sequence[Sample]) -> None:
    """As check_plugin does."""
    alone = [pad([sample]) for sample in samples]
    check_encoder(encoder, pad(samples), again=partial(type(encoder), FACTS), alone=alone)


@pytest.mark.parametrize("kind", [StripViT, StripCNN, StripMLP, StripFlat])
def test_encoders_that_keep_their_promises_pass(kind: type[StripViT], samples: list[Sample]) -> None:
    check(kind(FACTS), samples)


def test_the_checked_encoder_stays_as_it_was(samples: list[Sample]) -> None:
    encoder = StripViT(FACTS).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.get_rng_state()
    check(encoder, samples)
    assert encoder.training
    assert all(value.equal(before[name]) for name, value in encoder.state_dict().items())
    assert all(weight.grad is None for weight in encoder.parameters())
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize(("code", "mutant", "says"), ENCODERS, ids=[mutant.__name__ for _, mutant, _ in ENCODERS])
def test_mutant_encoders_are_caught(code: str, mutant: type[Any], says: str, samples: list[Sample]) -> None:
    encoder = mutant() if mutant is NotAnEncoder else mutant(FACTS)
    message = caught(code, lambda: check(encoder, samples))
    assert says in message
    assert mutant.__name__ in message


@pytest.mark.parametrize("fault", CONTENT_FAULTS)
def test_mutant_contents_are_caught(fault: str, samples: list[Sample]) -> None:
    encoder = StripViT(FACTS)
    encoder.content = Content(fault)
    caught("E14", lambda: check(encoder, samples))


def test_rows_that_stand_alone_are_cut_from_the_batch() -> None:
    """Where every tensor has a row a sample, E12 needs no batches of one sample."""
    batch = pad([{"signal": torch.randn(16), "rate": torch.tensor(100.0)} for _ in range(3)])
    check_encoder(StripViT(FACTS), batch)
    caught("E12", lambda: check_encoder(SwapsWithNeighbours(FACTS), batch))


# --- readers


def test_a_reader_that_keeps_its_promises_passes(source: str) -> None:
    check_reader(partial(Strips, source), collate=pad)


def test_a_reader_whose_samples_have_one_shape_needs_no_collate(tmp_path: Path) -> None:
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", np.full(8, number, dtype=np.float32))
    check_reader(partial(Strips, str(tmp_path)))


@pytest.mark.parametrize(("code", "mutant", "says"), READERS, ids=[mutant.__name__ for _, mutant, _ in READERS])
def test_mutant_readers_are_caught(code: str, mutant: type[Strips], says: str, source: str) -> None:
    with np.errstate(all="ignore"):
        message = caught(code, lambda: check_reader(partial(mutant, source), collate=pad))
    assert says in message


def test_a_reader_that_is_no_reader() -> None:
    assert "no subclass" in caught("R1", lambda: check_reader(lambda: [1, 2]))  # type: ignore[arg-type, return-value]


# --- views


def test_a_view_that_keeps_its_promises_passes(samples: list[Sample]) -> None:
    check_view(Crops(FACTS), samples, collate=pad)
    check_view(View(), [{"x": torch.ones(3)}, {"x": torch.zeros(3)}])


def join(samples: Sequence[Sample]) -> Batch:
    """As `pad`, and without a rate where a mutant lost it."""
    return pad([{"rate": torch.tensor(1.0), **sample} for sample in samples])


@pytest.mark.parametrize(("code", "mutant", "says"), VIEWS, ids=[mutant.__name__ for _, mutant, _ in VIEWS])
def test_mutant_views_are_caught(code: str, mutant: type[Any], says: str, samples: list[Sample]) -> None:
    view = mutant() if mutant is NotAView else mutant(FACTS)
    message = caught(code, lambda: check_view(view, samples, collate=join))
    assert says in message


def test_views_that_do_not_fit_together(samples: list[Sample]) -> None:
    message = caught("V5", lambda: check_view(View(), samples))  # uneven, and nobody says how to join them
    assert "collating views of kind 'plain' raises UserError" in message


# --- plugins


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`strips`, installed."""
    info = tmp_path / "path" / "strips_dist-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strips-dist\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[unlabeled]\nstrips = strips\n")
    monkeypatch.syspath_prepend(info.parent)
    plugins.load.cache_clear()
    yield "strips"
    plugins.load.cache_clear()


def offer(monkeypatch: pytest.MonkeyPatch, table: str, value: object) -> None:
    """Replace what the registry offers."""
    monkeypatch.setattr(Registry, table, property(lambda self: value))


def test_a_whole_domain_that_keeps_its_promises_passes(domain: str, tmp_path: Path) -> None:
    """Four encoders, one with flat storage and one without tokens, by every method of the table."""
    check_plugin(domain, tmp_path)


def test_a_domain_without_an_example(domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "examples", lambda self, folder: [])
    assert "implements unlabeled_example" in caught("P1", lambda: check_plugin(domain, tmp_path))


def test_a_reader_that_takes_no_example(domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def picky(source: str, *, facts: Any = None) -> Strips:
        raise UserError(f"{source} is not EDF")

    offer(monkeypatch, "readers", {"npy": Strips, "edf": picky})
    message = caught("P1", lambda: check_plugin(domain, tmp_path))
    assert "reader 'edf'" in message
    assert "is not EDF" in message


def test_a_reader_that_crashes(domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reported as its own, before anything else of the domain is looked at."""

    class Lost(Strips):
        def __init__(self, source: str, *, facts: Any = None):
            raise KeyError("shape")

    offer(monkeypatch, "readers", {"npy": FearsAll})
    message = caught("R9", lambda: check_plugin(domain, tmp_path / "one"))
    assert "reader 'npy' breaks promise R9" in message
    assert "item 0 raises" in message
    offer(monkeypatch, "readers", {"npy": Lost})
    message = caught("P1", lambda: check_plugin(domain, tmp_path / "other"))
    assert "reader 'npy' breaks promise P1" in message
    assert "raises KeyError: 'shape'" in message


def test_an_example_that_is_too_small(domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Few(Strips):
        def __len__(self) -> int:
            return 3

    offer(monkeypatch, "readers", {"npy": Few})
    assert "3 readable samples" in caught("P1", lambda: check_plugin(domain, tmp_path))


@pytest.mark.parametrize("table", ["readers", "views", "encoders"])
def test_a_domain_with_nothing_to_offer(
    domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    offer(monkeypatch, table, {})
    assert f"offers no {table}" in caught("P2", lambda: check_plugin(domain, tmp_path))


def test_a_view_that_an_encoder_cannot_take(domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "views", {"crops": Crops, "cut": Cut})
    bench = Bench(domain, tmp_path)
    bench.check_view("crops")
    message = caught("P3", lambda: bench.check_view("cut"))
    assert "encoder 'vit' breaks promise E" in message
    assert "kind 'local'" in message


def test_facts_that_json_changes(domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fussy(StripViT):
        def __init__(self, facts: Mapping[str, Any]):
            super().__init__(facts)
            nn.init.constant_(self.enter.bias, float(isinstance(facts["shape"], tuple)))

    offer(monkeypatch, "readers", {"npy": TupleFacts})
    offer(monkeypatch, "encoders", {"fussy": Fussy})
    bench = Bench(domain, tmp_path)
    assert "facts that went through JSON" in caught("E19", lambda: bench.check_encoder("fussy"))


@pytest.mark.parametrize("fault", ["nan", "raises", "constant"])
def test_encoders_that_do_not_learn(domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    class Untaught(StripViT):
        def forward(self, tokens: Tokens, hidden: Tensor | None = None, layers: int = 0) -> Encoded:
            out = super().forward(tokens, hidden, layers)
            if fault == "raises" and self.training:
                raise RuntimeError("only in training")
            instances = out.instances / 0 if fault == "nan" else torch.randn_like(out.instances)
            return replace(out, instances=instances)

    offer(monkeypatch, "encoders", {"untaught": Untaught})
    bench = Bench(domain, tmp_path)
    message = caught("P4", lambda: bench.check_method("untaught", "simclr"))
    words = {"nan": "is nan", "raises": "raises RuntimeError: only in training", "constant": "change no weight"}
    assert words[fault] in message
    assert "encoder 'untaught' by method 'simclr'" in message


def test_a_reader_whose_option_is_a_flag_of_training(
    domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither flag could be typed; the kit says so before a user does."""
    usual = plugins.load(domain).readers[next(iter(plugins.load(domain).readers))]

    def greedy(source: str, *, facts: Facts | None = None, seed: int = 0) -> Reader:
        made: Reader = usual(source, facts=facts)
        return made

    offer(monkeypatch, "readers", {"greedy": greedy})
    bench = Bench(domain, tmp_path)
    assert "its option seed is one of training too" in caught("P5", lambda: bench.check_reader("greedy"))
    from unlabeled.cli.main import main

    flags = ["--method", "simclr", "--out", str(tmp_path / "run")]
    assert main([domain, "pretrain", str(tmp_path), *flags]) == 2
    assert "an option of the domain is called as a flag of" in capsys.readouterr().err


def test_the_domain_in_the_documents_keeps_every_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first code block of docs/plugins.md, installed as its second one says."""
    text = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
    module, points = (text.split(f"```{kind}\n")[1].split("```")[0] for kind in ("python", "toml"))
    (tmp_path / "unlabeled_waves.py").write_text(module)
    info = tmp_path / "waves-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: waves\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points.replace("project.entry-points.", "").replace('"', ""))
    monkeypatch.syspath_prepend(tmp_path)
    plugins.load.cache_clear()
    check_plugin("waves", tmp_path)


def test_every_promise_has_a_mutant_that_breaks_it() -> None:
    """A promise that no mutant breaks may be no promise at all."""
    by_themselves = {"E14", "P1", "P2", "P3", "P4", "P5"}
    assert set(PROMISES) == {code for code, _, _ in (*ENCODERS, *READERS, *VIEWS)} | by_themselves
