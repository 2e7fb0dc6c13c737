"""What names a patient in a header never leaves the file: not by printing, nor in a cache or a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medical_data import PATIENT, Slices
from unlabeled.cli.main import main

Array = np.ndarray[Any, Any]
WORDS = [part for value in PATIENT.values() for part in value.split("^")]


def check_silent(text: str | bytes, where: str) -> None:
    data = text.encode() if isinstance(text, str) else text
    found = [word for word in WORDS if word.encode() in data or word.encode("utf-16-le") in data]
    assert not found, f"{where} holds {found}"


def test_patients_stay_in_their_files(
    series: Slices,
    voxels: Array,
    cache: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pixels = voxels.transpose(2, 1, 0)
    for number in range(4):
        rolled = np.roll(pixels, number, 1)  # else embeddings are all one, and there is no map
        series(f"data/{'ab'[number % 2]}/{number}", rolled, uid=f"1.2.{number}")
    series("data/missing", pixels[[0, 1, 2, 5]], positions=[(0, 0, at) for at in (0, 1, 2, 5)])
    odd = {"SeriesInstanceUID": "LAMANCHA-1605", "Modality": "Quixote", "ImageType": "Panza"}
    series("data/odd", pixels, **odd)  # values of a wrong kind, which pydicom would quote
    for file in series("data/cut", pixels).iterdir():
        file.write_bytes(file.read_bytes()[:600])  # amid the header
    data, run = str(tmp_path / "data"), tmp_path / "run"
    assert PATIENT["PatientID"].encode() in next((tmp_path / "data" / "a" / "0").iterdir()).read_bytes()
    assert main(["medical", "inspect", data]) == 0
    line = f"medical pretrain {data} --method simclr --encoder resnet3d --encoder.planes 4 --epochs 1 --batch-size 2"
    line += " --max-broken 0.5"
    assert main([*line.split(), "--out", str(run)]) == 0
    assert main(["medical", "embed", str(run), data, "-o", str(run / "embedded.csv")]) == 0
    assert main(["report", str(run), "--label", "folder", "--data", data]) == 0
    page = (run / "report.html").read_text()
    assert page.count("data-picture=") == 5, "slices are on it"
    said = capfd.readouterr()
    assert "slices are missing" in said.out, "broken series are spoken of"
    check_silent(said.out + said.err, "what was printed")
    check_silent(caplog.text, "what was logged")
    files = [path for folder in (run, cache) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        check_silent(path.read_bytes(), str(path))
        check_silent(path.name, "a file's name")


def test_free_text_of_nifti_headers_stays_there(tmp_path: Path, voxels: Array, cache: Path) -> None:
    import nibabel

    from unlabeled_medical.readers import VolumeReader

    image = nibabel.Nifti1Image(voxels, np.eye(4))
    image.header["descrip"] = b"Quixote^Alonso"
    nibabel.save(image, tmp_path / "a.nii")
    reader = VolumeReader(str(tmp_path))
    check_silent(str(reader.summary()) + str(reader.notices) + str(reader.facts), "the reader")
    for path in (path for path in cache.rglob("*") if path.is_file()):
        check_silent(path.read_bytes(), str(path))
