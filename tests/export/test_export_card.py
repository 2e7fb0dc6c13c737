"""The model card: what it says, and what never leaves this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import unlabeled
from unlabeled import plugins
from unlabeled.evaluation.results import Result, Row
from unlabeled.exporting.job import base_names, is_place, placeless
from unlabeled.saved import describe

ROOT = Path(__file__).parents[2]


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
    assert "| samples trained on | 64 |" in text
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


def test_a_card_says_which_warning_it_was(run: Path) -> None:
    """Names in common and content in common are different faults of a split; neither shows a sample's name."""
    for sentence, said in (
        ("have the names of samples of d.csv that are fitted on (say Ann): bad", "have the names of samples that are"),
        ("are the same as samples that are fitted on (say Ann and Eve): bad", "are the same as samples that are"),
    ):
        result(run, warnings=(f"3 of 10 test samples {sentence}",))
        unlabeled.export(run, to="huggingface", out="card", overwrite=True)
        text = Path("card/README.md").read_text()
        assert f"3 of 10 test samples {said} fitted on." in text
        assert "Ann" not in text
