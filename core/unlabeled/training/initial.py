"""Where an encoder's first weights come from: a run, a file of weights, or a library's pre-trained model."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unlabeled.contract import Encoder
from unlabeled.errors import UserError, nearest, one_line
from unlabeled.saved import Saved, describe, encoder_files

State = Mapping[str, Tensor]
NESTED = ("model", "state_dict", "module", "encoder", "student", "teacher", "backbone")
"""Where files of others, and our own checkpoints, keep weights inside."""


def run_of(source: str) -> Saved | None:
    """What its description says, where the source is a run's folder or its encoder folder; else None.

    Raises:
        UserError: it is a folder without an encoder.
    """
    return describe(source) if source and Path(source).is_dir() else None


def initialise(encoder: Encoder, source: str) -> str:
    """Give an encoder the weights of a source.

    From a run come all of them; from a file and from a library those whose names and shapes match, into the whole
    encoder or into its `backbone`.

    Returns:
        a note: how many were found, and which were not.

    Raises:
        UserError: there is no such source, it cannot be read or had, or nothing in it fits.
    """
    library, colon, name = source.partition(":")
    if Path(source).is_dir():
        return _from_run(encoder, source)
    if Path(source).exists():
        return _fill(_homes(encoder), _read(Path(source)), source)
    if not colon or library not in LIBRARIES:
        forms = [f"{known}:NAME" for known in LIBRARIES]
        raise UserError(f"--init {source} is no run, file or one of {', '.join(forms)}; {nearest(library, LIBRARIES)}")
    if not encoder.backbone:
        raise UserError(
            f"encoder {type(encoder).__name__!r} holds no model of a library, so that --init {source} has no place in "
            "it; choose an encoder that does, or give a run or a file"
        )
    return _fill({encoder.backbone: encoder.get_submodule(encoder.backbone)}, _had(source, library, name), source)


def _homes(encoder: Encoder) -> dict[str, nn.Module]:
    """What a file's weights may be of, by name."""
    inner = {encoder.backbone: encoder.get_submodule(encoder.backbone)} if encoder.backbone else {}
    return {"encoder": encoder, **inner}


def _from_run(encoder: Encoder, source: str) -> str:
    saved, path = describe(source), encoder_files(source)[1]
    theirs, own = _read(path), encoder.state_dict()
    lacks = [f"it has no {name}" for name in own if name not in theirs]
    more = [f"only it has {name}" for name in theirs if name not in own]
    shapes = [_shapes(name, theirs[name], own[name]) for name in own if name in theirs]
    differs = [*filter(None, shapes), *lacks, *more]
    if differs:
        raise UserError(
            f"the encoder {saved.encoder.name!r} of --init {source} is not this run's: {differs[0]}"
            + (f", and {len(differs) - 1} weights more differ" if len(differs) > 1 else "")
            + "; leave out --encoder and its options to take that of the source, and its facts"
        )
    encoder.load_state_dict(theirs)
    return f"the encoder starts from {source}, step {saved.step}"


def _shapes(name: str, there: Tensor, here: Tensor) -> str:
    return "" if there.shape == here.shape else f"{name} is {list(there.shape)} there and {list(here.shape)} here"


