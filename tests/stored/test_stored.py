"""Embeddings in files: the same in every format, sample by sample, wherever a pass was stopped."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unlabeled
from unlabeled import plugins
from unlabeled.contract import to_device
from unlabeled.embedding import whole_batches
from unlabeled.errors import UserError
from unlabeled.saved import describe
from unlabeled.stored import write as module
from unlabeled.stored.parts import Part
from unlabeled.stored.write import embed_to_file

SUFFIXES = ("parquet", "csv", "npz", "npy", "zarr")
ENCODERS = {
    "audio": {"name": "cnn", "width": 16, "channels": 4},  # padded
    "graph": {"name": "gin", "width": 16},  # flat
    "tabular": {"name": "ft_transformer", "width": 16, "depth": 1, "heads": 2},
}


@dataclass
class Case:
    run: Path
    data: str


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    found = {}
    for domain, encoder in ENCODERS.items():
        folder = tmp_path_factory.mktemp(domain)
        data = plugins.load(domain).examples(folder)[0]
        method = "simclr"
        unlabeled.pretrain(domain, data, method, out=folder / "run", encoder=encoder, steps=1, batch_size=4, quiet=True)
        found[domain] = Case(folder / "run", data)
    return found


def one_by_one(case: Case) -> dict[str, tuple[Any, Any, Any]]:
    """Of every sample that can be read, alone: its instance, its tokens, their places."""
    saved, encoder = describe(case.run), unlabeled.load(case.run)
    reader, found = saved.make_reader(case.data), {}
    for numbers, batch, _ in whole_batches(reader, saved.make_view(), saved.registry, torch.arange(len(reader)), 1):
        if batch:
            tokens = encoder.tokenize(to_device(batch, torch.device("cpu")))
            with torch.no_grad():
                made = encoder(tokens)
            valid = tokens.valid[0]
            assert made.tokens is not None
            parts = made.instances[0], made.tokens[0][valid], tokens.coords[0][valid]
            found[reader.name(int(numbers))] = tuple(part.numpy() for part in parts)
    return found


def read(path: Path) -> dict[str, Any]:
    """names, embeddings, and of tokens counts and coords, from any format."""
    if path.suffix == ".npy":
        names = [json.loads(line) for line in path.with_suffix(".names.jsonl").read_text().splitlines()]
        return {"names": names, "embeddings": np.load(path)}
    if path.suffix == ".npz":
        with np.load(path) as pack:
            return dict(pack)
    if path.suffix == ".zarr":
        import zarr

        return {name: array[:] for name, array in zarr.open_group(path, mode="r").arrays()}
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        columns: dict[str, Any] = pq.read_table(path).to_pydict()
    else:
        with path.open(newline="") as file:
            head, *lines = csv.reader(file)
        columns = {name: [line[at] for line in lines] for at, name in enumerate(head)}
    found = {
        "embeddings": np.array([columns[name] for name in columns if name[0] == "e"], np.float32).T,
        "coords": np.array([columns[name] for name in columns if name[0] == "c"], np.float32).T,
    }
    if "token" not in columns:
        return {"names": columns["name"], "embeddings": found["embeddings"]}
    first = [at for at, token in enumerate(columns["token"]) if int(token) == 0]
    counts = np.diff([*first, len(columns["token"])])
    return {**found, "names": [columns["name"][at] for at in first], "counts": counts}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("domain", ENCODERS)
def test_instances_are_those_of_each_sample_alone(
    domain: str, suffix: str, cases: dict[str, Case], tmp_path: Path
) -> None:
    case, expected = cases[domain], one_by_one(cases[domain])
    made = embed_to_file(case.run, case.data, tmp_path / f"x.{suffix}", batch_size=5)
    found = read(tmp_path / f"x.{suffix}")
    assert list(found["names"]) == list(expected)
    assert made.size.samples == made.size.rows == len(expected)
    np.testing.assert_allclose(found["embeddings"], [one[0] for one in expected.values()], rtol=1e-4, atol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} <= {f"x.{suffix}", "x.names.jsonl"}, "parts are gone"


@pytest.mark.parametrize("suffix", [one for one in SUFFIXES if one != "npy"])
@pytest.mark.parametrize("domain", ENCODERS)
def test_tokens_are_those_of_each_sample_alone(
    domain: str, suffix: str, cases: dict[str, Case], tmp_path: Path
) -> None:
    """Padded tokens, flat ones of uneven samples, and even ones."""
    case, expected = cases[domain], one_by_one(cases[domain])
    embed_to_file(case.run, case.data, tmp_path / f"x.{suffix}", what="tokens", batch_size=5)
    found = read(tmp_path / f"x.{suffix}")
    assert list(found["names"]) == list(expected)
    assert found["counts"].tolist() == [len(tokens) for _, tokens, _ in expected.values()]
    assert domain == "tabular" or len(set(found["counts"].tolist())) > 1, "uneven"
    ends = np.cumsum(found["counts"])[:-1]
    for tokens, coords, one in zip(
        np.split(found["embeddings"], ends), np.split(found["coords"], ends), expected.values(), strict=True
    ):
        np.testing.assert_allclose(tokens, one[1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(coords, one[2], atol=1e-6)


def test_a_stopped_pass_goes_on(cases: dict[str, Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = cases["graph"]
    monkeypatch.setitem(module.SAMPLES, "instances", 2)
    embed_to_file(case.run, case.data, tmp_path / "whole.npz", batch_size=2)
    saved: list[str] = []
    plain = Part.save

    def stop_at_third(part: Part, path: Path) -> None:
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(path.name)
        plain(part, path)

    with monkeypatch.context() as patch:
        patch.setattr(Part, "save", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            embed_to_file(case.run, case.data, tmp_path / "x.npz", batch_size=2)
    assert not (tmp_path / "x.npz").exists()
    said: list[str] = []
    embed_to_file(case.run, case.data, tmp_path / "x.npz", batch_size=2, say=said.append)
    assert said[0] == "2 of 6 parts are there already; going on"
    assert len(said) == 1 + 4
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert not (tmp_path / "x.npz.parts").exists()


def test_parts_of_something_else_are_refused(
    cases: dict[str, Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases["graph"]
    monkeypatch.setitem(module.SAMPLES, "instances", 2)

    def no(*rest: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Part, "save", no)
        with pytest.raises(KeyboardInterrupt):
            embed_to_file(case.run, case.data, tmp_path / "x.npz", batch_size=2)
    other = tmp_path / "other"
    shutil.copytree(case.run, other)
    text = (other / "encoder" / "encoder.json").read_text()
    (other / "encoder" / "encoder.json").write_text(text.replace('"step": 1', '"step": 2'))
    for run, options, what in (
        (other, {"batch_size": 2}, "encoder"),
        (case.run, {"batch_size": 3}, "batch size, number of parts"),
        (case.run, {"batch_size": 2, "what": "tokens"}, "kind"),
    ):
        with pytest.raises(UserError, match=f"holds parts of an embedding of another {what}"):
            embed_to_file(run, case.data, tmp_path / "x.npz", **options)  # type: ignore[arg-type]
    part = tmp_path / "x.npz.parts" / "part-000001.npz"
    part.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"part-000001\.npz is damaged"):
        embed_to_file(case.run, case.data, tmp_path / "x.npz", batch_size=2)
    part.unlink()
    embed_to_file(case.run, case.data, tmp_path / "x.npz", batch_size=2)


def test_two_processes_write_what_one_does(
    cases: dict[str, Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases["tabular"]
    monkeypatch.setitem(module.SAMPLES, "tokens", 8)
    for name, processes, workers in (("one", 1, 0), ("two", 2, 1)):
        embed_to_file(
            case.run,
            case.data,
            tmp_path / f"{name}.npz",
            what="tokens",
            batch_size=4,
            processes=processes,
            workers=workers,
        )
    one, two = read(tmp_path / "one.npz"), read(tmp_path / "two.npz")
    assert one["names"].tolist() == two["names"].tolist()
    for name in ("embeddings", "counts", "coords"):
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5, atol=1e-6)


def test_broken_samples_are_named(cases: dict[str, Case], tmp_path: Path) -> None:
    case = cases["audio"]
    reader = describe(case.run).make_reader(case.data)
    made = embed_to_file(case.run, case.data, tmp_path / "x.npz", batch_size=3)
    wrong = [reader.name(index) for index in range(len(reader)) if reader.or_none(index) is None]
    assert wrong
    assert [name for name, _ in made.broken] == wrong
    assert made.size.samples == len(reader) - len(wrong)


@pytest.mark.parametrize(
    ("out", "options", "sentence"),
    [
        ("x.doc", {}, "cannot write embeddings as '.doc'"),
        ("x", {}, "a file without suffix"),
        ("x.npy", {"what": "tokens"}, "no room to say which token is whose"),
        ("x.npz", {"what": "layers"}, "no kind of embedding is called 'layers'"),
        ("x.npz", {"processes": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_is_said_at_once(
    out: str, options: Any, sentence: str, cases: dict[str, Case], tmp_path: Path
) -> None:
    case = cases["tabular"]
    with pytest.raises(UserError, match=sentence):
        embed_to_file(case.run, case.data, tmp_path / out, **options)
    assert not list(tmp_path.iterdir())


def test_a_failing_process_is_one_sentence(
    cases: dict[str, Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch raises then, without the processes, which cost seconds."""
    spawn: Any = sys.modules["torch.multiprocessing.spawn"]

    class Failed:
        def join(self, timeout: float) -> bool:
            trace = "-- Process 1 terminated\nTraceback ...\nunlabeled.errors.UserError: x is damaged; write it again\n"
            raise spawn.ProcessRaisedException(trace, 1, 7)

    case = cases["tabular"]
    monkeypatch.setitem(module.SAMPLES, "instances", 4)
    monkeypatch.setattr(spawn, "start_processes", lambda *rest, **more: Failed())
    with pytest.raises(UserError, match=r"^a process failed: x is damaged; write it again$"):
        embed_to_file(case.run, case.data, tmp_path / "x.npz", batch_size=4, processes=2)
