"""`export` as one types it: formats read again, folders whole or not there, nothing of this machine in them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
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
from unlabeled.evaluation.results import Result, Row
from unlabeled.exporting import programs
from unlabeled.exporting.export import FORMATS
from unlabeled.exporting.job import base_names, is_place, placeless
from unlabeled.saved import describe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "export.md").read_text()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with people.csv and a run on it."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(plugins.load("tabular").examples(folder / "example")[0], folder / "people.csv")
    unlabeled.pretrain("tabular", str(folder / "people.csv"), "simclr", out=folder / "run", steps=2, quiet=True)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that run, beside which one may write."""
    shutil.copytree(trained / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def result(folder: Path, **changes: Any) -> None:
    """An evaluation in a run's folder, as `evaluate` leaves it."""
    rows = (
        Row("trained (simclr)", "linear", "accuracy", (0.9, 0.92), interval=(0.85, 0.95), n=40),
        Row("untrained encoder", "linear", "accuracy", (0.7, 0.72), n=40),
    )
    known: dict[str, Any] = {
        "train": "/data/secret place/people.csv",
        "test": None,
        "label": "churned",
        "seeds": 2,
        "majority": 0.6,
        "train_rows": 40,
        "test_rows": 10,
        "split": "random fifth held out, seeds 0, 1",
        "warnings": (
            "3 of 10 test samples were among those that /data/run was pre-trained on, by name (say Ann): bad",
        ),
    }
    (folder / "results").mkdir(exist_ok=True)
    Result(rows, **{**known, **changes}).save(folder / "results" / "linear-churned-0123.json")


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


# --- the model card


def parts(card: str) -> tuple[dict[str, Any], str]:
    """Front matter and text."""
    _, front, text = card.split("---\n", 2)
    return yaml.safe_load(front), text


def test_a_card_says_data_method_and_results(run: Path) -> None:
    result(run)
    unlabeled.export(run, "huggingface", "out")
    front, text = parts(Path("out/README.md").read_text())
    assert front["library_name"] == "unlabeled"
    assert front["tags"] == ["unlabeled", "self-supervised-learning", "tabular", "simclr"]
    assert "# ft_transformer of domain tabular by simclr, on people.csv" in text
    assert "| samples trained on | 58 |" in text
    assert "| steps | 2 |" in text
    assert "### probe of churned" in text
    assert "random fifth held out, seeds 0, 1; 40 rows to fit on and 10 to test on; data people.csv" in text
    assert "| trained (simclr) | linear | 100% (40) | accuracy | 0.9100 ± 0.0141 | 0.8500 … 0.9500 |" in text
    assert "| untrained encoder | linear | 100% (40) | accuracy | 0.7100 ± 0.0141 |  |" in text
    assert "3 of 10 test samples were among those that the encoder was pre-trained on." in text
    assert "Not evaluated yet" not in text
    assert "Ann" not in text
    block = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]
    exec(block.replace("PATH/TO/THIS/FOLDER", "out"), {})
    assert len(block.splitlines()) == 2


def test_a_card_without_results_says_so_and_one_with_broken_ones_names_them(run: Path) -> None:
    unlabeled.export(run, "huggingface", "out")
    assert parts(Path("out/README.md").read_text())[1].rstrip().endswith("Not evaluated yet.")
    result(run, warnings=("2 classes of 'churned' have one row only (say 'Bob')",))
    (run / "results" / "broken.json").write_text('{"rows": 3')
    unlabeled.export(run, "huggingface", "out", overwrite=True)
    text = Path("out/README.md").read_text()
    assert "broken.json cannot be read, and is left out." in text
    assert "`evaluate` warns of this split." in text
    assert "Bob" not in text


