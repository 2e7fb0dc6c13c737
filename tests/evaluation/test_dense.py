"""Labels of places: chips with masks, volumes with segmentations, sounds with events; all by one protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unlabeled
from unlabeled.cli.main import main
from unlabeled.errors import UserError
from unlabeled.evaluation.dense import MOST, Places, _judged, _places, dense
from unlabeled.evaluation.metrics import of_places, points
from unlabeled.evaluation.results import Result
from unlabeled.evaluation.tasks import Task
from unlabeled.saved import describe

SIDE, PATCH, COUNT = 24, 4, 20


def chips(folder: Path) -> tuple[str, str]:
    """Noise, brighter where the mask says 1; the mask's border is not labelled; one chip has no mask."""
    from PIL import Image

    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(COUNT):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        row, column = random.integers(0, SIDE - 8, 2)
        mask[row : row + 8, column : column + 8] = 1
        image = random.normal(90, 20, mask.shape) + 60 * mask
        mask[0] = 255
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{number % 4}_{number:02}.png")
        if number:
            Image.fromarray(mask).save(folder / "masks" / f"{number % 4}_{number:02}.png")
    return str(folder / "images"), str(folder / "masks")


def sounds(folder: Path) -> tuple[str, str]:
    """Noise with a tone in some part, of one pitch or another; one file is not in the table."""
    import soundfile

    random, lines = np.random.default_rng(0), ["filename\tonset\toffset\tevent_label"]
    (folder / "clips").mkdir()
    for number in range(COUNT):
        length = 8000 + 400 * number
        wave, time = random.normal(0, 0.01, length), np.arange(length) / 8000
        start, name = 0.1 + 0.02 * number, ("high", "low")[number % 2]
        tone = (time >= start) & (time < start + 0.4)
        wave += 0.5 * tone * np.sin(2 * np.pi * (2000 if number % 2 == 0 else 300) * time)
        soundfile.write(folder / "clips" / f"{number:02}.wav", wave, 8000)
        if number:
            lines.append(f"{number:02}.wav\t{start}\t{start + 0.4}\t{name}")
    (folder / "events.tsv").write_text("\n".join(lines) + "\n")
    return str(folder / "clips"), str(folder / "events.tsv")


def volumes(folder: Path) -> tuple[str, str]:
    """Noise, brighter in a box that the segmentation names; uneven sides."""
    import nibabel

    random = np.random.default_rng(0)
    for name in ("scans", "truth"):
        (folder / name).mkdir()
    for number in range(12):
        shape = (16, 20 + number % 3, 18)
        classes = np.zeros(shape, np.uint8)
        a, b, c = random.integers(0, 8, 3)
        classes[a : a + 8, b : b + 8, c : c + 8] = 1
        image = random.normal(100, 10, shape) + 60.0 * classes
        for name, values in (("scans", image.astype(np.float32)), ("truth", classes)):
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / name / f"{number:02}.nii.gz")  # type: ignore[no-untyped-call]
    return str(folder / "scans"), str(folder / "truth")


OPTIONS: dict[str, dict[str, Any]] = {
    "eo": {
        "encoder": {"name": "vit", "patch": PATCH, "width": 32, "depth": 1},
        "view": {"name": "optical", "crop": SIDE},
    },
    "audio": {"encoder": {"name": "frame_vit", "width": 16, "depth": 1}, "reader": {"sample_rate": 8000}},
    "medical": {"encoder": {"name": "vit", "patch": 4, "width": 24, "depth": 1}, "view": {"crop": 16}},
}
MADE = {"eo": chips, "audio": sounds, "medical": volumes}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    found: dict[str, tuple[Path, str, str]] = {}

    def of(domain: str) -> tuple[Path, str, str]:
        if domain not in found:
            folder = tmp_path_factory.mktemp(domain)
            data, label = MADE[domain](folder)
            options = dict(OPTIONS[domain])
            if domain == "medical":
                options["reader"] = {"cache": str(folder / "cache")}
            unlabeled.pretrain(domain, data, "mae", out=folder / "run", steps=3, batch_size=4, quiet=True, **options)
            found[domain] = folder / "run", data, label
        return found[domain]

    return of


@pytest.mark.parametrize(("domain", "least"), [("eo", 0.6), ("audio", 0.6), ("medical", 0.6)])
def test_raw_tokens_tell_what_is_bright_or_loud(domain: str, least: float, cases: Any) -> None:
    run, data, label = cases(domain)
    result = dense([run], data, label=label, seeds=2)
    assert {row.features for row in result.rows} == {"trained (mae)", "untrained", "raw"}
    raw = result.value("raw", "linear tokens", "iou")
    assert raw.mean > least
    assert raw.interval is not None
    assert raw.interval[0] <= raw.mean <= raw.interval[1]
    assert result.majority is not None
    assert 0.3 < result.majority < 0.95
    assert result.value("raw", "linear tokens", "accuracy").mean > result.majority
    assert result.train_rows + result.test_rows == (COUNT - 1 if domain != "medical" else 12), "of those with labels"
    assert result.protocol == "dense"


