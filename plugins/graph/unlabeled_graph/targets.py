"""What hidden nodes can be predicted as, beside their own features."""

from __future__ import annotations

from torch import Tensor

from unlabeled.contract import Encoder, Tokens
from unlabeled.errors import UserError


class Propagated:
    """Features of a node's neighbourhood, S^hops X (SGC, arXiv 1902.07153).

    S = D^-1/2 (A + I) D^-1/2, with the degrees D of A + I: each hop is a mean of what a node and its neighbours have,
    weighted as a graph convolution does it.

    Args:
        encoder: whose nodes' features are meant.
        hops: how far the neighbourhood reaches.

    Raises:
        UserError: it reaches nowhere.
    """

    def __init__(self, encoder: Encoder, *, hops: int = 2):
        if hops < 1:
            raise UserError(f"target 'propagated' goes at least 1 hop, not {hops}")
        self.width, self.hops = encoder.value_width, hops

    def __call__(self, tokens: Tokens) -> Tensor:  # [1, N, V] -> [1, N, V]
        source, target = tokens.context["edge_index"]
        x = tokens.values[0].float()
        weight = x.new_ones(len(x)).index_add(0, target, x.new_ones(len(target))).rsqrt()[:, None]
        for _ in range(self.hops):
            sent = weight * x
            x = weight * sent.index_add(0, target, sent[source])
        return x[None]
