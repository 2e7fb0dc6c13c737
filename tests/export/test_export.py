"""`export` as one types it: formats read again, folders whole or not there, nothing of this machine in them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml

import unlabeled
from unlabeled import plugins
from unlabeled.cli.main import main
from unlabeled.embedding import embed, whole_batches
from unlabeled.errors import UserError
from unlabeled.exporting import programs
from unlabeled.exporting.export import FORMATS
from unlabeled.saved import describe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "export.md").read_text()


def instances(run: Path, data: Path, count: int = 6) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A whole batch, and the encoder's numbers of it."""
    saved, encoder = describe(run), unlabeled.load(run)
    reader = saved.make_reader(str(data))
    ((_, batch, _),) = whole_batches(reader, saved.make_view(), saved.registry, torch.arange(count), count)
    with torch.no_grad():
        return dict(batch), encoder(encoder.tokenize(batch)).instances


# --- what is read again


@pytest.mark.parametrize("to", ["safetensors", "huggingface"])
def test_what_load_reads_embeds_the_same(to: str, run: Path, trained: Path) -> None:
    made = unlabeled.export(run, to, "out")
    assert set(made.files) == set(FORMATS[to].files)
    shutil.rmtree(run)  # nothing in the folder needs the run
    names: dict[str, Any] = {}
    exec(made.load, names)
    _, wanted = instances(trained / "run", trained / "people.csv")
    _, got = instances(made.folder, trained / "people.csv")
    assert torch.equal(got, wanted)
    saved, encoder = describe("out"), names["encoder"]
    reader = saved.make_reader(str(trained / "people.csv"))
    assert len(embed(encoder, reader, saved.make_view(), saved.registry).instances) == len(reader)
    assert unlabeled.export("out", to, "twice").files.keys() == made.files.keys()


def test_the_lines_for_torch_run_without_the_encoder(run: Path, trained: Path) -> None:
    made = unlabeled.export(run, "torch", "out")
    batch, wanted = instances(trained / "run", trained / "people.csv")
    names: dict[str, Any] = dict(batch)
    exec(made.load, names)
    torch.testing.assert_close(names["instances"], wanted)
    about = json.loads((made.folder / "inputs.json").read_text())
    assert {one["name"]: (one["dtype"], one["shape"]) for one in about["inputs"]} == {
        name: (str(x.dtype).removeprefix("torch."), ["B", x.shape[1]]) for name, x in batch.items()
    }
    assert about["output"] == {"name": "instances", "dtype": "float32", "shape": ["B", wanted.shape[1]]}
    assert about["facts"] == describe(run).facts
    assert made.difference == about["compared"]["difference"] <= 1e-6


def test_the_lines_for_onnx_run(run: Path, trained: Path) -> None:
    made = unlabeled.export(run, "onnx", "out", data=str(trained / "people.csv"))
    assert set(made.files) == {"encoder.onnx", "inputs.json"}
    batch, wanted = instances(trained / "run", trained / "people.csv")
    names: dict[str, Any] = {name: x.numpy() for name, x in batch.items()}
    exec(made.load, names)
    np.testing.assert_allclose(names["instances"], wanted, atol=1e-5)
    assert json.loads((made.folder / "inputs.json").read_text())["opset"] >= 18
    assert 0 < (made.difference or 0) < 1e-5