def test_tokens_have_the_class_of_their_middle(cases: Any) -> None:
    """Read again by hand: which patches, in which order, of which class; those that nobody labelled are left out."""
    from PIL import Image

    run, data, label = cases("eo")
    saved = describe(run)
    reader = saved.make_reader(data)
    found = _places(None, saved, reader, label, torch.device("cpu"))
    mean, std = saved.facts["mean"][0], saved.facts["std"][0]
    values, names, samples = [], [], []
    for index, path in enumerate(sorted(Path(data).iterdir())):
        image = (np.array(Image.open(path), np.float32) - mean) / std
        if not (Path(label) / path.name).exists():
            continue
        mask = np.array(Image.open(Path(label) / path.name))
        for row in range(0, SIDE, PATCH):
            for column in range(0, SIDE, PATCH):
                name = mask[row + PATCH // 2, column + PATCH // 2]
                if name != 255:
                    values.append(image[row : row + PATCH, column : column + PATCH].ravel())
                    names.append(str(name))
                    samples.append(index)
    assert found.names.tolist() == names
    assert found.samples.tolist() == samples
    np.testing.assert_allclose(found.values, values, atol=1e-5)


def test_moments_have_the_class_of_their_time(cases: Any) -> None:
    run, data, label = cases("audio")
    reader = describe(run).make_reader(data)
    assert reader.labels_at(label, 0, np.empty((0, 1))) is None, "the file that the table does not have"
    seconds = (8000 + 400 * 3) / 8000
    told = reader.labels_at(label, 3, np.array([0.1, 0.17, 0.3, 0.55, 0.57, 1.0])[:, None] / seconds)
    assert told is not None
    assert told.tolist() == ["none", "low", "low", "low", "none", "none"]


def test_metrics_are_their_formulas() -> None:
    random = np.random.default_rng(0)
    truth, guess, owner = random.integers(0, 4, 300), random.integers(0, 5, 300), random.integers(0, 6, 300)
    truth[truth == 3] = 0  # class 3 is said and never there, class 4 too
    found = of_places(truth, guess, owner, 6, 6)
    iou, f1 = [], []
    for name in range(6):
        is_it, said = truth == name, guess == name
        if (is_it | said).any():
            iou.append((is_it & said).sum() / (is_it | said).sum())
            f1.append(2 * (is_it & said).sum() / (is_it.sum() + said.sum()))
    assert len(iou) == 5
    plain = {"iou": np.mean(iou), "f1": np.mean(f1), "accuracy": (truth == guess).mean()}
    assert points(found, 6) == pytest.approx(plain)
    weights = np.array([[0.0, 2.0, 1.0, 0.0, 3.0, 1.0]])
    again = np.repeat(np.arange(300), weights[0].astype(int)[owner])
    other = of_places(truth[again], guess[again], np.zeros(len(again), int), 6, 1)
    for name, metric in found.items():
        assert metric(weights)[0] == pytest.approx(points(other, 1)[name])


def test_samples_are_never_on_both_sides(cases: Any) -> None:
    """Features that are the number of their sample tell nothing of another sample's places."""
    truth = np.repeat(np.arange(10) % 2, 50).astype(str)
    samples = np.repeat(np.arange(10), 50)
    hot = np.eye(10, dtype=np.float32)[samples]
    places = Places(hot, truth, samples)
    rows = np.arange(10)
    task = Task(0, None, None, rows[:8], rows[8:], rows[:8], rows[8:], ())  # type: ignore[arg-type]
    found = points(_judged(lambda reader: places, task, np.array(["0", "1"])), 2)
    assert found["accuracy"] == 0.5, "all of the two samples are said to be of one class"
    assert MOST < 10**6


def test_the_command_prints_and_keeps_it(cases: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run, data, label = cases("eo")
    line = ["eo", "evaluate", str(run), data, "--label", label, "--protocol", "dense", "--seeds", "1"]
    assert main([*line, "--groups", "{group}_*"]) == 0
    out = capsys.readouterr().out
    assert "tested on each of 4 groups in turn" in out
    assert "linear tokens iou" in out
    assert "always the commonest class" in out
    (kept,) = (run / "results").glob("dense-*.json")
    assert Result.of(json.loads(kept.read_text())).protocol == "dense"


def test_what_is_wrong_is_said(cases: Any, tmp_path: Path) -> None:
    run, data, _ = cases("audio")
    for text, sentence in (
        ("file,start,end\na.wav,0,1\n", "has no column 'label' but file, start, end"),
        ("file,start,end,label\n01.wav,0,soon,x\n", "line 2 of .* has a time that is no number"),
        ("file,start,end,label\nother.wav,0,1,x\n", "no sample has labels of places in"),
        ("file,start,end,label\n01.wav,,,\n02.wav,,,\n03.wav,,,\n", "all places are of one class"),
    ):
        (tmp_path / "e.csv").write_text(text)
        with pytest.raises(UserError, match=sentence):
            dense([run], data, label=str(tmp_path / "e.csv"), seeds=1)
    with pytest.raises(UserError, match="no table of events"):
        dense([run], data, label="nowhere.csv", seeds=1)
    table = tmp_path / "t.csv"
    table.write_text("a,b\n" + "\n".join(f"{n},{n % 3}" for n in range(40)))
    unlabeled.pretrain("tabular", table, "mae", out=tmp_path / "run", steps=1, quiet=True)
    with pytest.raises(UserError, match="this reader has no labels of places, so none called 'b'"):
        dense([tmp_path / "run"], str(table), label="b", seeds=1)