def _read(path: Path) -> State:
    """Tensors of a file; never code.

    Raises:
        UserError: it is damaged, or holds none.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors has its own error type; a damaged zip or pickle may fail in any way
        raise UserError(f"{path} is no file of weights that can be read ({_line(error)})") from None
    return _tensors(state, path)


def _tensors(state: Any, path: Path) -> State:
    for key in NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            return _tensors(state[key], path)
    found = {name: one for name, one in state.items() if isinstance(one, Tensor)} if isinstance(state, Mapping) else {}
    if not found:
        raise UserError(f"{path} holds no weights by name; save a state_dict() there")
    return found


def _fill(homes: Mapping[str, nn.Module], theirs: State, source: str) -> str:
    """Load what matches into the home where most does, a prefix of the source's names aside ("module.", "encoder.")."""
    prefixes = {"", *(name[: at + 1] for name in theirs for at, sign in enumerate(name) if sign == ".")}
    states = {home: module.state_dict() for home, module in homes.items()}
    tried = [(home, prefix) for home in homes for prefix in sorted(prefixes, key=len)]
    fits = [_matching(states[home], theirs, prefix) for home, prefix in tried]
    found = max(fits, key=len)
    home, prefix = tried[fits.index(found)]
    own = states[home]
    adapted = _adapted(own, theirs, prefix)
    found |= adapted
    if not found:
        raise UserError(f"nothing in {source} fits the {home}: it has {_some(theirs)}, and the {home} has {_some(own)}")
    homes[home].load_state_dict(found, strict=False)
    left = [
        _shapes(name, theirs[prefix + name], own[name]) if prefix + name in theirs else name
        for name in own
        if name not in found
    ]
    spare = [name for name in theirs if name.removeprefix(prefix) not in found]
    return (
        f"{len(found)} of {len(own)} weights of the {home} come from {source}"
        + "".join(f"; {name} was {_for(theirs[prefix + name], one)}" for name, one in adapted.items())
        + (f"; these stay as they were: {_some(left)}" if left else "")
        + (f"; these are not used: {_some(spare)}" if spare else "")
    )


def _matching(own: State, theirs: State, prefix: str) -> dict[str, Tensor]:
    there = {name: theirs[prefix + name] for name in own if prefix + name in theirs}
    return {name: one for name, one in there.items() if one.shape == own[name].shape}


def _adapted(own: State, theirs: State, prefix: str) -> dict[str, Tensor]:
    """A first convolution made for other input channels: its mean over them, so that its sum over them stays."""
    for name, one in own.items():
        there = theirs.get(prefix + name)
        if one.dim() < 3 or not name.endswith("weight") or there is None or there.dim() != one.dim():
            continue
        same = there.shape[0] == one.shape[0] and there.shape[2:] == one.shape[2:]
        if not same or there.shape == one.shape:
            return {}  # it is the first convolution alone that sees the data
        mean = there.mean(1, keepdim=True) * (there.shape[1] / one.shape[1])
        return {name: mean.expand_as(one).contiguous()}
    return {}


def _for(there: Tensor, here: Tensor) -> str:
    return f"for {there.shape[1]} channels and is taken for {here.shape[1]}"


def _some(names: Any, most: int = 8) -> str:
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


# ---- libraries


def _timm(library: Any, name: str) -> State:
    state: State = library.create_model(name, pretrained=True).state_dict()
    return state


def _torchvision(library: Any, name: str) -> State:
    state: State = library.models.get_model(name, weights="DEFAULT").state_dict()
    return state


def _hugging_face(library: Any, name: str) -> State:
    """The repository's own files of weights, so that no code of it or of a model class runs."""
    errors = importlib.import_module("huggingface_hub.errors")
    try:
        return _read(Path(library.hf_hub_download(name, "model.safetensors")))
    except errors.LocalEntryNotFoundError:  # there is no network
        raise
    except errors.EntryNotFoundError:
        return _read(Path(library.hf_hub_download(name, "pytorch_model.bin")))


LIBRARIES: dict[str, tuple[str, Callable[[Any, str], State]]] = {
    "timm": ("timm", _timm),
    "torchvision": ("torchvision", _torchvision),
    "hf": ("huggingface_hub", _hugging_face),
}
"""Prefix of --init -> the package that it needs, and how weights are had from it."""


def _had(source: str, prefix: str, name: str) -> State:
    package, fetch = LIBRARIES[prefix]
    try:
        library = importlib.import_module(package)
    except ImportError:
        raise UserError(f"--init {source} needs {package}, which is not installed: pip install {package}") from None
    try:
        return fetch(library, name)
    except UserError:
        raise
    except Exception as error:  # no network, no such model: every library has its own errors for both
        raise UserError(f"--init {source} could not be had: {_line(error)}; check the name, and the network") from None


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
