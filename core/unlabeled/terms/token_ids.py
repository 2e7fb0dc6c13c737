"""Predict the cluster of a hidden token's features (HuBERT, arXiv 2106.07447)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Passes
from unlabeled.collectives import gather, masked_mean
from unlabeled.contract import Encoder, Target, Tokens
from unlabeled.errors import UserError
from unlabeled.normaliser import unit
from unlabeled.schedules import Clock
from unlabeled.targets import features_of
from unlabeled.terms.base import Survey, Term, hidden_reader, read_hidden

MOST = 100_000  # feature vectors that the clusters are fitted on
NUMBERS = 1 << 27  # in all of them: half a gigabyte


class TokenIds(Term):
    """Cross-entropy of cosines to learned code vectors; the codes are k-means clusters of fixed features.

    Clusters are fitted before the first epoch on features in units of their standard deviation, and stay. A second
    iteration is a run with the first as `target: {name: checkpoint, run: FOLDER, layer: L}`. Of several codebooks each
    clusters what those before it left over, and all of a token's codes are predicted: finer targets, as the quantised
    ones of MERT (arXiv 2306.00107) and SPEAR (2510.25955), whose quantisers are trained.

    Args:
        target: the features; "default" is the domain's first.
        codes: clusters of a book; as many as there are different features, where these are fewer.
        books: codebooks, each with a projection of its own; the loss is their mean.
        samples: about how many samples the clusters are fitted on.
        temperature: of the cosines.
        out: width in which predictions meet the code vectors.
        width, depth: of a predictor over seen and wanted tokens; depth 0 reads tokens hidden in place.
    """

    needs = frozenset({"tokens", "hidden"})
    centres: Tensor  # [books, codes, C]
    mean: Tensor  # [C]
    scale: Tensor  # [C]
    count: Tensor  # [books] int64: how many of the centres are in use; 0: not fitted yet

    def __init__(
        self,
        encoder: Encoder,
        *,
        target: Target,
        codes: int = 100,
        books: int = 1,
        samples: int = 5000,
        temperature: float = 0.1,
        out: int = 256,
        width: int | None = None,
        depth: int = 0,
    ):
        super().__init__(encoder)
        if codes < 2 or books < 1:
            raise UserError(f"token_ids.codes must be at least 2 and its books 1, not {codes} and {books}")
        self.target, self.codes, self.samples, self.temperature = target, codes, samples, temperature
        self.predictor = hidden_reader(encoder, books * out, width, depth)
        self.code = nn.Parameter(torch.randn(books, codes, out))
        self.register_buffer("centres", torch.zeros(books, codes, target.width))
        self.register_buffer("mean", torch.zeros(target.width))
        self.register_buffer("scale", torch.ones(target.width))
        self.register_buffer("count", torch.zeros(books, dtype=torch.int64))

    @torch.no_grad()
    def prepare(self, clock: Clock, survey: Survey) -> None:
        if int(self.count[0]):
            return
        features = _some(
            (features_of(self.target, tokens)[tokens.valid] for tokens in survey.tokens(self.samples)),
            min(MOST, NUMBERS // self.target.width),
        )
        self.mean.copy_(features.mean(0))
        self.scale.copy_(features.std(0, correction=0).clamp(min=1e-6))
        features = (features - self.mean) / self.scale
        left = features
        for book in range(len(self.centres)):
            centres = gather(_clusters(left, self.codes)[None])[0]  # the first rank's, on every rank
            self.count[book] = len(centres)
            self.centres[book, : len(centres)] = centres
            left = left - centres[torch.cdist(left, centres).argmin(1)]

    @torch.no_grad()
    def ids(self, tokens: Tokens) -> Tensor:
        """[B, N, books] int64: the nearest centre's number, of what is left over after each book."""
        left = ((features_of(self.target, tokens) - self.mean) / self.scale).flatten(0, 1)
        found = []
        for centres, count in zip(self.centres, self.count.tolist(), strict=True):
            found.append(torch.cdist(left, centres[:count]).argmin(1))
            left = left - centres[found[-1]]
        return torch.stack(found, 1).view(*tokens.valid.shape, -1)

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        losses, right = [], []
        unit_codes, counts = unit(self.code.float()), self.count.tolist()
        for look, _ in passes.masked():
            assert look.hidden is not None
            ids = self.ids(look.tokens)
            for wanted in look.hidden.targets:
                guess = read_hidden("token_ids", self.predictor, look, wanted)
                guess = unit(guess.float().unflatten(-1, (len(self.code), -1)))  # [B, N, books, out]
                for book, count in enumerate(counts):
                    logits = guess[:, :, book] @ unit_codes[book, :count].T / self.temperature
                    goal = ids[..., book]
                    error = F.cross_entropy(logits.flatten(0, 1), goal.flatten(), reduction="none").view_as(goal)
                    losses.append(masked_mean(error, wanted))
                    right.append(masked_mean((logits.argmax(-1) == goal).float(), wanted))
        return {"loss": torch.stack(losses).mean(), "accuracy": torch.stack(right).mean()}


def _some(parts: Iterable[Tensor], most: int) -> Tensor:
    """[at most `most`, C]: rows of all parts [n, C], each as likely to be chosen; no more than needed is ever held."""
    chance = torch.Generator().manual_seed(0)
    rows, order = torch.empty(0), torch.empty(0)
    for part in parts:
        rows = torch.cat([rows, part]) if len(rows) else part
        order = torch.cat([order, torch.rand(len(part), generator=chance)])
        if len(rows) > most:
            stay = order.argsort()[:most].sort().values
            rows, order = rows[stay.to(rows.device)], order[stay]
    if not len(rows):
        raise UserError("token_ids clusters features and could read no sample to take them from")
    return rows


def _clusters(features: Tensor, codes: int) -> Tensor:
    """[at most codes, C] centres."""
    from sklearn.cluster import MiniBatchKMeans

    different = len(torch.unique(features, dim=0))
    fitted = MiniBatchKMeans(min(codes, different), n_init=3, batch_size=4096, random_state=0).fit(
        features.cpu().numpy()
    )
    return torch.from_numpy(fitted.cluster_centers_).to(features)
