"""The scikit-learn transformer: the same numbers as `embed`, and at home in a Pipeline."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import unlabeled
from unlabeled.embedding import embed
from unlabeled.errors import UserError
from unlabeled.saved import describe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("embedder"), np.random.default_rng(0)
    for name, rows in (("train", 100), ("new", 30)):
        lines = [f"{a:.3f},{b:.3f},{'yes' if a > 0 else 'no'}" for a, b in random.normal(size=(rows, 2))]
        (folder / f"{name}.csv").write_text("\n".join(["a,b,label", *lines]) + "\n")
    reader, encoder = {"exclude": ["label"]}, {"name": "mlp", "width": 16}
    data, out = folder / "train.csv", folder / "run"
    unlabeled.pretrain("tabular", data, "mae", out=out, reader=reader, encoder=encoder, steps=2, quiet=True)
    return folder


def test_it_gives_what_embed_gives(folder: Path) -> None:
    saved, encoder = describe(folder / "run"), unlabeled.load(folder / "run")
    reader = saved.make_reader(str(folder / "new.csv"))
    wanted = embed(encoder, reader, saved.make_view(), saved.registry).instances.numpy()
    embedder = unlabeled.Embedder(folder / "run", batch_size=7)
    found = embedder.transform(folder / "new.csv")
    assert (found.shape, found.dtype) == ((30, 16), np.float32)
    assert np.allclose(found, wanted, atol=1e-6)
    twice = embedder.transform([folder / "new.csv", folder / "train.csv"])
    assert np.array_equal(twice[:30], found)
    assert len(twice) == 130
    tokens = encoder.tokenize(reader.batch(range(30)))
    assert np.allclose(encoder(tokens).instances.detach().numpy(), wanted, atol=1e-6), "two lines give a torch module"


def test_it_works_in_a_pipeline(folder: Path) -> None:
    embedder = unlabeled.Embedder(str(folder / "run"))
    labels = {
        name: np.asarray(describe(folder / "run").make_reader(str(folder / f"{name}.csv")).labels("label"))
        for name in ("train", "new")
    }
    model = clone(make_pipeline(embedder, LogisticRegression(C=100, max_iter=2000)))
    model.fit(str(folder / "train.csv"), labels["train"])
    assert model.score(str(folder / "new.csv"), labels["new"]) > 0.85
    again = pickle.loads(pickle.dumps(model))
    assert (again.predict(str(folder / "new.csv")) == model.predict(str(folder / "new.csv"))).all()
    assert clone(embedder).get_params() == {"run": str(folder / "run"), "batch_size": None, "device": "auto"}


def test_what_it_cannot_take_is_one_sentence(folder: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.csv"):
        unlabeled.Embedder(folder / "run").transform(folder / "nowhere.csv")
    with pytest.raises(UserError, match="nowhere does not exist; give the folder"):
        unlabeled.Embedder("nowhere").transform(folder / "new.csv")
    with pytest.raises(UserError, match="and got none"):
        unlabeled.Embedder(folder / "run").transform([])
