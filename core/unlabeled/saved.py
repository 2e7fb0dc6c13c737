"""A trained encoder on disk: weights and a description beside them, loadable without the training code."""

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
from unlabeled.errors import UserError, one_line, optional
from unlabeled.files import write_text, write_whole
from unlabeled.plugins import Registry
from unlabeled.seen import Ids, write_ids

__all__ = ["Saved", "describe", "load"]

FORMAT = 1
OWN, HUB_FORM = ("encoder.json", "encoder.safetensors"), ("config.json", "model.safetensors")
"""Description and weights, as a run has them and as a repository of the Hugging Face hub has them."""
HUB = "hf:"  # before OWNER/NAME, in place of a folder


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

    def make_view(self, **options: Any) -> View:
        """The view of the training, with some of its options replaced."""
        view: View = self.registry.make("view", self.view.name, self.facts, **{**self.view.options, **options})
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
    """What a run's encoder is, from the description in the run folder or the encoder folder itself.

    Args:
        run: a run, its encoder folder, what `export` made of it, or hf:OWNER/NAME for what was pushed.

    Raises:
        UserError: there is none, or it is not readable.
    """
    path, _ = encoder_files(run)
    try:
        data: dict[str, Any] = json.loads(path.read_text())
        if data["format"] != FORMAT:
            raise UserError(
                f"{path.parent} was written by unlabeled {data['unlabeled']}, in a format this version cannot read"
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
        raise UserError(f"{path} is damaged ({error}); save the run again with --resume") from None


def encoder_files(run: str | Path) -> tuple[Path, Path]:
    """The description and the weights, given a run folder, that of an encoder, or hf:OWNER/NAME.

    Raises:
        UserError: there is no encoder there.
    """
    if str(run).startswith(HUB):
        run = _from_hub(str(run).removeprefix(HUB))
    for folder in (Path(run) / "encoder", Path(run)):
        for description, weights in (OWN, HUB_FORM):
            path = folder / description
            if path.exists() and (description != HUB_FORM[0] or _is_ours(path)):
                return path, folder / weights
    if not Path(run).exists():
        raise UserError(f"{run} does not exist; give the folder that `pretrain --out` made")
    raise UserError(f"{run} holds no encoder yet; finish the run, or stop it with Ctrl-C, which saves one")


def encoder_folder(run: str | Path) -> Path:
    """The folder of `encoder_files`."""
    return encoder_files(run)[0].parent


def run_folder(run: str | Path) -> Path | None:
    """The folder with a run's config.yaml, given it or one in it that holds the encoder; None: an encoder alone.

    Raises:
        UserError: there is neither a run nor an encoder.
    """
    if (Path(run) / "config.yaml").exists():
        return Path(run)
    above = encoder_folder(run).parent
    return above if (above / "config.yaml").exists() else None


def _is_ours(path: Path) -> bool:
    """Every library calls its description config.json; ours names unlabeled, or is damaged."""
    try:
        return "unlabeled" in json.loads(path.read_text())
    except ValueError:
        return True


def _from_hub(name: str) -> Path:
    """The folder that a repository of the Hugging Face hub is kept in here.

    Raises:
        UserError: huggingface_hub is missing, or there is no such repository or network.
    """
    hub = optional("huggingface_hub", "huggingface_hub", f"{HUB}{name}", "export")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=list(HUB_FORM)))
    except Exception as error:  # the hub has an error for each of: no network, no such name, not allowed
        raise UserError(f"{HUB}{name} could not be had ({one_line(error)}); check the name, and the network") from None


def load(run: str | Path) -> Encoder:
    """A trained encoder in eval mode: `tokens = encoder.tokenize(batch); encoder(tokens).instances`.

    Args:
        run: a run's folder, its encoder folder, what `export` made of it, or hf:OWNER/NAME for what was pushed.

    Raises:
        UserError: there is no encoder, it is damaged, or its weights are another encoder's.
    """
    from safetensors.torch import load_file

    saved, (described, path) = describe(run), encoder_files(run)
    encoder = saved.make_encoder()
    try:
        encoder.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise UserError(
            f"the weights in {path} are not those of encoder {saved.encoder.name!r} as {described.name} describes it: "
            f"{one_line(error)}"
        ) from None
    except Exception as error:  # safetensors has its own error type, and the file may be absent
        raise UserError(f"{path} is damaged ({one_line(error)}); save the run again with --resume") from None
    return encoder.eval()
