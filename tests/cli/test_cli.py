"""The command line as a person meets it: what it prints, its exit status, and one sentence for every mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from unlabeled import plugins
from unlabeled.cli.domain import pretrain_config
from unlabeled.cli.main import main
from unlabeled.methods import METHODS

PRETRAIN = "tabular pretrain {table} --exclude churned --epochs 1 --batch-size 16 --encoder.width 32 --encoder.depth 1"


@pytest.fixture
def table(tmp_path: Path) -> str:
    return plugins.load("tabular").examples(tmp_path / "example")[0]


Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """Runs a command line in a folder of its own: exit status, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> tuple[int, str, str]:
        status = main(line.split())
        return (status, *capsys.readouterr())

    return run


def test_a_table_from_csv_to_embeddings(table: str, say: Said, tmp_path: Path) -> None:
    status, out, err = say(f"{PRETRAIN.format(table=table)} --method mae --out run")
    assert status == 0, err
    assert "the encoder is in run/encoder" in out
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "config.yaml",
        "facts.json",
        "metrics.jsonl",
        "checkpoints",
        "encoder",
        "report.html",
    }
    for suffix in ("parquet", "csv", "npz", "npy", "zarr"):
        status, out, _ = say(f"tabular embed run {table} -o rows.{suffix}")
        assert status == 0
        assert out.splitlines()[0] == f"64 samples × 32 numbers in rows.{suffix}"
    status, out, _ = say(f"tabular evaluate run {table} --label churned --seeds 2 --json result.json")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["trained", "untrained", "raw"]
    rows = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert all(len(row["values"]) == 2 and 0 <= row["mean"] <= 1 for row in rows)
    status, out, _ = say(f"tabular inspect {table} --exclude churned")
    assert status == 0
    assert "64 of 64 samples tried can be read" in out


def test_embeddings_carry_the_same_numbers_in_every_format(table: str, say: Said, tmp_path: Path) -> None:
    import numpy as np
    import pyarrow.parquet as pq

    say(f"{PRETRAIN.format(table=table)} --method simclr --steps 1 --out run")
    for suffix in ("parquet", "csv", "npz", "npy", "zarr"):
        say(f"tabular embed run {table} -o rows.{suffix}")
    values = np.load(tmp_path / "rows.npy")
    packed = np.load(tmp_path / "rows.npz")
    assert np.array_equal(packed["embeddings"], values)
    frame = pq.read_table(tmp_path / "rows.parquet").to_pydict()
    assert frame["name"] == packed["names"].tolist()
    assert np.array_equal(np.array([frame[f"e{i}"] for i in range(32)], np.float32).T, values)
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert len(lines) == 65
    assert np.allclose(np.array([line.split(",")[-32:] for line in lines[1:]], np.float32), values, rtol=1e-5)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("tabulr pretrain x", "no command or domain is called 'tabulr'; did you mean tabular?"),
        ("tabular train x", "domain 'tabular' has no command 'train'; did you mean pretrain?"),
        ("tabular pretrain {table}", "no method chosen: give --method, or --term; there are: "),
        ("tabular pretrain --method mae", "no data given"),
        ("tabular pretrain {table} --method simcrl", "no method is called 'simcrl'; did you mean simclr"),
        ("tabular pretrain {table} --method mae --encoder ft_tranformer", "did you mean ft_transformer?"),
        ("tabular pretrain {table} --method mae --view scraf", "no view is called 'scraf'; did you mean scarf"),
        ("tabular pretrain {table} --method mae --epoch-s 3", "no flag is called --epoch-s; did you mean --epochs"),
        ("tabular pretrain {table} --method mae --epochs many", "--epochs: "),
        ("tabular pretrain {table} --method mae --epochs 0", "epochs must be at least 1, not 0"),
        ("tabular pretrain {table} --method mae --set random.ratio=7", "ratio is a share of the tokens"),
        ("tabular pretrain {table} --method mae --set ratio", "--set takes part.option=value"),
        ("tabular pretrain {table} --method mae --exclude churnd", "churnd"),
        ("tabular pretrain nowhere.csv --method mae", "nowhere.csv"),
        ("tabular pretrain {table} --method mae --device cuda:99", "no GPU"),
        ("tabular pretrain {table} --method mae --device abacus", "no device is called 'abacus'"),
        ("tabular pretrain --resume --method mae", "--resume goes on with the run in --out; say which"),
        ("tabular pretrain --resume --out nowhere", "nowhere holds no run"),
        ("tabular pretrain {table} --method mae --config no.yaml", "no.yaml does not exist"),
        ("tabular evaluate nowhere {table} --label churned", "nowhere does not exist; give the folder"),
        ("tabular embed nowhere {table} -o x.npy", "nowhere does not exist; give the folder"),
        ("tabular evaluate", "run"),
        ("report", "runs"),
        ("report nowhere", "nowhere holds no run (no config.yaml)"),
        ("report . --no-maps", "no flag is called --no-maps; did you mean --no-map"),
    ],
)
def test_mistakes_are_one_sentence(line: str, sentence: str, table: str, say: Said, tmp_path: Path) -> None:
    if "cuda" in line:
        import torch

        if torch.cuda.is_available():
            line, sentence = "tabular pretrain {table} --method nothing", "no method is called 'nothing'"
    status, out, err = say(line.format(table=table))
    assert status == 2
    assert err.startswith("unlabeled: ")
    assert err.count("\n") == 1, "one line, no traceback, no usage"
    assert sentence in err
    assert "Traceback" not in out
    assert not (tmp_path / "runs").exists(), "a mistake leaves nothing behind"


