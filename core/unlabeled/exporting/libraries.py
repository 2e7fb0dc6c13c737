"""The weights of a backbone for the library that it is of."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from unlabeled.contract import LibraryModel
from unlabeled.errors import UserError, one_line
from unlabeled.exporting.job import Job, Written, write_json
from unlabeled.files import write_whole

LOAD = """\
import json

import {module}
from safetensors.torch import load_file

arguments = json.load(open("{out}/backbone.json"))["arguments"]
model = {call}(**arguments)
model.load_state_dict(load_file("{out}/backbone.safetensors"))"""


def write_backbone(job: Job, folder: Path) -> Written:
    """backbone.safetensors, and what makes the model in backbone.json; the library loads it here, strictly.

    Raises:
        UserError: the encoder is no model of a library.
    """
    from safetensors.torch import save

    found = job.encoder.library_model()
    if found is None:
        raise UserError(
            f"encoder {job.encoder_name!r}, as it was made, is no model of another library; --to safetensors and "
            "--to huggingface take every encoder, --to onnx and --to torch most"
        )
    state = {name: value.detach().cpu().clone().contiguous() for name, value in found.state.items()}
    try:
        made(found).load_state_dict(state)
    except Exception as error:  # another version of the library than the encoder's author had
        raise UserError(
            f"{found.library} {version(found.library)} does not take the weights of encoder {job.encoder_name!r}: "
            f"{one_line(error)}"
        ) from None
    write_whole(folder / "backbone.safetensors", lambda file: file.write(save(state)))
    about = {
        "library": found.library,
        "version": version(found.library),
        "call": found.call,
        "arguments": dict(found.arguments),
        "input": found.input,
    }
    write_json(folder / "backbone.json", about)
    module = found.call.rpartition(".")[0]
    lines = LOAD.replace("{module}", module).replace("{call}", found.call)
    return Written(lines, (f"{found.library} {version(found.library)} takes all {len(state)} tensors",))


def made(found: LibraryModel) -> nn.Module:
    """The library's own model, with weights of its own."""
    module, _, name = found.call.rpartition(".")
    model: Any = getattr(import_module(module), name)(**found.arguments)
    assert isinstance(model, nn.Module), "a LibraryModel's call makes a module"
    return model
