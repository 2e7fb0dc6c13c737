"""Weights for other libraries: what backbone.json says makes a model there that takes them and gives the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unlabeled import plugins
from unlabeled.contract import Encoder, LibraryModel, Tokens
from unlabeled.errors import UserError
from unlabeled.exporting.job import Job
from unlabeled.exporting.libraries import made, write_backbone

EO = {"channels": ["VV", "VH"], "mean": [0.0, 0.0], "std": [1.0, 1.0], "complex": False, "part": "amplitude"}
MEDICAL = {"channels": 2, "shape": [32.0, 32.0, 32.0]}
MEL = {"rate": 8000, "mels": 64, "hop": 80, "window": 512, "low": 60.0, "high": 3900.0, "mean": 0.0, "std": 1.0}
GRAPH = {"features": {"width": 4}, "coords": 3}
FACTS: dict[str, dict[str, Any]] = {"eo": EO, "medical": MEDICAL, "audio": {"mel": MEL}, "graph": GRAPH}


def chips(encoder: Any) -> tuple[tuple[Tensor, ...], Tensor]:
    image = torch.randn(3, 2, 2 * encoder.patch * 8, 2 * encoder.patch * 8)
    return (image,), encoder.net(image)


def standard_chips(encoder: Any) -> tuple[tuple[Tensor, ...], Tensor]:
    """What is standardised by a mean of 0 and a deviation of 1; the encoder's own instances are the model's output."""
    side = encoder.patch * 16
    image = torch.randn(3, 2, side, side)
    tokens = encoder.tokenize({"image": image, "valid": torch.ones(3, side, side, dtype=torch.bool)})
    return (image,), encoder(tokens).instances


def crops(encoder: Any) -> tuple[tuple[Tensor, ...], Tensor]:
    image = torch.randn(2, 2, 32, 32, 32)
    return (image,), encoder(encoder.tokenize({"image": image})).instances


def waves(encoder: Any) -> tuple[tuple[Tensor, ...], Tensor]:
    wave, length = torch.randn(2, 3280), torch.tensor([3280, 2000])
    tokens = encoder.tokenize({"wave": wave, "length": length})
    return (wave, length), encoder(tokens).tokens[0]  # of the second clip the two differ in padding alone


def nodes(encoder: Any) -> tuple[tuple[Tensor, ...], Tensor]:
    x, edges = torch.randn(6, 4), torch.tensor([[0, 1, 2, 3, 4, 5, 0], [1, 0, 3, 2, 5, 4, 2]])
    batch = {"x": x, "coords": torch.rand(6, 3), "edge_index": edges, "sizes": torch.tensor([6])}
    taken = torch.cat([x, batch["coords"]], 1) if encoder.positions else x
    return (taken, edges), encoder(encoder.tokenize(batch)).tokens[0]


Case = Callable[[Any], tuple[tuple[Tensor, ...], Tensor]]
PLAIN = {"norm": "none", "last_activation": False}
CASES: list[tuple[str, str, dict[str, Any], Case]] = [
    ("eo", "vit", {"width": 32, "depth": 2, "patch": 4}, standard_chips),
    ("eo", "vit", {"model": "test_vit"}, chips),
    ("eo", "vit_small_patch16", {}, lambda encoder: ((x := torch.randn(1, 2, 224, 224),), encoder.net(x))),
    ("eo", "resnet", {"model": "test_resnet"}, standard_chips),
    ("eo", "convnext", {"model": "test_convnext"}, standard_chips),
    ("medical", "resnet3d", {"planes": 4}, crops),
    ("medical", "swin_unetr", {}, crops),
    ("audio", "wav2vec2", {"width": 16, "depth": 2, "heads": 2, "channels": 4, "positions": 16}, waves),
    ("graph", "gcn", {"width": 8, "depth": 3}, nodes),
    ("graph", "gcn", {"width": 8, "activation": "prelu", "positions": True}, nodes),
    ("graph", "sage", {"width": 8, **PLAIN}, nodes),
    ("graph", "gat", {"width": 8, **PLAIN}, nodes),
]
LIBRARIES = {"eo": "timm", "medical": "monai", "audio": "torchaudio", "graph": "torch-geometric"}
"""What takes an encoder's backbone. All others are refused."""


