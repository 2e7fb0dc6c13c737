"""Which of the hidden contents stands here? Contrastive prediction of token embeddings (DABS 2.0, "Capri")."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Look, Passes
from unlabeled.collectives import gather_uneven, masked_mean, rank_offset
from unlabeled.contract import Encoder
from unlabeled.errors import UserError
from unlabeled.layers import predictor
from unlabeled.terms.base import Term, by_rows, full_precision

CHUNK = 1 << 24  # similarities held at once, 64 MB in float32


class Capri(Term):
    """A hidden token's prediction finds its own input embedding among those of all hidden tokens of the batch.

    Input embeddings are the encoder's own, at its mixing point, and learn too, as in DABS's code. Cosines over τ.

    Args:
        temperature: τ.
        width, depth: of a predictor over seen and wanted tokens; depth 0 reads tokens hidden in place.
    """

    needs = frozenset({"tokens", "hidden", "embed"})

    def __init__(self, encoder: Encoder, *, temperature: float = 0.07, width: int | None = None, depth: int = 0):
        super().__init__(encoder)
        self.temperature = temperature
        self.predictor: nn.Module
        if depth == 0:
            self.predictor = nn.Linear(encoder.width, encoder.embed_width)
        else:
            self.predictor = predictor(encoder, encoder.embed_width, width, depth)

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        assert passes.embed is not None, "an encoder without a mixing point is refused before the first step"
        losses = []
        for look, _ in passes.masked():
            assert look.hidden is not None
            embedded = passes.embed(look.tokens)
            for wanted in look.hidden.targets:
                predicted = self._predict(look, wanted)[wanted]
                error = torch.zeros_like(wanted, dtype=torch.float32)
                error = error.masked_scatter(wanted, find(predicted, embedded[wanted], self.temperature))
                losses.append(masked_mean(error, wanted))
        return {"loss": torch.stack(losses).mean()}

    def _predict(self, look: Look, wanted: Tensor) -> Tensor:
        if isinstance(self.predictor, nn.Linear):
            if not look.in_place:
                raise UserError(
                    "capri.depth=0 reads hidden places off the encoder, which drops them: hide in place "
                    "(in_place=true), or give capri a depth"
                )
            out: Tensor = self.predictor(look.latent)
        else:
            out = self.predictor(look.latent, look.tokens, look.seen, wanted)
        return out


@full_precision
def find(predicted: Tensor, embedded: Tensor, temperature: float) -> Tensor:
    """[T] −log softmax of cosines at the own one, among the embeddings of all ranks; T may differ between ranks."""
    predicted = F.normalize(predicted.float(), dim=-1)
    everyone = gather_uneven(F.normalize(embedded.float(), dim=-1))
    own = torch.arange(len(predicted), device=predicted.device) + rank_offset(len(predicted))
    part = partial(_rows, everyone=everyone, temperature=temperature)
    return by_rows(part, len(everyone), CHUNK, predicted, own)


def _rows(queries: Tensor, own: Tensor, everyone: Tensor, temperature: float) -> Tensor:
    return F.cross_entropy(queries @ everyone.T / temperature, own, reduction="none")