def test_mistakes_about_a_run_are_one_sentence(table: str, say: Said, tmp_path: Path) -> None:
    say(f"{PRETRAIN.format(table=table)} --method simclr --steps 1 --out run")
    for line, sentence in (
        (f"tabular evaluate run {table} --label churnd", "churned"),
        (f"tabular evaluate run {table} --label age", "trained on 'age', so a probe of it proves nothing"),
        (f"tabular evaluate run {table} --label churned --seeds 0", "--seeds must be at least 1"),
        (f"tabular evaluate run {table} --label churned --test none.csv", "none.csv"),
        (f"tabular evaluate run {table} --label churned --shots 1%,0%", "above 0% and up to 100%, not 0%"),
        (f"tabular evaluate run {table} --label churned --shots 10,many", "rows a class (10), not 'many'"),
        (f"tabular evaluate run {table} --label churned --shots 900", "--shots 900 is more than class "),
        (f"tabular embed run {table} -o rows.doc", "cannot write embeddings as '.doc'"),
        (f"{PRETRAIN.format(table=table)} --method simclr --out run", "already holds a run: add --resume"),
        ("tabular pretrain --resume --out run --method byol", "was made with method 'simclr', not 'byol'"),
        ("tabular pretrain --resume --out run --encoder mlp", "was made with encoder 'ft_transformer', not 'mlp'"),
    ):
        status, _, err = say(line)
        assert (status, err.count("\n")) == (2, 1), err
        assert sentence in err


def test_few_labels_are_lines_of_the_table(table: str, say: Said, tmp_path: Path) -> None:
    say(f"{PRETRAIN.format(table=table)} --method mae --steps 1 --out run")
    status, out, _ = say(f"tabular evaluate run {table} --label churned --seeds 1 --shots 3,50% --json few.json")
    assert status == 0
    rows = json.loads((tmp_path / "few.json").read_text())["rows"]
    assert [(row["shots"], row["n"]) for row in rows if (row["features"], row["probe"]) == ("raw", "knn")] == [
        ("3", 6),
        ("50%", 26),
    ]
    (head, *lines) = out.splitlines()[1:8]
    assert head.split()[:3] == ["features", "labels", "n"]
    assert [line.split()[0] for line in lines] == ["trained", "untrained", "raw"] * 2
    assert [re.split(r"\s{2,}", line)[1:3] for line in lines[1:3]] == [["3", "6"]] * 2
    assert re.fullmatch(r"0\.\d{4} \[0\.\d{3}, [01]\.\d{3}\]", re.split(r"\s{2,}", lines[0])[3]), "with its interval"