def make(domain: str, name: str, facts: Any = None, **options: Any) -> Encoder:
    encoder: Encoder = plugins.load(domain).make("encoder", name, facts or FACTS[domain], **options)
    with torch.no_grad():
        for weight in encoder.parameters():  # biases and scales too, which start as 0 and 1
            weight.add_(0.05 * torch.randn_like(weight))
    return encoder.eval()


def read_back(encoder: Encoder, folder: Path, name: str) -> tuple[dict[str, Any], nn.Module]:
    """What is written, and the model that it makes."""
    from safetensors.torch import load_file

    write_backbone(_job(encoder, name), folder)
    about = json.loads((folder / "backbone.json").read_text())
    state = load_file(folder / "backbone.safetensors")
    model = made(LibraryModel(about["library"], about["call"], about["arguments"], state, about["input"]))
    model.load_state_dict(state, strict=True)
    return about, model.eval()


def _job(encoder: Encoder, name: str) -> Job:
    job = Job("run", "backbone")
    job.__dict__.update(encoder=encoder, encoder_name=name)
    return job


@pytest.mark.parametrize(
    ("domain", "name", "options", "case"), CASES, ids=[" ".join(map(str, one[:3])) for one in CASES]
)
@torch.no_grad()
def test_the_librarys_own_model_takes_the_weights_and_gives_the_same(
    domain: str, name: str, options: dict[str, Any], case: Case, tmp_path: Path
) -> None:
    encoder = make(domain, name, **options)
    about, model = read_back(encoder, tmp_path, name)
    assert about["library"] == LIBRARIES[domain]
    inputs, wanted = case(encoder)
    got: Any = model(*inputs)
    if domain == "audio":
        got = got[0][0]
    elif name == "swin_unetr":
        got = got[-1].mean((2, 3, 4))
    assert wanted.abs().max() > 0.01
    torch.testing.assert_close(got, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-4)


NONE = {  # encoders of our own, though some are made of a library's layers
    "tabular": {"ft_transformer", "mlp"},
    "medical": {"vit", "vit_small", "resunet", "unet"},
    "audio": {"vit", "frame_vit", "cnn", "conformer"},
    "eo": {"channel_vit"},
    "graph": {"gin", "gps", "gat", "sage"},  # the latter two as they come, with an activation or a norm at the end
}


def registered() -> Iterator[tuple[str, str]]:
    for domain in sorted({plugin.domain for plugin in plugins.listing()}):
        yield from ((domain, name) for name in plugins.load(domain).encoders)


def test_every_encoder_is_in_one_of_the_two_lists() -> None:
    some = {(domain, name) for domain, name, _, _ in CASES}
    none = {(domain, name) for domain, names in NONE.items() for name in names}
    assert some | none == set(registered())
    assert some & none == {("graph", "gat"), ("graph", "sage")}


@pytest.mark.parametrize(("domain", "name"), [(domain, name) for domain in NONE for name in sorted(NONE[domain])])
def test_others_are_refused_by_name_with_what_works(domain: str, name: str, tmp_path: Path) -> None:
    facts: Any = None
    if domain == "tabular":
        registry = plugins.load(domain)
        facts = registry.make("reader", None, registry.examples(tmp_path / "example")[0]).facts
    encoder = make(domain, name, facts)
    assert encoder.library_model() is None
    wanted = f"encoder '{name}', as it was made, is no model of another library; --to safetensors and --to huggingface"
    with pytest.raises(UserError, match=wanted):
        write_backbone(_job(encoder, name), tmp_path)


@pytest.mark.parametrize(
    "options", [{"norm": "batch"}, {"last_activation": True}, {"activation": "prelu", "depth": 3}], ids=str
)
def test_graph_nets_that_pyg_would_make_otherwise_are_refused(options: dict[str, Any]) -> None:
    assert make("graph", "gcn", width=8).library_model() is not None
    assert make("graph", "gcn", **{"width": 8, **options}).library_model() is None


class Odd(Encoder):
    """Says that it is a model whose weights it does not have."""

    width = 2

    def tokenize(self, batch: Any) -> Tokens:
        raise NotImplementedError

    def library_model(self) -> LibraryModel:
        state = {"weight": torch.zeros(3, 2)}
        return LibraryModel("torch", "torch.nn.Linear", {"in_features": 2, "out_features": 2}, state, "x")


def test_what_the_library_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"torch [\d.+a-z]+ does not take the weights of encoder 'odd': .*bias"):
        write_backbone(_job(Odd(), "odd"), tmp_path)
    assert list(tmp_path.iterdir()) == []
