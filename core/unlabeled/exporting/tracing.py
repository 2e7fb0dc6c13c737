"""An encoder as one program from a batch's tensors to `instances`, by torch.export."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unlabeled.contract import Batch, Encoder
from unlabeled.errors import UserError, one_line

TOLERANCE = 1e-4
"""How far numbers may be from the encoder's, as a share of its largest (at least 1)."""
SIZES = (3, 1)
"""Samples of the batch that is traced, and of another one. What differs in shape between them is free."""


class Instances(nn.Module):
    """A batch's tensors by name -> instances [M, D]."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: Batch) -> Tensor:
        out: Tensor = self.encoder(self.encoder.tokenize(batch)).instances
        return out


class Asked(dict[str, Tensor]):
    """A batch that notes which of its tensors are asked for."""

    def __init__(self, batch: Batch):
        super().__init__(batch)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.names.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """As a dict does."""
        self.names.add(name)
        return super().get(name, default)

    def __iter__(self) -> Iterator[str]:  # with it, copies ask for every tensor by its name
        return super().__iter__()


@dataclass(frozen=True)
class Traced:
    """A program, the batches that it is compared on, and what the encoder makes of them."""

    program: torch.export.ExportedProgram
    batches: tuple[Batch, ...]  # of what the program takes alone
    wanted: tuple[Tensor, ...]

    @property
    def names(self) -> list[str]:
        """Of the inputs, in order."""
        return list(self.batches[0])

    @cached_property
    def shapes(self) -> dict[str, list[int | str]]:
        """Of inputs: numbers, B for the number of samples, N1, N2 … for what else is free; equal names, equal sizes."""
        placed = {node.name: node.meta["val"] for node in self.program.graph.nodes if node.op == "placeholder"}
        letters: dict[str, str] = {}
        found: dict[str, list[int | str]] = {}
        for name, node in zip(self.names, self.program.graph_signature.user_inputs, strict=True):
            found[name] = []
            for at, size in enumerate(placed[node].shape):
                seen = tuple(batch[name].shape[at] for batch in self.batches)
                if len(set(seen)) > 1 and str(size) not in letters:
                    others = sum(letter != "B" for letter in letters.values())
                    letters[str(size)] = "B" if seen == SIZES else f"N{others + 1}"
                found[name].append(letters[str(size)] if len(set(seen)) > 1 else seen[0])
        return found

    def difference(self, outputs: Sequence[Tensor]) -> tuple[float, bool]:
        """The largest from the encoder's numbers, and whether that is little enough."""
        far, fine = 0.0, True
        for wanted, got in zip(self.wanted, outputs, strict=True):
            apart = float((wanted - got.detach()).abs().max()) if wanted.shape == got.shape else float("inf")
            fine &= apart <= TOLERANCE * max(1.0, float(wanted.abs().max()))  # NaN is not
            far = max(far, apart if apart == apart else float("inf"))
        return far, fine


def trace(encoder: Encoder, batches: Sequence[Batch], name: str) -> Traced:
    """One program of an encoder in eval mode, for batches of any size.

    Args:
        batches: whole ones of `SIZES` samples, on the CPU; the first is traced.
        name: of the encoder, for errors.

    Raises:
        UserError: what the encoder does depends on the numbers in a batch, or torch has no program of it.
    """
    module, asked = Instances(encoder).eval(), Asked(batches[0])
    with torch.no_grad():
        wanted = tuple(module(batch) for batch in batches)
        module(asked)
    taken = tuple({key: one[key] for key in one if key in asked.names} for one in batches)
    try:
        program = _program(module, taken)
        unused = _unused(program, list(taken[0]))
        if unused:  # for training alone; an encoder that asks for them all the same gets them
            fewer = tuple({key: one[key] for key in one if key not in unused} for one in taken)
            with contextlib.suppress(KeyError):
                program, taken = _program(module, fewer), fewer
    except Exception as error:  # torch.export has many errors, and whatever a library's code raises for fake tensors
        raise UserError(f"encoder {name!r} cannot be exported as a program: {_reason(error)}") from None
    return Traced(program, taken, wanted)


def _program(module: nn.Module, batches: Sequence[Batch]) -> torch.export.ExportedProgram:
    first, *others = batches
    free = {
        key: {
            at: torch.export.Dim.DYNAMIC
            for at, size in enumerate(value.shape)
            if any(other[key].shape[at] != size for other in others)
        }
        for key, value in first.items()
    }
    with quiet(), torch.no_grad():
        program = torch.export.export(module, (dict(first),), dynamic_shapes={"batch": free}, strict=False)
    program.example_inputs = None  # they are real samples, and would be in the file
    parts = [part for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    for part in parts:
        for node in part.graph.nodes:
            node.meta.pop("stack_trace", None)  # it names files of this machine
    return program


def _unused(program: torch.export.ExportedProgram, names: Sequence[str]) -> set[str]:
    """Inputs that the output does not depend on."""
    program.graph_module.graph.eliminate_dead_code()
    dead = {node.name for node in program.graph.nodes if node.op == "placeholder" and not node.users}
    return {name for name, node in zip(names, program.graph_signature.user_inputs, strict=True) if node in dead}


def _reason(error: Exception) -> str:
    """Why there is no program, and in which line of which file."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "<" not in frame.filename]
    torch_home, here = str(Path(torch.__file__).parent) + os.sep, str(Path(__file__))
    outside = [frame for frame in frames if not frame.filename.startswith(torch_home) and frame.filename != here]
    where = f", in {Path(outside[-1].filename).name}, line {outside[-1].lineno}" if outside else ""
    if "DataDependent" in type(error).__name__:
        return f"what it does next depends on numbers in the batch{where}"
    if "specialized it to be a constant" in str(error):
        return "a size is fixed that batches differ in: its code takes `len(x)`, or int() of a size, for `x.shape[0]`"
    return f"{type(error).__name__}: {one_line(error)}{where}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters warn of their own code, and print whole programs where they fail."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
