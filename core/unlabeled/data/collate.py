"""Samples become a batch."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import default_collate

from unlabeled.contract import Batch, Sample
from unlabeled.errors import UserError
from unlabeled.plugins import Registry

__all__ = ["collate"]


def collate(samples: Sequence[Sample], registry: Registry) -> Batch:
    """The domain's own batch of samples, or tensors of equal shape stacked, name by name.

    Raises:
        UserError: samples differ in shape and the domain does not say how to join them.
    """
    own: Batch | None = registry.collate(samples)
    if own is not None:
        return own
    batch = {}
    for name in samples[0]:
        shapes = {tuple(sample[name].shape) for sample in samples}
        if len(shapes) > 1:
            raise UserError(
                f"samples differ in the shape of {name!r} ({min(shapes)} and {max(shapes)}): choose a view that crops "
                f"them to one size, or give domain {registry.domain!r} an unlabeled_collate hook"
            )
        batch[name] = default_collate([sample[name] for sample in samples])  # in a worker, in memory that is shared
    return batch
