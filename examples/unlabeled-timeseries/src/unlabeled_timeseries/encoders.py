"""A transformer over patches of time."""

import torch
from torch import nn

from unlabeled.contract import Encoded, Encoder, Tokens
from unlabeled.layers import Place, Trunk, mean_of


class PatchTransformer(Encoder):
    """All channels of `patch` samples are a token; hidden ones never enter the transformer."""

    coord_width = 1

    def __init__(self, facts, *, patch: int = 16, width: int = 128, depth: int = 4):
        super().__init__()
        self.patch, self.value_width = patch, patch * facts["channels"]
        self.width, self.embed_width, self.depth = width, width, depth
        self.enter, self.place = nn.Linear(self.value_width, width), Place(1, width)
        self.trunk = Trunk(width, depth)

    def tokenize(self, batch):
        signal = batch["signal"]
        patches = signal[..., : signal.shape[2] // self.patch * self.patch].unflatten(2, (-1, self.patch))
        values = patches.transpose(1, 2).flatten(2)  # [B, N, C × patch]
        B, N, _ = values.shape
        coords = torch.linspace(0, 1, N, device=values.device)[None, :, None].expand(B, N, 1)
        return Tokens(values, coords, torch.ones(B, N, dtype=torch.bool, device=values.device), context={})

    def embed(self, tokens):
        return self.enter(tokens.values)

    def forward(self, tokens, hidden=None, layers=0, alter=None):
        keep = tokens.valid if hidden is None else tokens.valid & ~hidden
        x = self.embed(tokens) if alter is None else alter(self.embed(tokens))
        x, kept = self.trunk(x + self.place(tokens.coords), keep, tokens.owner, layers)
        return Encoded(x, mean_of(x, keep), torch.stack(kept) if layers else None)
