"""What an evaluation says of itself: samples that the encoder knew, where numbers come from, and bad input."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unlabeled.cli.main import main
from unlabeled.contract import Reader
from unlabeled.embedding import Embedded
from unlabeled.errors import UserError
from unlabeled.evaluation import features, provenance
from unlabeled.evaluation.evaluate import evaluate
from unlabeled.evaluation.finetune import Budget, finetune
from unlabeled.evaluation.provenance import commit, config_hash
from unlabeled.saved import describe
from unlabeled.seen import read_ids, sample_ids
from unlabeled.training.pretrain import pretrain

COMMON: dict[str, Any] = {
    "encoder": {"name": "mlp", "width": 16},
    "reader": {"exclude": ["label", "place"]},
    "quiet": True,
}


def write(path: Path, rows: int, seed: int, labels: str = "no yes") -> str:
    lines = ["a,b,label,place"]
    for number, (a, b) in enumerate(np.random.default_rng(seed).normal(size=(rows, 2))):
        lines.append(f"{a:.3f},{b:.3f},{labels.split()[number % len(labels.split())]},{'xyz'[number % 3]}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("caveats")
    write(folder / "train.csv", 80, 0)
    write(folder / "test.csv", 40, 1)
    pretrain("tabular", folder / "train.csv", "mae", out=folder / "run", steps=2, **COMMON)
    return folder


def test_a_run_keeps_hashes_of_the_samples_it_was_trained_on(folder: Path) -> None:
    reader = describe(folder / "run").make_reader(str(folder / "train.csv"))
    ids = read_ids(folder / "run" / "encoder")
    assert len(ids) == 72, "a tenth is held out for health"
    every = sample_ids(reader, str(folder / "train.csv"), range(80))
    assert np.isin(ids, every).all()
    digest = hashlib.blake2b(b"train.csv:1", digest_size=8).digest()
    assert every[0] == int.from_bytes(digest, "little")
    samples = json.loads((folder / "run" / "encoder" / "encoder.json").read_text())["samples"]
    assert samples == {"count": 72, "hash": hashlib.blake2b(np.sort(ids).tobytes(), digest_size=8).hexdigest()}


def test_the_same_samples_under_other_names_are_counted(folder: Path, tmp_path: Path) -> None:
    lines = [(folder / f"{name}.csv").read_text().splitlines() for name in ("train", "test")]
    (tmp_path / "other.csv").write_text("\n".join([*lines[1][:31], *lines[0][5:12]]) + "\n")
    train = str(folder / "train.csv")
    said = "test samples are the same as samples that are fitted on"
    for run in (
        lambda: evaluate([folder / "run"], train, label="label", test=str(tmp_path / "other.csv"), seeds=1),
        lambda: evaluate(
            [folder / "run"], train, label="label", test=str(tmp_path / "other.csv"), seeds=1, baselines=False
        ),
        lambda: finetune(
            [folder / "run"],
            train,
            label="label",
            test=str(tmp_path / "other.csv"),
            seeds=1,
            budget=Budget(epochs=1, lrs=(1e-3,)),
        ),
    ):
        (warning,) = run().warnings
        assert f"7 of 37 {said} (say other.csv:31 and train.csv:5): the numbers are too good by them" == warning
    (tmp_path / "double.csv").write_text("\n".join([*lines[0], lines[0][1][:-1] + "z", lines[0][2][:-1] + "z"]) + "\n")
    each = evaluate([folder / "run"], str(tmp_path / "double.csv"), label="label", groups="place", seeds=1)
    assert any(warning.startswith(f"4 of 82 {said}") for warning in each.warnings), "each of two pairs, both ways"
    clean = evaluate([folder / "run"], train, label="label", groups="place", seeds=1)
    assert not any(said in warning for warning in clean.warnings), "a sample is not its own double"


def test_numbers_are_no_names_beyond_their_data_set(tmp_path: Path) -> None:
    class Numbered(Reader):
        def name(self, index: int) -> str:
            return ("graph " if index > 2 else "") + str(index)

    here, there = (sample_ids(Numbered(), source, range(6)) for source in ("here", "there"))
    assert not np.isin(here, there).any()
    assert (here == sample_ids(Numbered(), "here", range(6))).all()
    assert len(set(here.tolist())) == 6


def test_known_samples_are_counted(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = str(folder / "train.csv"), str(folder / "test.csv")
    clean = evaluate([folder / "run"], train, label="label", test=test, seeds=1)
    assert clean.warnings == ()
    one = evaluate([folder / "run"], train, label="label", seeds=1)
    reader = describe(folder / "run").make_reader(train)
    ids = read_ids(folder / "run" / "encoder")
    from sklearn.model_selection import train_test_split

    rows = train_test_split(np.arange(80), test_size=0.2, random_state=0, stratify=np.arange(80) % 2)[1]
    known = sorted(row for row in rows if sample_ids(reader, train, [row])[0] in ids)
    assert one.warnings == (
        f"{len(known)} of 16 test samples were among those that {folder / 'run'} was pre-trained on, by name (say "
        f"train.csv:{known[0] + 1}): its features know them, though not their labels",
    )
    same = evaluate([folder / "run"], test, label="label", test=test, seeds=1)
    assert len(same.warnings) == 1
    assert same.warnings[0].startswith(f"40 of 40 test samples have the names of samples of {test} that are fitted on")
    assert main(["tabular", "evaluate", str(folder / "run"), train, "--label", "label", "--seeds", "1"]) == 0
    assert capsys.readouterr().err == f"warning: {one.warnings[0]}\n"


def test_runs_without_hashes_are_taken_and_damaged_ones_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pretrain("tabular", folder / "train.csv", "mae", out=out, steps=2, **COMMON)
    file = out / "encoder" / "samples.npy"
    file.write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"samples\.npy is damaged"):
        evaluate([out], str(folder / "train.csv"), label="label", seeds=1)
    file.unlink()
    assert evaluate([out], str(folder / "train.csv"), label="label", seeds=1).warnings == ()
    pretrain("tabular", folder / "train.csv", "mae", out=out, resume=True, steps=2, **COMMON)
    assert len(read_ids(out / "encoder")) == 72, "resuming writes them again"


def test_what_the_first_run_saw_the_second_knows(folder: Path, tmp_path: Path) -> None:
    pretrain("tabular", folder / "test.csv", "mae", out=tmp_path / "run", init=folder / "run", steps=2, **COMMON)
    assert len(read_ids(tmp_path / "run" / "encoder")) == 72 + 40, "the second has too few to hold any out"
    found = evaluate(
        [tmp_path / "run"], str(folder / "test.csv"), test=str(folder / "train.csv"), label="label", seeds=1
    )
    assert found.warnings[0].startswith("72 of 80 test samples were among those")


def test_a_run_that_was_told_the_labels_is_said_to_know_them(folder: Path, tmp_path: Path) -> None:
    out, train = tmp_path / "run", str(folder / "train.csv")
    pretrain("tabular", train, "supcon", out=out, labels="label", steps=2, **COMMON)
    found = evaluate([out], train, test=train, label="label", seeds=1)
    assert found.warnings[0].endswith("its features know them, and their labels too")


def test_a_result_says_where_it_comes_from(folder: Path, tmp_path: Path) -> None:
    train, test = str(folder / "train.csv"), str(folder / "test.csv")
    evaluate([folder / "run"], train, label="label", test=test, seeds=1).save(tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["protocol"], found["split"], found["runs"]) == ("probe", "given test set", [str(folder / "run")])
    assert found["configs"] == [config_hash(folder / "run")] == [config_hash(folder / "run" / "encoder")]
    pretrain("tabular", train, "mae", out=tmp_path / "other", steps=3, **COMMON)
    assert config_hash(tmp_path / "other") != config_hash(folder / "run")
    tuned = finetune(
        [folder / "run"], train, label="label", groups="place", seeds=1, budget=Budget(epochs=1, lrs=(1e-3,))
    )
    assert (tuned.protocol, tuned.split) == ("finetune", "each place left out")
    held = evaluate([folder / "run"], train, label="label", seeds=(3, 4), protocol="knn")
    assert held.split == "random fifth held out, seeds 3, 4"


def test_the_commit_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *who, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(provenance.unlabeled, "__file__", str(package / "__init__.py"))
    assert commit() is None, "no checkout"
    git("init", "-q")
    (tmp_path / "other").write_text("")
    git("add", "other")
    git("commit", "-qm", "other")
    assert commit() is None, "installed in a folder of another project"
    git("add", "package")
    git("commit", "-qm", "one")
    assert commit() == git("rev-parse", "HEAD")
    (package / "__init__.py").write_text("changed")
    assert commit() == git("rev-parse", "HEAD") + "-dirty"


def test_features_that_are_no_numbers_are_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(encoder: Any, reader: Any, *rest: Any, **options: Any) -> Embedded:
        made = torch.ones(len(reader), 4)
        made[[3, 5]] = torch.nan
        return Embedded(torch.arange(len(reader)), made)

    monkeypatch.setattr(features, "embed", broken)
    with pytest.raises(UserError, match=r"encoder 'mlp' are not finite for 2 of 80 samples, the first is train\.csv:4"):
        evaluate([folder / "run"], str(folder / "train.csv"), label="label", seeds=1)


def test_small_classes_are_said_and_split_all_the_same(folder: Path, tmp_path: Path) -> None:
    """A class of one, and more classes than a fifth of the rows has room for."""
    path = tmp_path / "one.csv"
    write(path, 40, 2)
    path.write_text(path.read_text() + "1,1,maybe,x\n")
    found = evaluate([folder / "run"], str(path), label="label", seeds=2)
    assert found.warnings == (
        "1 classes of 'label' have one row only (say 'maybe'): no split can be in proportion to classes",
    )
    many = write(tmp_path / "many.csv", 24, 3, "a b c d e f g h")
    for result in (
        evaluate([folder / "run"], many, label="label", seeds=1),
        finetune([folder / "run"], many, label="label", seeds=1, budget=Budget(epochs=1, lrs=(1e-3, 1e-2))),
    ):
        assert result.test_rows == 5
        assert result.warnings == ()


def test_labels_that_are_not_there_name_the_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = str(folder / "train.csv"), str(folder / "test.csv")
    plain = type(describe(folder / "run").make_reader(train))
    labels = plain.labels

    def some(self: Any, spec: str) -> Any:
        found = labels(self, spec)
        return np.full_like(found, "") if len(self) == 40 else found

    monkeypatch.setattr(plain, "labels", some)
    with pytest.raises(
        UserError, match=r"test data has a label 'label'; rows are called test\.csv:1, test\.csv:2, test"
    ):
        evaluate([folder / "run"], train, test=test, label="label")


def test_one_class_to_fit_on_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="all rows to fit on are of class 'yes' where 'no' is left out"):
        evaluate([folder / "run"], str(folder / "train.csv"), label="label", groups="label", seeds=1)
    two = write(tmp_path / "two.csv", 2, 0)
    with pytest.raises(UserError, match=r"all rows to fit on are of class '(no|yes)' with seed 0"):
        evaluate([folder / "run"], two, label="label", seeds=1)


def test_an_encoder_of_another_domain_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", "evaluate", str(folder / "run"), str(folder / "train.csv"), "--label", "label"]) == 2
    assert "holds an encoder of domain 'tabular': use `unlabeled tabular" in capsys.readouterr().err
