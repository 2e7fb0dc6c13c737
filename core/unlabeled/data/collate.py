"""Samples become a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from unlabeled.contract import Batch, Sample
from unlabeled.errors import UserError
from unlabeled.plugins import Registry

__all__ = ["collate", "padded"]


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


def padded(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors [L, ...] of any lengths as one [B, longest, ...], zeros after the end of each.

    In a worker it lies in memory that is shared, as torch's own batches do. That is zero where it is new, so that
    padding, which may be most of a batch, is neither written nor sent.
    """
    first, count = tensors[0], [one.shape[0] for one in tensors]
    shape = (len(tensors), max(count), *first.shape[1:])
    if get_worker_info() is None or not math.prod(shape):
        out = first.new_zeros(shape)
    else:
        memory = torch.UntypedStorage._new_shared(math.prod(shape) * first.dtype.itemsize)
        out = first.new_empty(0).set_(memory).view(shape)
    for row, one, own in zip(out.unbind(), tensors, count, strict=True):
        row[:own] = one
    return out
