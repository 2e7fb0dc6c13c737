"""A plugin that was written for an older core, in tests/frozen/, keeps its promises, trains and is evaluated."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unlabeled
from unlabeled import layers, plugins
from unlabeled.cli.main import main
from unlabeled.deprecation import renamed
from unlabeled.testing import check_plugin

FROZEN = Path(__file__).parent / "frozen"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The domain `old`, as pip leaves it."""
    info = tmp_path / "path" / "unlabeled_old-0.1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(FROZEN / "unlabeled_old.py", info.parent)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: unlabeled-old\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[unlabeled]\nold = unlabeled_old\n")
    monkeypatch.syspath_prepend(info.parent)
    plugins.load.cache_clear()
    yield "old"
    plugins.load.cache_clear()
    sys.modules.pop("unlabeled_old", None)


def test_every_promise_and_every_method(old: str, tmp_path: Path) -> None:
    check_plugin(old, tmp_path)


def test_from_data_to_an_evaluation(old: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = plugins.load(old).examples(tmp_path)[0]
    run = tmp_path / "run"
    assert main([old, "pretrain", data, "--method", "fill", "--steps", "4", "--out", str(run)]) == 0
    assert "share: 0.5" in (run / "config.yaml").read_text(), "the recipe"
    assert len((run / "quarantine.jsonl").read_text().splitlines()) == 1
    assert unlabeled.load(run).width == 32
    Path(data, "wave-broken.npy").unlink()
    capsys.readouterr()
    assert main([old, "evaluate", str(run), data, "--label", "kind", "--seeds", "1"]) == 0
    assert "untrained" in capsys.readouterr().out
    assert main([old, "count", data]) == 0
    assert capsys.readouterr().out == "16\n"


def test_a_name_that_was_renamed_still_serves_it(old: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a later version would: the function has another name, and the module one line for the old one."""
    monkeypatch.setattr(layers, "mean_of_kept", layers.mean_of, raising=False)
    monkeypatch.delattr(layers, "mean_of")
    monkeypatch.setattr(layers, "__getattr__", renamed(layers.__name__, "0.2", mean_of="mean_of_kept"), raising=False)
    with pytest.warns(DeprecationWarning, match=r"goes in 0\.4: use unlabeled\.layers\.mean_of_kept") as caught:
        registry = plugins.load(old)
    assert {Path(one.filename).name for one in caught} == {"unlabeled_old.py"}
    data = registry.examples(tmp_path)[0]
    unlabeled.pretrain(old, data, "mae", out=tmp_path / "run", steps=2, quiet=True)
    assert unlabeled.load(tmp_path / "run").width == 32
