"""A reader of large samples says how many go through an encoder at once."""

from __future__ import annotations

import pytest
import torch

from unlabeled import plugins
from unlabeled.embedding import embed


def test_as_many_as_the_reader_says_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = plugins.load("toy")
    reader, facts = registry.make("reader", None, "digits"), {"places": 64}
    encoder, view = registry.make("encoder", None, facts), registry.make("view", None, facts)
    sizes: list[int] = []
    cut = type(encoder).tokenize
    monkeypatch.setattr(
        type(encoder), "tokenize", lambda self, batch: (sizes.append(len(batch["pixels"])), cut(self, batch))[1]
    )
    whole = embed(encoder, reader, view, registry, indices=torch.arange(20)).instances
    reader.embed_batch = 8
    parts = embed(encoder, reader, view, registry, indices=torch.arange(20)).instances
    embed(encoder, reader, view, registry, indices=torch.arange(20), batch_size=5)
    assert sizes == [20, 8, 8, 4, 5, 5, 5, 5]
    assert torch.allclose(whole, parts, atol=1e-5)
