"""InfoNCE of one branch's embeddings against the other's, with negatives from the batch or from a queue.

MoCo v2 (arXiv 2003.04297), MoCo v3 (2104.02057), NNCLR (2104.14548) and SCARF (2106.15147) are rows of it.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Passes
from unlabeled.collectives import gather
from unlabeled.contract import Encoder
from unlabeled.errors import UserError
from unlabeled.layers import head
from unlabeled.schedules import Clock
from unlabeled.terms.base import Term, by_rows, full_precision, need_batch, spread

CHUNK = 1 << 24  # similarities held at once, 64 MB in float32


@full_precision
def info_nce(query: Tensor, key: Tensor, temperature: float, negatives: Tensor | None = None) -> Tensor:
    """−log exp(q̂ᵢ·k̂ᵢ/τ) / Σⱼ exp(q̂ᵢ·k̂ⱼ/τ), mean over i.

    Args:
        query, key: [M, D]; row i of both is of one sample.
        negatives: [J, D], what j runs over beside the own key; None: the keys of the global batch.

    Returns:
        [] this rank's share; the mean over ranks is the loss. Equal embeddings give the log of the number of keys.
    """
    q, k = F.normalize(query.float(), dim=-1), F.normalize(key.float(), dim=-1)
    attract = (q * k).sum(-1) / temperature
    if negatives is None:
        everyone = gather(k)
        repel = by_rows(partial(_log_sum, keys=everyone, temperature=temperature), len(everyone), CHUNK, q)
    else:
        others = by_rows(partial(_log_sum, keys=negatives, temperature=temperature), len(negatives), CHUNK, q)
        repel = torch.logaddexp(attract, others)
    return (repel - attract).mean()


def _log_sum(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    return (queries @ keys.T / temperature).logsumexp(1)


class InfoNCE(Term):
    """Queries are projections (and predictions) of the student, keys are projections of the teacher.

    Every student view asks for every *other* teacher view. Where there is one view, of which the student does not
    see all, it asks for that one.

    Args:
        temperature: τ.
        queue: how many past keys are the negatives, in place of the batch (MoCo v2); 0: none. Only rows that
            were filled count, so the first step has none.
        neighbours: the key's nearest neighbour among the last `queue` keys asks for the student's prediction (NNCLR).
        predictor: the student's projection goes through one more head.
        scaled: the loss × 2τ, which keeps its gradient's size whatever τ is (MoCo v3).
        layers, hidden, out, norm, end_norm: of the projector (MLP, batch norm between layers, batch norm last).
    """

    needs = frozenset({"instances", "teacher"})
    tracked = ("projector",)
    memory: Tensor  # [queue, out] unit vectors
    filled: Tensor  # [] int64
    pointer: Tensor  # [] int64

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.2,
        queue: int = 0,
        neighbours: bool = False,
        predictor: bool = False,
        scaled: bool = False,
        layers: int = 2,
        hidden: int | None = None,
        out: int = 128,
        norm: bool = True,
        end_norm: bool = False,
    ):
        super().__init__(encoder)
        if neighbours and not queue:
            raise UserError("infonce.neighbours are found in a queue: set infonce.queue above 0")
        self.temperature, self.queue, self.neighbours, self.scaled = temperature, queue, neighbours, scaled
        inner = hidden or 2 * encoder.width
        self.projector = head([encoder.width, *[inner] * (layers - 1), out], norm=norm, last_norm=end_norm)
        self.predictor = head([out, inner, out], last_norm=end_norm) if predictor else nn.Identity()
        self.register_buffer("memory", torch.zeros(queue, out))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.pending: list[Tensor] = []  # keys of this step's micro-batches, of all ranks

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        if not self.queue or self.neighbours:
            need_batch("infonce", passes)
        z, keys = self.project(passes)
        queries = [self.predictor(view) for view in z]
        pairs = [(i, j) for j in range(len(keys)) for i in range(len(queries)) if i != j]
        if not pairs:
            if not passes.masked():
                raise UserError("term 'infonce' compares views and there is one, seen whole: set views.global=2")
            pairs = [(0, 0)]
        loss = torch.stack([self._ask(queries[i], keys[j]) for i, j in pairs]).mean()
        if self.queue and self.training:
            self.pending += [gather(F.normalize(view.detach(), dim=-1)) for view in keys]
        return {"loss": 2 * self.temperature * loss if self.scaled else loss, "std": spread(z[0])}

    def _ask(self, query: Tensor, key: Tensor) -> Tensor:
        if self.neighbours:
            return info_nce(self._nearest(key.detach()), query, self.temperature)
        return info_nce(query, key, self.temperature, self._remembered() if self.queue else None)

    def _remembered(self) -> Tensor:
        return self.memory[: int(self.filled)]

    @torch.no_grad()
    def _nearest(self, key: Tensor) -> Tensor:
        """[M, D]: the nearest remembered key; the key itself while nothing is remembered."""
        memory = self._remembered()
        return memory[(F.normalize(key, dim=-1) @ memory.T).argmax(1)] if len(memory) else key

    def after_step(self, clock: Clock) -> None:
        if not self.pending:
            return
        keys = torch.cat(self.pending)
        self.pending.clear()
        keys = keys[keys.isfinite().all(1)][-self.queue :]  # a step that was skipped must leave nothing here
        place = (int(self.pointer) + torch.arange(len(keys), device=keys.device)) % self.queue
        self.memory[place] = keys
        self.pointer.copy_((self.pointer + len(keys)) % self.queue)
        self.filled.copy_((self.filled + len(keys)).clamp(max=self.queue))
