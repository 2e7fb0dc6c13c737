"""Formats that need no code of unlabeled: torch.export's program of an encoder, and ONNX's, made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import getdoc
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlabeled.contract import Batch
from unlabeled.embedding import whole_batches
from unlabeled.errors import UserError, one_line, optional
from unlabeled.exporting.job import Job, Written, portable, write_json
from unlabeled.exporting.tracing import SIZES, TOLERANCE, Traced, quiet, trace
from unlabeled.files import write_whole

OUTPUT = "instances"
PROGRAM = """\
import torch

encoder = torch.export.load("{out}/encoder.pt2").module()
instances = encoder({inputs})  # tensors as {out}/inputs.json says"""
SESSION = """\
import onnxruntime

session = onnxruntime.InferenceSession("{out}/encoder.onnx")
(instances,) = session.run(None, {inputs})  # arrays as {out}/inputs.json says"""


def write_program(job: Job, folder: Path) -> Written:
    """encoder.pt2 and inputs.json.

    Raises:
        UserError: there is no program, or it differs from the encoder.
    """
    traced, about = _traced(job)
    path = folder / "encoder.pt2"
    write_whole(path, lambda file: save_program(traced, file))
    with quiet():
        module = torch.export.load(path).module()
        with torch.no_grad():
            outputs = [module(batch) for batch in traced.batches]
    return _compared(job, folder, traced, outputs, about, PROGRAM)


def save_program(traced: Traced, file: Any) -> None:
    """Write .pt2."""
    with quiet():
        torch.export.save(traced.program, file)


def write_onnx(job: Job, folder: Path) -> Written:
    """encoder.onnx (weights beyond 2 GB in encoder.onnx.data) and inputs.json.

    Raises:
        UserError: a package is missing, there is no program, ONNX has no such operator, or it differs from the encoder.
    """
    onnxruntime, _ = (optional(name, name, "--to onnx", "export") for name in ("onnxruntime", "onnxscript"))
    traced, about = _traced(job)
    path = folder / "encoder.onnx"
    opset = save_onnx(traced, path, job.encoder_name)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        outputs = [run_onnx(session, batch) for batch in traced.batches]
    except Exception as error:  # onnxruntime has an error class for each of its codes
        reason = f"onnxruntime does not run it: {one_line(error)}"
        raise UserError(f"encoder {job.encoder_name!r} cannot be exported to ONNX: {reason}; --to torch can") from None
    return _compared(job, folder, traced, outputs, {"opset": opset, **about}, SESSION)


def save_onnx(traced: Traced, path: Path, name: str) -> int:
    """Write an ONNX file; returns its version of the operators.

    Raises:
        UserError: ONNX has no operator for something that the encoder does.
    """
    try:
        with quiet():
            made: Any = torch.onnx.export(
                traced.program, dynamo=True, input_names=traced.names, output_names=[OUTPUT], verbose=False
            )
    except Exception as error:  # torch.onnx wraps whatever a translation of an operator raises
        cause = error.__cause__ or error
        raise UserError(
            f"encoder {name!r} cannot be exported to ONNX: {type(cause).__name__}: {one_line(cause)}; --to torch can"
        ) from None
    graph = made.model.graph
    for node in graph:
        node.metadata_props.clear()  # they name files of this machine
        for value in node.outputs:
            if value.name in traced.names:  # an operator called as an input is: "where"
                value.name = f"{value.name}_made"
    for value in graph.inputs:
        for at, size in enumerate(traced.shapes[value.name]):
            value.shape[at] = size
    made.save(path)
    return int(made.model.opset_imports[""])


def run_onnx(session: Any, batch: Batch) -> Tensor:
    """Instances by an onnxruntime session."""
    (out,) = session.run([OUTPUT], {name: value.contiguous().numpy() for name, value in batch.items()})
    return torch.from_numpy(out)


def _traced(job: Job) -> tuple[Traced, dict[str, Any]]:
    """The program, and what its reader must know."""
    reader, batches = _batches(job)
    traced = trace(job.encoder, batches, job.encoder_name)
    description = portable(job.description)
    kept = ("unlabeled", "domain", "encoder", "reader", "view", "facts")
    preprocessing = (
        f"{_first_sentence(reader)} The program takes a batch of the reader's samples in the view's undisturbed form, "
        "as unlabeled.embedding.whole_batches gives it; all that comes after is in the program."
    )
    return traced, {"preprocessing": preprocessing, **{key: description[key] for key in kept}}


def _batches(job: Job) -> tuple[Any, list[Batch]]:
    """The reader, and whole batches of `SIZES` of its samples.

    Raises:
        UserError: there are no data, or too few samples that can be read.
    """
    source = job.data or str(job.config.get("data") or "")
    if not source:
        raise UserError(f"{job.run} does not say what it was trained on; give samples to compare with by --data DATA")
    try:
        reader = job.saved.make_reader(source)
    except UserError as error:
        if job.data:
            raise
        raise UserError(
            f"the run's own data cannot be read ({error}); give samples to compare with by --data"
        ) from None
    good = [index for index in reader.some(8 * sum(SIZES)) if reader.or_none(index) is not None][: sum(SIZES)]
    if len(good) < sum(SIZES):
        raise UserError(f"{source} has {len(good)} samples that can be read, and {sum(SIZES)} are compared; give more")
    parts = torch.tensor(good).split(list(SIZES))
    found: list[Batch] = []
    for part in parts:
        made = whole_batches(reader, job.saved.make_view(), job.saved.registry, part, len(part))
        found += [{name: value.cpu() for name, value in batch.items()} for _, batch, _ in made]
    return reader, found


def _first_sentence(what: object) -> str:
    text = " ".join((getdoc(type(what)) or type(what).__name__).split("\n\n")[0].split())
    return text if text.endswith(".") else text + "."


def _compared(
    job: Job, folder: Path, traced: Traced, outputs: Sequence[Tensor], about: Mapping[str, Any], load: str
) -> Written:
    far, fine = traced.difference(outputs)
    most = max(float(wanted.abs().max()) for wanted in traced.wanted)
    if not fine:
        raise UserError(
            f"encoder {job.encoder_name!r} as {job.to} differs from the original by {far:.2g}, where its numbers reach "
            f"{most:.3g} and {TOLERANCE:g} of that is allowed; nothing is written"
        )
    first = traced.batches[0]
    inputs = [
        {"name": name, "dtype": str(first[name].dtype).removeprefix("torch."), "shape": shape}
        for name, shape in traced.shapes.items()
    ]
    output = {"name": OUTPUT, "dtype": str(outputs[0].dtype).removeprefix("torch."), "shape": ["B", job.encoder.width]}
    compared = {"batches": list(SIZES), "difference": far, "largest": most, "tolerance": TOLERANCE}
    found = {"format": job.to, "inputs": inputs, "output": output, "compared": compared, **about}
    write_json(folder / "inputs.json", found)
    lines = load.replace("{inputs}", "{" + ", ".join(f'"{name}": {name}' for name in traced.names) + "}")
    shapes = ", ".join(f"{one['name']} {one['dtype']} {one['shape']}".replace("'", "") for one in inputs)
    note = (
        f"largest difference from the original {far:.2g} of up to {most:.3g}, on batches of {SIZES[0]} and {SIZES[1]}"
    )
    return Written(lines, (f"inputs: {shapes}", note), far)