def test_a_difference_leaves_no_folder(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check at export is made of the file's own numbers."""
    true = onnxruntime.InferenceSession.run
    monkeypatch.setattr(
        onnxruntime.InferenceSession, "run", lambda self, *given: [true(self, *given)[0] + np.float32(0.01)]
    )
    with pytest.raises(UserError, match=r"'ft_transformer' as onnx differs from the original by 0\.01.*nothing is"):
        unlabeled.export(run, "onnx", "out")
    assert sorted(path.name for path in Path().iterdir()) == ["run"]


def test_what_onnx_cannot_is_refused_and_leaves_no_folder(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: Any, **named: Any) -> None:
        raise RuntimeError("no operator\nfor it")

    monkeypatch.setattr(programs.torch.onnx, "export", fails)
    with pytest.raises(
        UserError, match="'ft_transformer' cannot be exported to ONNX: RuntimeError: no operator for it"
    ):
        unlabeled.export(run, "onnx", "out")
    assert sorted(path.name for path in Path().iterdir()) == ["run"]


# --- what is refused


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"to": "onyx"}, "no format is called 'onyx'; did you mean onnx"),
        ({"to": "torch", "push": "a/b"}, "--push is of --to huggingface, not of torch"),
        ({"to": "huggingface", "private": True}, "say which by --push OWNER/NAME"),
        ({"to": "huggingface", "push": "a"}, "--push takes OWNER/NAME, not 'a'"),
        ({"to": "backbone", "data": "people.csv"}, "--data is of --to onnx and --to torch, not of backbone"),
        ({"to": "backbone"}, "encoder 'ft_transformer', as it was made, is no model of another library"),
        ({"to": "torch", "data": "few.csv"}, "few.csv has 2 samples that can be read, and 4 are compared; give more"),
        ({"to": "torch", "data": "none.csv"}, "none.csv"),
        ({"out": "file"}, "--out file is a file"),
        ({"out": "full"}, "--out full is not empty; choose another, or add --overwrite"),
        ({"out": "full", "overwrite": True}, "--overwrite replaces exports alone, and full holds mine.txt"),
        ({"out": "run", "overwrite": True}, "--out run holds the encoder that is exported"),
        ({"out": "run/encoder", "overwrite": True}, "--out run/encoder holds the encoder that is exported"),
        ({"out": "."}, "--out . is no folder that can be made"),
        ({"run": "nowhere"}, "nowhere does not exist"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_a_sentence(
    options: dict[str, Any], sentence: str, run: Path, trained: Path
) -> None:
    lines = (trained / "people.csv").read_text().splitlines(keepends=True)
    Path("few.csv").write_text("".join(lines[:3]))
    Path("file").write_text("")
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=re.escape(sentence)):
        unlabeled.export(**{"run": "run", "to": "safetensors", "out": "out", **options})
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert not Path("out").exists()


def test_an_earlier_export_is_replaced_when_asked(run: Path) -> None:
    unlabeled.export(run, "huggingface", "out")
    made = unlabeled.export(run, "safetensors", "out", overwrite=True)
    assert {path.name for path in made.folder.iterdir()} == set(FORMATS["safetensors"].files)
    assert sorted(path.name for path in Path().iterdir()) == ["out", "run"]


def test_a_damaged_encoder_is_not_handed_on(run: Path) -> None:
    weights = run / "encoder" / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    for to in FORMATS:
        with pytest.raises(UserError, match="is damaged"):
            unlabeled.export(run, to, "out")
    assert not Path("out").exists()


def test_without_the_runs_data_samples_are_asked_for(run: Path, trained: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "data": "/gone.csv"}))
    with pytest.raises(UserError, match=r"the run's own data cannot be read .*give samples to compare with by --data"):
        unlabeled.export(run, "torch", "out")
    with pytest.raises(UserError, match="does not say what it was trained on; give samples"):
        unlabeled.export(unlabeled.export(run, "safetensors", "alone").folder, "torch", "out")
    assert unlabeled.export("alone", "torch", "out", data=str(trained / "people.csv")).difference is not None


# --- the command and its page


def test_the_command_says_what_it_wrote_and_how_to_load_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tabular", "export", "run", "--to", "torch", "--out", "out"]) == 0
    said = capsys.readouterr()
    assert re.search(r"^out: encoder\.pt2 \([\d.]+ MB\), inputs\.json \([\d.]+ kB\)$", said.out, re.MULTILINE)
    assert "inputs: numbers float32 [B, 4], missing bool [B, 4], codes int64 [B, 3]\n" in said.out
    assert re.search(r"largest difference from the original \S+ of up to \S+, on batches of 3 and 1", said.out)
    assert '    encoder = torch.export.load("out/encoder.pt2").module()\n' in said.out
    assert said.err == ""
    assert main(["audio", "export", "run", "--to", "torch", "--out", "other"]) == 2
    assert "holds an encoder of domain 'tabular'" in capsys.readouterr().err
    assert main(["tabular", "export", "run", "--out", "other"]) == 2
    assert (
        "say by --to what to write; there are: backbone, huggingface, onnx, safetensors, torch"
        in capsys.readouterr().err
    )


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_on_exporting_runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("people.csv", "new.csv"):
        shutil.copy(trained / "people.csv", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) == 6
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, line
    (block,) = blocks("python")
    exec(block, {})


def test_the_page_has_every_format_and_file() -> None:
    for name, form in FORMATS.items():
        row = re.search(rf"^\| `{name}` \|(.*)$", PAGE, re.MULTILINE)
        assert row, name
        left = {"README.md", "encoder.onnx.data"}  # the card, and what only encoders beyond 2 GB have
        assert [file for file in form.files if file not in left and f"`{file}`" not in row[1]] == []


def test_the_page_says_which_encoders_become_what() -> None:
    rows = dict(re.findall(r"^\| (\w+) \| ((?:all|none).*) \|$", PAGE, re.MULTILINE))
    for domain in {"tabular", "graph", "medical", "audio", "eo"}:
        registry = plugins.load(domain)
        assert set(re.findall(r"`(\w+)`", rows[domain])) <= set(registry.encoders)
