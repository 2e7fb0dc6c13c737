"""A run's encoder in another format: the table of formats, and a folder that is there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from unlabeled.errors import UserError, choose
from unlabeled.exporting.copies import write_hub_folder, write_safetensors
from unlabeled.exporting.hub import check_push, upload
from unlabeled.exporting.job import Job, Written
from unlabeled.exporting.libraries import write_backbone
from unlabeled.exporting.programs import write_onnx, write_program
from unlabeled.files import replace_folder


@dataclass(frozen=True)
class Format:
    """A row of the table: what it is, what writes it into a folder, and the names of all that is written."""

    says: str
    write: Callable[[Job, Path], Written]
    files: tuple[str, ...]


FORMATS: Mapping[str, Format] = {
    "safetensors": Format(
        "the encoder alone, for unlabeled.load",
        write_safetensors,
        ("encoder.safetensors", "encoder.json", "samples.npy"),
    ),
    "huggingface": Format(
        "a folder for the Hugging Face hub, with a model card; for unlabeled.load too",
        write_hub_folder,
        ("model.safetensors", "config.json", "README.md"),
    ),
    "backbone": Format(
        "weights for the library that the backbone is of", write_backbone, ("backbone.safetensors", "backbone.json")
    ),
    "onnx": Format("a program for ONNX runtimes", write_onnx, ("encoder.onnx", "encoder.onnx.data", "inputs.json")),
    "torch": Format("a program for torch alone, by torch.export", write_program, ("encoder.pt2", "inputs.json")),
}


@dataclass(frozen=True)
class Exported:
    """What an export left."""

    folder: Path
    files: Mapping[str, int]  # bytes of each
    load: str  # lines of Python that load it
    notes: tuple[str, ...] = ()
    difference: float | None = None  # of a program: the largest from the original's numbers
    url: str = ""  # where it was pushed


def export(
    run: str | Path,
    to: str,
    out: str | Path,
    *,
    data: str | None = None,
    push: str = "",
    private: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Write a run's encoder into a folder, in a format that others read.

    Args:
        run: a run's folder, its encoder folder, or hf:OWNER/NAME.
        to: safetensors, huggingface, backbone (weights for timm, MONAI and so on), onnx, or torch (torch.export).
        out: the folder to make.
        data: onnx and torch: samples to trace and to compare with; none: the run's own data.
        push: huggingface: OWNER/NAME of the repository on the hub to upload to.
        private: make that repository private.
        overwrite: replace an earlier export in `out`.

    Raises:
        UserError: there is no such run or format, the encoder cannot be had in it, `out` is taken, an exported program
            differs from the encoder, or the hub cannot be reached. No folder is left, but after a failed upload.
    """
    job, form, folder = Job(str(run), to, data, push), choose("format", to, FORMATS), Path(out)
    for name, value in (("push", push), ("private", private)):
        if value and to != "huggingface":
            raise UserError(f"--{name} is of --to huggingface, not of {to}")
    if private and not push:
        raise UserError("--private is of a repository: say which by --push OWNER/NAME")
    if data and to not in ("onnx", "torch"):
        raise UserError(f"--data is of --to onnx and --to torch, not of {to}")
    _check_out(folder, job, overwrite)
    if push:
        check_push(push)
    made = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        made.mkdir(parents=True)
        written = form.write(job, made)
        replace_folder(made, folder)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}; make room or choose another --out") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    lines = written.load.replace("{out}", str(folder))
    url = upload(folder, push, private) if push else ""
    return Exported(folder, sizes, lines, written.notes, written.difference, url)


def _check_out(folder: Path, job: Job, overwrite: bool) -> None:
    """Raises UserError where the folder is taken, and --overwrite would remove what no export wrote."""
    if not folder.name:
        raise UserError(f"--out {folder} is no folder that can be made; give it a name")
    source = job.files[0].parent.resolve()
    if source.is_relative_to(folder.resolve()):
        raise UserError(f"--out {folder} holds the encoder that is exported; choose another")
    if folder.is_file():
        raise UserError(f"--out {folder} is a file; give a folder")
    there = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if there and not overwrite:
        raise UserError(f"--out {folder} is not empty; choose another, or add --overwrite to replace an earlier export")
    known = {name for form in FORMATS.values() for name in form.files}
    strange = [name for name in there if name not in known]
    if strange:
        raise UserError(f"--overwrite replaces exports alone, and {folder} holds {strange[0]}; choose another --out")