@pytest.mark.parametrize(("domain", "reader"), [("medical", {"cache": "cache"}), ("audio", {})])
def test_nothing_of_this_machine_and_no_sample_is_published(
    domain: str, reader: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of readers of files, one of them with a path among its options."""
    monkeypatch.chdir(tmp_path)
    options = {name: str(tmp_path / value) for name, value in reader.items()}
    source = plugins.load(domain).examples(tmp_path / "example")[0]
    encoder = {"name": "vit", "depth": 1}
    common: dict[str, Any] = {"reader": options, "encoder": encoder, "quiet": True}
    unlabeled.pretrain(domain, source, "simclr", out="run", steps=2, batch_size=4, max_broken=0.5, **common)
    result(Path("run"))
    saved = describe("run")
    opened = saved.make_reader(source)
    names = {opened.name(index) for index in range(len(opened))}
    for to in ("huggingface", "torch"):
        unlabeled.export("run", to, to)
        texts = {path: path.read_bytes() for path in Path(to).iterdir()}
        assert min(map(len, names)) > 5
        for hidden in (str(tmp_path), "secret", str(ROOT), *names):
            assert [(str(path), hidden) for path, text in texts.items() if hidden.encode() in text] == []
    assert describe("huggingface").reader.options.keys() == saved.reader.options.keys() - reader.keys()
    assert unlabeled.load("huggingface").width == unlabeled.load("run").width


def test_paths_are_told_from_other_text() -> None:
    assert [is_place(one) for one in ("/a/b", "~/a", r"C:\a", r"\\host\a", "a/b", "", None, 3)] == [True] * 4 + [
        False
    ] * 4
    assert placeless("of /home/me/a.csv, and ~/b/c.csv; not 3/4 or https://host/x") == (
        "of a.csv, and c.csv; not 3/4 or https://host/x"
    )
    assert base_names("/data/a.csv,b/c.csv, d") == "a.csv, c.csv, d"


# --- the hub, which is not there


class Hub:
    """What of huggingface_hub is used."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.refuses = False

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> str:
        if self.refuses:
            raise RuntimeError("401 Unauthorized\nlog in")
        assert exist_ok
        self.private.setdefault(name, private)
        return f"https://huggingface.co/{name}"

    def repo_info(self, name: str) -> Any:
        return SimpleNamespace(private=self.private[name])

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        self.repositories[repo_id] = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}

    def snapshot(self, name: str, *, allow_patterns: list[str]) -> str:
        folder = Path("snapshot")
        folder.mkdir(exist_ok=True)
        for file in allow_patterns:
            (folder / file).write_bytes(self.repositories[name][file])
        return str(folder)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub()
    module = SimpleNamespace(HfApi=lambda: made, snapshot_download=made.snapshot)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return made


def test_a_folder_is_pushed_and_loaded_from_the_hub(run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["tabular", "export", "run", "--to", "huggingface", "--out", "out", "--push", "me/people", "--private"]
    assert main(line) == 0
    said = capsys.readouterr().out
    assert "uploaded to https://huggingface.co/me/people" in said
    assert hub.private == {"me/people": True}
    assert set(hub.repositories["me/people"]) == set(FORMATS["huggingface"].files)
    assert 'unlabeled.load("hf:me/people")' in hub.repositories["me/people"]["README.md"].decode()
    names: dict[str, Any] = {}
    exec(re.sub("^    ", "", said.split("it is loaded by\n")[1], flags=re.MULTILINE), names)
    assert torch.equal(names["encoder"].cells.column, unlabeled.load(run).cells.column)  # type: ignore[union-attr]


def test_a_public_repository_never_gets_what_is_private(run: Path, hub: Hub) -> None:
    hub.private["me/people"] = False
    with pytest.raises(UserError, match="out is written and not uploaded: me/people is there already, and public"):
        unlabeled.export(run, "huggingface", "out", push="me/people", private=True)
    assert hub.repositories == {}


def test_a_refusal_of_the_hub_leaves_the_folder(run: Path, hub: Hub) -> None:
    hub.refuses = True
    with pytest.raises(UserError, match=r"out is written, and the hub did not take it .*401 Unauthorized log in.*auth"):
        unlabeled.export(run, "huggingface", "out", push="me/people")
    assert unlabeled.load("out").width == 64
    with pytest.raises(UserError, match="hf:me/people could not be had"):
        unlabeled.load("hf:me/people")


@pytest.mark.parametrize("package", ["huggingface_hub", "onnxruntime", "onnxscript"])
def test_what_is_not_installed_is_named(package: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    asks: Any = {"to": "huggingface", "push": "me/people"} if package == "huggingface_hub" else {"to": "onnx"}
    with pytest.raises(UserError, match=rf'needs {package}: pip install "unlabeled\[export\]"'):
        unlabeled.export(run, out="out", **asks)
    assert not Path("out").exists()
    if package == "huggingface_hub":
        with pytest.raises(UserError, match="hf:me/people needs huggingface_hub: pip install"):
            unlabeled.load("hf:me/people")


def test_a_strangers_config_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="holds no encoder yet"):
        describe(tmp_path)
    (tmp_path / "config.json").write_text('{"unlabeled": ')
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        describe(tmp_path)


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
