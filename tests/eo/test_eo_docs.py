"""What docs/eo.md says to type is typed here, on small encoders; and it names all that there is."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from unlabeled import plugins
from unlabeled.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "eo.md").read_text()
SMALL = {"pretrain": "--steps 2 --batch-size 4 --view.crop 32", "evaluate": "--seeds 1"}


def test_the_commands_of_the_page_run(
    scenes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(scenes, tmp_path / "scenes")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line)[1:] for line in block.splitlines()]
    assert [line[1] for line in lines] == ["inspect", "leakage", "pretrain", "evaluate", "embed"]
    for line in lines:
        if line[1] == "evaluate":  # evaluations do not pass over what is broken
            (tmp_path / "scenes" / "ship" / "broken_half.tif").unlink(missing_ok=True)
        assert main([*line, *SMALL.get(line[1], "").split()]) == 0, line
    assert (tmp_path / "sheet.png").exists()
    assert (tmp_path / "scenes.npz").exists()
    said = capsys.readouterr().out
    assert "broken_half.tif" in said
    assert "border" in said


def test_the_page_names_every_view_encoder_mask_target_and_method_of_the_domain() -> None:
    registry = plugins.load("eo")
    core = plugins.core()
    own = [name for name in registry.methods if name not in core.methods]
    own += [*(set(registry.targets) - set(core.targets)), *(set(registry.masks) - set(core.masks))]
    for name in (*registry.views, *registry.encoders, *own):
        assert f"`{name}`" in PAGE
