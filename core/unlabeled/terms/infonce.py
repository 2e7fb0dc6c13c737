"""InfoNCE of one branch's embeddings against the other's, with negatives from the batch or from a queue.

MoCo v2 (arXiv 2003.04297), MoCo v3 (2104.02057), NNCLR (2104.14548) and SCARF (2106.15147) are rows of it.
"""

from __future__ import annotations

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
ABSENT = -1e9  # the logit of an empty place; −inf would make the gradient of an empty queue NaN


@full_precision
def info_nce(
    query: Tensor, key: Tensor, temperature: float, queue: Tensor | None = None, filled: Tensor | None = None
) -> Tensor:
    """−log exp(q̂ᵢ·k̂ᵢ/τ) / Σⱼ exp(q̂ᵢ·k̂ⱼ/τ), mean over i.

    Args:
        query, key: [M, D]; row i of both is of one sample.
        queue: [J, D] unit vectors, what j runs over beside the own key; None: the keys of the global batch.
        filled: [] int64, how many of the queue's first rows count; None: all.

    Returns:
        [] this rank's share; the mean over ranks is the loss. Equal embeddings give the log of the number of keys.
    """
    q, k = F.normalize(query.float(), dim=-1), F.normalize(key.float(), dim=-1)
    attract = (q * k).sum(-1) / temperature
    keys = gather(k) if queue is None else queue
    empty = None if filled is None else _empty(len(keys), filled)
    repel = by_rows(lambda rows: F.linear(rows, keys, empty).logsumexp(1), len(keys), CHUNK, q / temperature)
    return ((repel if queue is None else torch.logaddexp(attract, repel)) - attract).mean()


@torch.no_grad()
@full_precision
def nearest(key: Tensor, queue: Tensor, filled: Tensor) -> Tensor:
    """[M, D]: the nearest by angle of the queue's first `filled` rows; the key itself while there are none."""
    empty = _empty(len(queue), filled)
    at = by_rows(lambda rows: F.linear(rows, queue, empty).argmax(1), len(queue), CHUNK, key)
    return torch.where(filled > 0, queue[at], key)


def _empty(places: int, filled: Tensor) -> Tensor:
    return torch.where(torch.arange(places, device=filled.device) < filled, 0.0, ABSENT)


class InfoNCE(Term):
    """Queries are projections (and predictions) of the student, keys are projections of the teacher.

    Every student view asks for every *other* teacher view. Where there is one view, of which the student does not see
    all, the whole look asks for the student's (SCARF); with a queue it is the other way round, as in MoCo.
    The loss is the mean over these pairs; MoCo v3 and NNCLR take both views' sum, MoCo v2 one pair only.

    Args:
        temperature: τ.
        queue: how many past keys are the negatives, in place of the batch (MoCo v2); 0: none. Only rows that
            were filled count, so the first step has none.
        neighbours: the key's nearest neighbour among the last `queue` keys, of the first view as in NNCLR's
            algorithm, asks for the student's prediction among the batch's.
        predictor: the student's projection goes through one more head.
        scaled: the loss × 2τ, which keeps its gradient's size whatever τ is (MoCo v3).
        layers: of the projector.
        expand: its hidden width over the encoder's; the predictor's is twice the encoder's.
        norm: batch norm between the projector's layers.
        end_norm, predictor_end_norm: batch norm after the last layer of either head.
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
        expand: float = 1.0,
        out: int = 128,
        norm: bool = True,
        end_norm: bool = False,
        predictor_end_norm: bool = False,
    ):
        super().__init__(encoder)
        if neighbours and not queue:
            raise UserError("infonce.neighbours are found in a queue: set infonce.queue above 0")
        self.temperature, self.queue, self.neighbours, self.scaled = temperature, queue, neighbours, scaled
        hidden = [round(expand * encoder.width)] * (layers - 1)
        self.projector = head([encoder.width, *hidden, out], norm=norm, last_norm=end_norm)
        widths = [out, 2 * encoder.width, out]
        self.predictor = head(widths, last_norm=predictor_end_norm) if predictor else nn.Identity()
        self.register_buffer("memory", torch.zeros(queue, out))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.pending: list[Tensor] = []  # keys of this step's micro-batches, of all ranks

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("infonce", passes)
        z, keys = self.project(passes)
        queries = [self.predictor(view) for view in z]
        pairs = [(queries[i], keys[j]) for j in range(len(keys)) for i in range(len(queries)) if i != j]
        if not pairs:
            if not passes.masked():
                raise UserError("term 'infonce' compares views and there is one, seen whole: set views.global=2")
            pairs = [(queries[0], keys[0]) if self.queue else (keys[0], queries[0])]
        loss = torch.stack([self._ask(*pair) for pair in pairs]).mean()
        if self.queue and self.training:
            remembered = keys[:1] if self.neighbours else keys
            self.pending += [gather(F.normalize(view.detach(), dim=-1)) for view in remembered]
        return {"loss": 2 * self.temperature * loss if self.scaled else loss, "std": spread(z[0])}

    def _ask(self, query: Tensor, key: Tensor) -> Tensor:
        if self.neighbours:
            return info_nce(nearest(key, self.memory, self.filled), query, self.temperature)
        if self.queue:
            return info_nce(query, key, self.temperature, self.memory, self.filled)
        return info_nce(query, key, self.temperature)

    def after_step(self, clock: Clock) -> None:
        if not self.pending:
            return
        keys = torch.cat(self.pending)[-self.queue :]
        self.pending.clear()
        good = keys.isfinite().all()  # a step that is skipped must leave nothing here
        place = (self.pointer + torch.arange(len(keys), device=keys.device)) % self.queue
        self.memory[place] = torch.where(good, keys, self.memory[place])
        count = good * len(keys)
        self.pointer.add_(count).remainder_(self.queue)
        self.filled.add_(count).clamp_(max=self.queue)
