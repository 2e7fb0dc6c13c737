"""Formats that `unlabeled.load` reads: the encoder's own files, and a folder for the Hugging Face hub."""

from __future__ import annotations

import shutil
from pathlib import Path

from unlabeled.exporting.card import card
from unlabeled.exporting.job import Job, Written, portable, write_json
from unlabeled.files import write_text, write_whole
from unlabeled.saved import HUB, HUB_FORM, OWN
from unlabeled.seen import FILE

LOAD = 'import unlabeled\n\nencoder = unlabeled.load("{out}")'


def write_safetensors(job: Job, folder: Path) -> Written:
    """Weights, description, and the hashes that tell `evaluate` which samples the encoder knows."""
    job.encoder.eval()  # loads it: what does not load is not handed on
    seen = job.files[0].with_name(FILE)
    for path, name in zip((*job.files, seen), (*OWN, FILE), strict=True):
        if path.exists():
            _copy(path, folder / name)
    return Written(LOAD)


def write_hub_folder(job: Job, folder: Path) -> Written:
    """config.json, model.safetensors and a model card, without a path of this machine or a sample's name."""
    job.encoder.eval()  # loads it: what does not load is not handed on
    description, weights = HUB_FORM
    _copy(job.files[1], folder / weights)
    write_json(folder / description, portable(job.description))
    write_text(folder / "README.md", card(job))
    return Written(LOAD.replace("{out}", HUB + job.push) if job.push else LOAD)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        write_whole(target, lambda out: shutil.copyfileobj(file, out))
