"""The loss against its definition, and real steps with every encoder of a domain."""

import pytest
import torch
from unlabeled_spectral.terms import spectral

import unlabeled
from unlabeled import plugins
from unlabeled.testing import Bench


def test_the_loss_is_the_sum_over_pairs():
    one, two = torch.randn(2, 7, 5).unbind()
    same = sum(torch.dot(one[i], two[i]) for i in range(7)) / 7
    apart = sum(torch.dot(one[i], two[j]) ** 2 for i in range(7) for j in range(7) if i != j) / 42
    torch.testing.assert_close(spectral(one, two), apart - 2 * same)


def test_right_angles_are_best():
    """With as many dimensions as samples the least loss is −2 × radius, at right angles."""
    z = torch.eye(6)
    assert spectral(z, z) == -2
    assert spectral(torch.ones(6, 6) / 6**0.5, torch.ones(6, 6) / 6**0.5) == pytest.approx(-1)


def test_every_encoder_learns(tmp_path):
    bench = Bench("tabular", tmp_path)
    for encoder in plugins.load("tabular").encoders:
        bench.check_method(encoder, "spectral")


def test_a_training(tmp_path):
    data = Bench("tabular", tmp_path).examples[0]
    unlabeled.pretrain("tabular", data, "spectral", out=tmp_path / "run", steps=3, quiet=True)
    assert unlabeled.load(tmp_path / "run").width


def test_every_domain_that_is_installed_has_it():
    for plugin in plugins.listing():
        if plugin.name.endswith("-spectral"):
            assert "spectral" in plugins.load(plugin.domain).methods
