"""Every promise of the domain, with what is added to it, and a training of it."""

import pytest
import torch
from unlabeled_deepsets.views import Noise

import unlabeled
from unlabeled import plugins
from unlabeled.errors import UserError
from unlabeled.randomness import Draws, sample_keys
from unlabeled.testing import Bench


def test_every_promise_and_every_method(tmp_path):
    bench = Bench("tabular", tmp_path)
    bench.check_view("noise")
    bench.check_encoder("deepsets")
    for method in plugins.load("tabular").methods:
        bench.check_method("deepsets", method)


def test_noise_moves_known_numbers_alone():
    batch = {"numbers": torch.zeros(4, 3), "missing": torch.eye(4, 3) > 0, "codes": torch.ones(4, 2, dtype=torch.int64)}
    view = Noise({"columns": [{}] * 5}, sigma=0.5).batch(batch, "global", Draws(sample_keys(0, 0, torch.arange(4))))
    assert torch.equal(view["numbers"] == 0, batch["missing"])
    assert view["codes"] is batch["codes"]


def test_a_training(tmp_path):
    data = Bench("tabular", tmp_path).examples[0]
    unlabeled.pretrain(
        "tabular", data, "simclr", out=tmp_path / "run", encoder="deepsets", view="noise", steps=3, quiet=True
    )
    assert unlabeled.load(tmp_path / "run").width == 64


def test_noise_has_a_size():
    with pytest.raises(UserError, match="0 or more, not -1"):
        Noise({"columns": []}, sigma=-1)
