"""Which transform was it? RotNet (arXiv 1803.07728), with the transforms that a domain's views know."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlabeled.branches import Passes
from unlabeled.contract import Encoder
from unlabeled.errors import UserError
from unlabeled.terms.base import Term, spread


class PredictTransform(Term):
    """Cross-entropy of a linear head, on the instances of every view, against the number of its transform.

    Args:
        transforms: K, the view's, which the loop fills in.
    """

    needs = frozenset({"instances", "transforms"})

    def __init__(self, encoder: Encoder, *, transforms: int = 0):
        super().__init__(encoder)
        if transforms < 2:
            raise UserError(f"term 'transform' tells known transforms apart and the view knows {transforms}")
        self.classifier = nn.Linear(encoder.width, transforms)

    def forward(self, passes: Passes) -> dict[str, Tensor]:
        instances = passes.instances("student")
        which = torch.cat([passes.transforms[kind] for kind in passes.student])
        z = torch.cat(instances)
        if len(z) != len(which):
            raise UserError("term 'transform' needs an instance a sample, and instances here are parts of one whole")
        logits = self.classifier(z).float()
        right = (logits.argmax(1) == which).float().mean()
        return {"loss": F.cross_entropy(logits, which), "accuracy": right, "std": spread(instances[0])}
