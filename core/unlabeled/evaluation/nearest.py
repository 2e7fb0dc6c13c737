"""The most similar of very many rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

AT_ONCE = 1 << 27  # similarities in memory: 512 MB
BLOCK = 64  # keys of which the best one is looked at first
LARGE = 1 << 30  # similarities from which a pass in half the precision pays
WIDER = 8  # times k candidates are kept of that pass
WRONG = 2**-7 + 2**-8 + 2**-10
"""How far an inner product of unit rows in bfloat16 is off at most.

Both rows are rounded to within a part in 2⁸, the sum too, and by Cauchy and Schwarz Σ |xᵢ yᵢ| ≤ 1; the rest is room for
the sum itself, in float32."""


def unit(x: Tensor) -> Tensor:
    """Rows of length 1."""
    return F.normalize(x, dim=-1)


def nearest(queries: Tensor, keys: Tensor, k: int, *, half: bool | None = None) -> tuple[Tensor, Tensor]:
    """Cosines [q, k] and numbers [q, k] of the k keys most similar to each query, the most similar first.

    Exact: where there are very many and the processor multiplies bfloat16 fast, a pass in it finds candidates, whose
    cosines are computed in full; a query for which the rounding could have hidden a better one is asked again in full.

    Args:
        queries, keys: [q, D], [n, D] float32 of unit rows.
        k: at most n.
        half: whether to make that pass; None: where it pays.
    """
    rows = max(1, AT_ONCE // len(keys))
    if half is None:
        half = queries.device.type == "cpu" and len(queries) * len(keys) >= LARGE and _fast_half()
    half = half and k * WIDER < len(keys)
    coarse = keys.bfloat16() if half else keys
    room = coarse.new_empty(min(rows, len(queries)), len(keys))  # once: the system gives memory at a page's price
    found = []
    for part in queries.split(rows):
        similar = torch.mm(part.to(coarse.dtype), coarse.T, out=room[: len(part)])
        if not half:
            found.append(largest(similar, k))
            continue
        near, numbers, sure = _of_candidates(part, keys, similar, k)
        if not bool(sure.all()):
            near[~sure], numbers[~sure] = largest(part[~sure] @ keys.T, k)
        found.append((near, numbers))
    values, places = zip(*found, strict=True)
    return torch.cat(values), torch.cat(places)


def largest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`x.topk(k)` of [q, n], several times faster where n is large: no more than k blocks hold one of the k largest."""
    blocks = x.shape[1] // BLOCK
    if blocks < 4 * k:
        found = x.topk(k)
        return found.values, found.indices
    whole = blocks * BLOCK
    best = x[:, :whole].unflatten(1, (blocks, BLOCK)).amax(2).topk(k).indices
    inside = (best[:, :, None] * BLOCK + torch.arange(BLOCK, device=x.device)).flatten(1)
    rest = torch.arange(whole, x.shape[1], device=x.device).expand(len(x), -1)
    numbers = torch.cat([inside, rest], 1)
    found = x.gather(1, numbers).topk(k)
    return found.values, numbers.gather(1, found.indices)


def _of_candidates(queries: Tensor, keys: Tensor, similar: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines and numbers [q, k] by the rough cosines [q, n] of all keys, and whether they are surely right [q]."""
    rough, candidates = largest(similar, k * WIDER)
    exact = torch.bmm(keys[candidates], queries[:, :, None])[:, :, 0]
    found = exact.topk(k)
    return found.values, candidates.gather(1, found.indices), found.values[:, -1] >= rough[:, -1].float() + WRONG


def _fast_half() -> bool:
    """Whether the processor has instructions for bfloat16; torch says so under a name that may go."""
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(known and known())
