"""Every promise, every method, the three formats, and what is broken."""

import numpy as np
import pytest
from unlabeled_timeseries.example import write
from unlabeled_timeseries.readers import Recordings

import unlabeled
from unlabeled.errors import BrokenItem, UserError
from unlabeled.testing import check_plugin


def test_every_promise_and_every_method(tmp_path):
    check_plugin("timeseries", tmp_path)


def test_a_training_and_its_evaluation(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    write(data)
    unlabeled.pretrain("timeseries", data, "simclr", out=tmp_path / "run", steps=5, quiet=True)
    assert unlabeled.load(tmp_path / "run").width == 128


def test_edf_is_read_as_it_was_written(tmp_path):
    import pyedflib

    signal = np.sin(np.arange(600) / 20)
    with pyedflib.EdfWriter(str(tmp_path / "one.edf"), 2) as file:
        heads = [{"label": name, "sample_frequency": 100, "physical_min": -2, "physical_max": 2} for name in "ab"]
        file.setSignalHeaders(heads)
        file.writeSamples([signal, -signal])
    reader = Recordings(str(tmp_path), length=256)
    assert len(reader) == 2
    assert reader.facts["channels"] == 2
    mean, std = (np.array(reader.facts[name])[:, None] for name in ("mean", "std"))
    read = reader[0]["signal"].numpy() * std + mean
    np.testing.assert_allclose(read, np.stack([signal, -signal])[:, :256], atol=1e-3)


def test_what_is_broken_is_one_sample_and_one_sentence(tmp_path):
    write(tmp_path)
    (tmp_path / "slow" / "bad.npz").write_bytes(b"nothing")
    reader = Recordings(str(tmp_path))
    bad = [index for index in range(len(reader)) if reader.name(index).startswith("bad")]
    with pytest.raises(BrokenItem, match=r"bad\.npz cannot be read"):
        reader[bad[0]]
    with pytest.raises(UserError, match="holds no recording"):
        Recordings(str(tmp_path / "nowhere"))
    assert set(reader.labels("folder")) == {"slow", "fast"}