def test_a_report_is_one_file(table: str, say: Said, tmp_path: Path) -> None:
    for seed in (0, 1):
        say(f"{PRETRAIN.format(table=table)} --method mae --steps 1 --seed {seed} --out run{seed}")
    (tmp_path / "run0" / "report.html").unlink(missing_ok=True)
    assert say("report run0") == (0, "the report is in run0/report.html\n", "")
    assert "Map of the embedding" in (tmp_path / "run0" / "report.html").read_text()
    assert say("report run0 run1 --no-map -o both.html") == (0, "the report is in both.html\n", "")
    assert "2 runs side by side" in (tmp_path / "both.html").read_text()
    assert say("report run0 run1 --no-map")[1] == "the report is in report.html\n"


def test_debug_shows_the_traceback(say: Said) -> None:
    from unlabeled.errors import UserError

    with pytest.raises(UserError):
        say("tabular train x --debug")


def test_flags_are_the_config_and_the_config_is_flags(table: str, tmp_path: Path) -> None:
    registry = plugins.load("tabular")
    line = (
        f"{table} --exclude churned,city --columns age=category --method byol --set regress.layers=3 --view.share 0.4"
    )
    config, out, resume = pretrain_config(registry, [*line.split(), "--lr", "3e-4", "--encoder.numbers=piecewise"])
    assert (out, resume) == ("runs/tabular-byol-1", False)
    assert config.reader.options["exclude"] == ["churned", "city"]
    assert config.reader.options["columns"] == {"age": "category"}
    assert config.view.options["share"] == 0.4
    assert config.encoder.options["numbers"] == "piecewise"
    assert config.training.lr == 3e-4
    assert config.training.weight_decay == 1e-5, "the domain's recipe, where no flag says otherwise"
    assert config.method.terms[0].options["layers"] == 3
    config.save(tmp_path / "config.yaml")
    again, _, _ = pretrain_config(registry, ["--config", str(tmp_path / "config.yaml")])
    assert again.as_data() == config.as_data()
    changed, _, _ = pretrain_config(registry, ["--config", str(tmp_path / "config.yaml"), "--lr", "1.0"])
    assert changed.training.lr == 1.0
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["method"]["teacher"]["momentum"] == 0.99


@pytest.mark.parametrize("line", ["--help", "tabular --help", "plugins -v", "methods", "doctor", "--version"])
def test_what_people_ask_first(line: str, say: Said) -> None:
    status, out, err = say(line)
    assert (status, err) == (0, "")
    expected = {"methods": METHODS, "plugins -v": ["ft_transformer", "scarf"], "doctor": ["torch", "all is well"]}
    assert all(word in out for word in expected.get(line, ["0.1" if line == "--version" else "pretrain"]))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_shown_whole(method: str, say: Said) -> None:
    _, out, _ = say(f"methods {method}")
    assert METHODS[method].paper in out
    assert METHODS[method].terms[0].name in out


def test_help_lists_every_training_field_with_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import fields

    from unlabeled.config import Training

    with pytest.raises(SystemExit) as left:
        main(["tabular", "pretrain", "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for field in fields(Training):
        assert f"--{field.name.replace('_', '-')}" in text
    assert "--exclude" in text
    assert "--encoder.width" in text


def test_listing_is_quick_and_without_torch() -> None:
    code = "import sys; from unlabeled.cli.main import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    for line in ("--help", "plugins"):
        assert subprocess.run([sys.executable, "-c", code, line], capture_output=True).returncode == 0


def test_the_demo_runs(say: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = dict(plugins.load("tabular").recipes["demo"])
    recipe["training"] = {**recipe["training"], "epochs": 1}
    monkeypatch.setitem(plugins.load("tabular").recipes, "demo", recipe)  # type: ignore[arg-type]
    status, out, _ = say("demo --out kept")
    assert status == 0
    assert "warning" not in out, "what is tested on was never trained on"
    for word in ("pre-train on sklearn:digits/train", "trained (simclr)", "untrained", "raw", "the run is in kept"):
        assert word in out
    assert "always the commonest class" in Path("kept/report.html").read_text(), "the report has the result"
