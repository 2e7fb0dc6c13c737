"""InfoNCE of one branch's embeddings against the other's, with negatives from the batch or from a queue.

MoCo v2 (arXiv 2003.04297), MoCo v3 (2104.02057), NNCLR (2104.14548) and SCARF (2106.15147) are rows of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unlabeled.branches import Passes
from unlabeled.collectives import gather
from unlabeled.contract import Encoder
from unlabeled.errors import UserError
from unlabeled.layers import head
from unlabeled.normaliser import mean_log_normaliser, unit
from unlabeled.terms.base import Remembering, by_rows, full_precision, need_batch, spread

CHUNK = 1 << 24  # similarities held at once, 64 MB in float32


@full_precision
def info_nce(query: Tensor, key: Tensor, temperature: float, queue: Tensor | None = None) -> Tensor:
    """−log exp(q̂ᵢ·k̂ᵢ/τ) / Σⱼ exp(q̂ᵢ·k̂ⱼ/τ), mean over i.

    Args:
        query, key: [M, D]; row i of both is of one sample.
        queue: [J, D] unit vectors, what j runs over beside the own key; None: the keys of the global batch.

    Returns:
        [] this rank's share; the mean over ranks is the loss. Equal embeddings give the log of the number of keys.
    """
    q, k = unit(query.float()), unit(key.float())
    attract = (q * k).sum(-1) / temperature
    if queue is None:
        return mean_log_normaliser(q, gather(k), scale=1 / temperature) - attract.mean()
    repel = by_rows(lambda rows: (rows @ queue.T).logsumexp(1), len(queue), CHUNK, q / temperature)
    return (torch.logaddexp(attract, repel) - attract).mean()


@torch.no_grad()
@full_precision
def nearest(key: Tensor, queue: Tensor) -> Tensor:
    """[M, D]: the row of the queue [J, D] of unit vectors that is nearest by angle; the key itself where J is 0."""
    if not len(queue):
        return key
    at = by_rows(lambda rows: (rows @ queue.T).argmax(1), len(queue), CHUNK, key)
    return queue[at]


class InfoNCE(Remembering):
    """Queries are projections (and predictions) of the student, keys are projections of the teacher.

    Every student view asks for every *other* teacher view. Where there is one view, of which the student does not see
    all, the whole look asks for the student's (SCARF), unless past keys take part.
    The loss is the mean over these pairs; MoCo v3 takes their sum, MoCo v2 one of them.

    Args:
        temperature: τ.
        queue: how many past keys are the negatives, in place of the batch (MoCo v2); 0: none.
        neighbours: how many past keys of the first view the key's nearest neighbour is sought among, which asks for
            the student's prediction among the batch's in place of the key (NNCLR); 0: none.
        predictor: the student's projection goes through one more head.
        scaled: the loss × 2τ, which keeps its gradient's size whatever τ is (MoCo v3).
        layers: of the projector.
        expand: its hidden width over the encoder's; the predictor's is twice the encoder's.
        norm: batch norm between the projector's layers.
        end_norm, predictor_norm: batch norm after the last layer of the projector, of the predictor.
    """

    needs = frozenset({"instances", "teacher"})
    tracked = ("projector",)

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.2,
        queue: int = 0,
        neighbours: int = 0,
        predictor: bool = False,
        scaled: bool = False,
        layers: int = 2,
        expand: float = 1.0,
        out: int = 128,
        norm: bool = True,
        end_norm: bool = False,
        predictor_norm: bool = False,
    ):
        if queue and neighbours:
            raise UserError("infonce keeps past keys as negatives or as neighbours: set queue or neighbours to 0")
        super().__init__(encoder, queue or neighbours, out)
        self.temperature, self.queue, self.neighbours, self.scaled = temperature, queue, neighbours, scaled
        hidden = [round(expand * encoder.width)] * (layers - 1)
        self.projector = head([encoder.width, *hidden, out], norm=norm, last_norm=end_norm)
        widths = [out, 2 * encoder.width, out]
        self.predictor = head(widths, last_norm=predictor_norm) if predictor else nn.Identity()

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        need_batch("infonce", passes)
        z, keys = self.project(passes)
        queries = [self.predictor(view) for view in z]
        pairs = [(queries[i], keys[j]) for j in range(len(keys)) for i in range(len(queries)) if i != j]
        if not pairs:
            if not passes.masked():
                raise UserError("term 'infonce' compares views and there is one, seen whole: set views.global=2")
            pairs = [(queries[0], keys[0]) if len(self.memory) else (keys[0], queries[0])]
        loss = torch.stack([self._ask(*pair) for pair in pairs]).mean()
        for view in keys[:1] if self.neighbours else keys:
            self.remember(view)
        return {"loss": 2 * self.temperature * loss if self.scaled else loss, "std": spread(z[0])}

    def _ask(self, query: Tensor, key: Tensor) -> Tensor:
        if self.neighbours:
            return info_nce(nearest(key, self.past), query, self.temperature)
        return info_nce(query, key, self.temperature, self.past if self.queue else None)
