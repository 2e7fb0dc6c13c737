"""The hub, which is not there: a stand-in takes its place."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import unlabeled
from unlabeled.cli.main import main
from unlabeled.errors import UserError
from unlabeled.exporting.export import FORMATS
from unlabeled.saved import describe


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
