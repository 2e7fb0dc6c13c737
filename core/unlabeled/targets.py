"""Targets: what hidden tokens are predicted as, where that is not their own content. Domains bring their own."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from unlabeled.contract import Encoder, Target, Tokens
from unlabeled.errors import UserError, one_line


@torch.no_grad()
def features_of(target: Target, tokens: Tokens) -> Tensor:
    """[B, N, C] float32; outside of autocast, which would take a formula's features to 8 bits, unless a network's."""
    network = isinstance(target, nn.Module) and next(target.parameters(), None) is not None
    device = tokens.values.device.type
    with torch.autocast(device, enabled=network and torch.is_autocast_enabled(device)):
        return target(tokens).float()


class Values:
    """Tokens' own values, as numbers."""

    def __init__(self, encoder: Encoder):
        self.width = encoder.value_width

    def __call__(self, tokens: Tokens) -> Tensor:
        return tokens.values


class Checkpoint(nn.Module):
    """Tokens as an earlier run's encoder sees them (HuBERT's second iteration, arXiv 2106.07447).

    The encoder must be of the same kind and size as the one that is trained. The folder is needed whenever this run
    starts or resumes; one that resumes goes on with the weights it started with, whatever the folder holds by then.

    Args:
        encoder: the one to be trained; its copy takes the weights.
        run: the earlier run's folder, or the encoder folder in it.
        layer: how many layers before the end; 0: the output.

    Raises:
        UserError: no weights there, damaged ones, other shapes, or more layers than the encoder has.
    """

    def __init__(self, encoder: Encoder, *, run: str, layer: int = 0):
        super().__init__()
        from safetensors.torch import load_file

        if not 0 <= layer <= encoder.depth:
            raise UserError(f"target 'checkpoint' has no layer {layer}: this encoder has {encoder.depth}")
        paths = [Path(run) / "encoder" / "encoder.safetensors", Path(run) / "encoder.safetensors"]
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            raise UserError(
                f"target 'checkpoint' finds no encoder in {run}; give the folder that `pretrain --out` made"
            )
        self.width, self.layer = encoder.width, layer
        self.module = copy.deepcopy(encoder).requires_grad_(False).eval()
        try:
            self.module.load_state_dict(load_file(path))
        except RuntimeError as error:
            raise UserError(f"{path} holds another encoder's weights: {one_line(error)}") from None
        except Exception as error:  # safetensors has its own error type
            raise UserError(f"{path} is damaged ({one_line(error)}); give another run") from None

    def train(self, mode: bool = True) -> Checkpoint:
        return super().train(False)

    @torch.no_grad()
    def forward(self, tokens: Tokens) -> Tensor:
        encoded = self.module(tokens, layers=self.layer)
        out: Tensor = encoded.layers[0] if self.layer else encoded.tokens
        return out
