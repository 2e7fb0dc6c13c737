"""Which of the hidden contents stands here? Contrastive prediction of token embeddings (DABS 2.0, "Capri")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unlabeled.branches import Look, Passes
from unlabeled.collectives import gather_uneven, rank_offset, uneven_mean
from unlabeled.contract import Encoder, Target
from unlabeled.masking import per_sample
from unlabeled.normaliser import unit
from unlabeled.terms.base import Term, by_rows, full_precision, hidden_reader, read_hidden

CHUNK = 1 << 24  # similarities held at once, 64 MB in float32


class Capri(Term):
    """A hidden token's prediction finds its own input embedding among those of all hidden tokens of the batch.

    Input embeddings are the encoder's own, at its mixing point, and learn too, as in DABS's code. Cosines over τ.
    SSAST (arXiv 2110.09784) finds a patch's values among those of its own sample, by products that are not normed.

    Args:
        temperature: τ.
        within: look among the hidden tokens of the same sample only.
        target: what is found in place of the embeddings, by name: fixed features, or "values".
        width, depth: of a predictor over seen and wanted tokens; depth 0 reads tokens hidden in place.
    """

    needs = frozenset({"tokens", "hidden", "embed"})

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.07,
        within: bool = False,
        target: Target | None = None,
        width: int | None = None,
        depth: int = 0,
    ):
        super().__init__(encoder)
        self.temperature, self.within, self.target = temperature, within, target
        out = encoder.embed_width if target is None else target.width
        self.predictor = hidden_reader(encoder, out, width, depth)

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        losses = []
        for look, _ in passes.masked():
            assert look.hidden is not None
            embedded = self._goals(passes, look)
            owner = per_sample(look.tokens)[0] if self.within else None
            for wanted in look.hidden.targets:
                predicted = read_hidden("capri", self.predictor, look, wanted)[wanted]
                whose = None if owner is None else owner[wanted]
                losses.append(uneven_mean(find(predicted, embedded[wanted], self.temperature, whose)))
        return {"loss": torch.stack(losses).mean()}

    def _goals(self, passes: Passes, look: Look) -> Tensor:
        if self.target is not None:
            with torch.no_grad():
                return self.target(look.tokens)
        assert passes.embed is not None, "an encoder without a mixing point is refused before the first step"
        return passes.embed(look.tokens)


@full_precision
def find(predicted: Tensor, embedded: Tensor, temperature: float, owner: Tensor | None = None) -> Tensor:
    """[T] −log softmax of cosines at the own one, among the embeddings of all ranks; T may differ between ranks.

    With `owner` [T], the sample of each, among those of the same sample alone.
    """
    predicted, embedded = unit(predicted.float()), unit(embedded.float())
    everyone = embedded if owner is not None else gather_uneven(embedded)
    first = 0 if owner is not None else rank_offset(len(predicted))
    own = torch.arange(len(predicted), device=predicted.device) + first

    def errors(queries: Tensor, own: Tensor, *whose: Tensor) -> Tensor:
        logits = queries @ everyone.T / temperature
        if whose and owner is not None:
            logits = logits.masked_fill(whose[0][:, None] != owner, -torch.inf)
        return F.cross_entropy(logits, own, reduction="none")

    return by_rows(errors, len(everyone), CHUNK, predicted, own, *([] if owner is None else [owner]))
