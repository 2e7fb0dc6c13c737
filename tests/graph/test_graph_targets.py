"""What hidden nodes are predicted as, against the dense formula."""

from __future__ import annotations

import pytest
import torch

from unlabeled import plugins
from unlabeled.errors import UserError
from unlabeled_graph.batches import collate
from unlabeled_graph.encoders import GCN
from unlabeled_graph.readers import GraphReader
from unlabeled_graph.targets import Propagated


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_propagated_features_are_those_of_the_dense_formula(many: GraphReader, hops: int) -> None:
    encoder = GCN(many.facts, width=8)
    tokens = encoder.tokenize(collate([many[index] for index in range(5)]))
    nodes = tokens.valid.shape[1]
    joined = torch.eye(nodes, dtype=torch.float64)
    for source, target in tokens.context["edge_index"].T.tolist():
        joined[target, source] += 1
    scale = joined.sum(1).rsqrt().diag()
    wanted = torch.linalg.matrix_power(scale @ joined @ scale, hops) @ tokens.values[0].double()
    target = Propagated(encoder, hops=hops)
    assert target.width == tokens.values.shape[-1]
    torch.testing.assert_close(target(tokens)[0].double(), wanted, atol=1e-5, rtol=1e-5)
    assert (wanted - tokens.values[0]).abs().max() > 0.1


def test_propagated_is_the_domains_default(many: GraphReader) -> None:
    registry = plugins.load("graph")
    assert next(name for name in registry.targets if name not in plugins.core().targets) == "propagated"
    with pytest.raises(UserError, match="at least 1 hop, not 0"):
        Propagated(GCN(many.facts, width=8), hops=0)
