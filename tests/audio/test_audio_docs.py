"""What docs/audio.md says to type is typed here, on small encoders; and it names all that there is."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from unlabeled import plugins
from unlabeled.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "audio.md").read_text()
SMALL = {"pretrain": "--steps 2 --batch-size 6 --encoder.width 16 --encoder.channels 4", "evaluate": "--seeds 1"}


def test_the_commands_of_the_page_run(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(example, tmp_path / "clips")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line)[1:] for line in block.splitlines()]
    assert [line[1] for line in lines] == ["inspect", "pretrain", "evaluate", "evaluate", "embed", "embed-frames"]
    for line in lines:
        if line[1] == "evaluate":  # evaluations do not pass over what is broken
            (tmp_path / "clips" / "broken_header.wav").unlink(missing_ok=True)
        assert main([*line, *SMALL.get(line[1], "").split()]) == 0, line
    assert (tmp_path / "sheet.png").exists()
    assert (tmp_path / "clips.npz").exists()
    assert "tested on each of 12 groups in turn" in capsys.readouterr().out


def test_the_page_names_every_view_encoder_and_method_of_the_domain() -> None:
    registry = plugins.load("audio")
    own = [name for name in registry.methods if name not in plugins.core().methods]
    for name in (*registry.views, *registry.encoders, *own, *(set(registry.targets) - set(plugins.core().targets))):
        assert f"`{name}`" in PAGE
