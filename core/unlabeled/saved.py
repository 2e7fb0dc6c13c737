"""A trained encoder on disk: encoder.safetensors and encoder.json, loadable without the training code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from unlabeled import plugins
from unlabeled.config import Config, Named
from unlabeled.contract import Encoder, Facts, Reader, View
from unlabeled.errors import UserError, one_line
from unlabeled.files import write_text, write_whole
from unlabeled.plugins import Registry
from unlabeled.seen import Ids, write_ids

__all__ = ["Saved", "describe", "load"]

FORMAT = 1


@dataclass(frozen=True)
class Saved:
    """What encoder.json says: how to make the encoder, and the reader and view that feed it."""

    domain: str
    encoder: Named
    reader: Named
    view: Named
    facts: Facts
    method: str = ""
    step: int = 0
    labels: str = ""  # that the method was told, by name

    @property
    def registry(self) -> Registry:
        return plugins.load(self.domain)

    def make_encoder(self, seed: int | None = None) -> Encoder:
        """The encoder with fresh weights; a seed fixes them and leaves torch's own generator as it was."""
        with torch.random.fork_rng(devices=[]):
            if seed is not None:
                torch.manual_seed(seed)
            encoder: Encoder = self.registry.make("encoder", self.encoder.name, self.facts, **self.encoder.options)
        return encoder

    def make_reader(self, source: str) -> Reader:
        """A reader of other data with what was fitted on the training data."""
        reader: Reader = self.registry.make("reader", self.reader.name, source, facts=self.facts, **self.reader.options)
        return reader

    def make_view(self) -> View:
        """The view of the training, for its undisturbed kind."""
        view: View = self.registry.make("view", self.view.name, self.facts, **self.view.options)
        return view


def save_encoder(folder: Path, encoder: Encoder, config: Config, facts: Facts, step: int, seen: Ids) -> None:
    """Write an encoder's folder whole: weights first, then the description that makes it loadable.

    Args:
        seen: hashes of the samples that it was trained on.
    """
    from safetensors.torch import save

    state = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    write_whole(folder / "encoder.safetensors", lambda file: file.write(save(state)))
    description = {
        "format": FORMAT,
        "unlabeled": version("unlabeled"),
        "domain": config.domain,
        "encoder": config.encoder.data(),
        "reader": config.reader.data(),
        "view": config.view.data(),
        "facts": facts,
        "method": config.method_name,
        "step": step,
        "labels": config.labels,
        "samples": write_ids(folder, seen),
    }
    write_text(folder / "encoder.json", json.dumps(description, indent=1, allow_nan=False))


def describe(run: str | Path) -> Saved:
    """What a run's encoder is, from encoder.json in the run folder or the encoder folder itself.

    Raises:
        UserError: there is none, or it is not readable.
    """
    folder = encoder_folder(run)
    try:
        data: dict[str, Any] = json.loads((folder / "encoder.json").read_text())
        if data["format"] != FORMAT:
            raise UserError(
                f"{folder} was written by unlabeled {data['unlabeled']}, in a format this version cannot read"
            )
        return Saved(
            data["domain"],
            Named.of(data["encoder"]),
            Named.of(data["reader"]),
            Named.of(data["view"]),
            data["facts"],
            data["method"],
            data["step"],
            data.get("labels", ""),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'encoder.json'} is damaged ({error}); save the run again with --resume") from None


def encoder_folder(run: str | Path) -> Path:
    """The folder with encoder.json, given a run folder or that folder itself.

    Raises:
        UserError: there is no encoder there.
    """
    for folder in (Path(run) / "encoder", Path(run)):
        if (folder / "encoder.json").exists():
            return folder
    if not Path(run).exists():
        raise UserError(f"{run} does not exist; give the folder that `pretrain --out` made")
    raise UserError(f"{run} holds no encoder yet; finish the run, or stop it with Ctrl-C, which saves one")


def load(run: str | Path) -> Encoder:
    """A trained encoder in eval mode: `tokens = encoder.tokenize(batch); encoder(tokens).instances`.

    Raises:
        UserError: there is no encoder, it is damaged, or its weights are another encoder's.
    """
    from safetensors.torch import load_file

    saved, path = describe(run), encoder_folder(run) / "encoder.safetensors"
    encoder = saved.make_encoder()
    try:
        encoder.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise UserError(
            f"the weights in {path} are not those of encoder {saved.encoder.name!r} as encoder.json describes it: "
            f"{one_line(error)}"
        ) from None
    except Exception as error:  # safetensors has its own error type, and the file may be absent
        raise UserError(f"{path} is damaged ({one_line(error)}); save the run again with --resume") from None
    return encoder.eval()
