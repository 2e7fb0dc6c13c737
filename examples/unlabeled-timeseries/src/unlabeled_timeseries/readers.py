"""Recordings cut into windows."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from unlabeled.contract import Reader
from unlabeled.errors import BrokenItem, UserError

SUFFIXES = (".csv", ".npz", ".edf")


@lru_cache(maxsize=4)
def load(path):
    """[N, C, T] float32, N recordings of one file."""
    try:
        if path.suffix == ".csv":
            signals = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2).T
        elif path.suffix == ".npz":
            signals = np.load(path)["signals"]
        else:
            signals = _edf(path)
    except (OSError, ValueError, KeyError) as error:
        raise BrokenItem(f"{path.name} cannot be read: {error}") from None
    return (signals if signals.ndim == 3 else signals[None]).astype(np.float32)


def _edf(path):
    import pyedflib

    with pyedflib.EdfReader(str(path)) as file:
        return np.stack([file.readSignal(channel) for channel in range(file.signals_in_file)])


class Recordings(Reader):
    """Windows of `length` samples from every recording in a folder, or in one file."""

    def __init__(self, source, *, facts=None, length: int = 256):
        path = Path(source)
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES)
        if not files:
            raise UserError(f"{source} holds no recording; there are: {', '.join(SUFFIXES)}")
        self.windows, moments = [], []
        length = facts["length"] if facts else length
        for file in files:
            try:
                signals = load(file)
            except BrokenItem:
                self.windows.append((file, 0, 0))  # one sample, which will say what is wrong
                continue
            moments.append((signals.shape[1], signals.mean((0, 2)), signals.std((0, 2))))
            count, _, time = signals.shape
            self.windows += [(file, n, at) for n in range(count) for at in range(0, time - length + 1, length)]
        if not moments:
            raise UserError(f"none of the {len(files)} files of {source} can be read; the first is {files[0].name}")
        self.facts = facts or self._fit(moments, length)

    def _fit(self, moments, length):
        channels = moments[0][0]
        _, means, stds = zip(*[one for one in moments if one[0] == channels], strict=True)
        mean, std = np.mean(means, 0), np.maximum(np.mean(stds, 0), 1e-6)
        return {"channels": channels, "length": length, "mean": mean.tolist(), "std": std.tolist()}

    def __len__(self):
        return len(self.windows)

    def __getitem__(self, index):
        file, number, start = self.windows[index]
        signal = load(file)[number, :, start : start + self.facts["length"]]
        if signal.shape[0] != self.facts["channels"]:
            raise BrokenItem(f"{file.name} has {signal.shape[0]} channels, not {self.facts['channels']}")
        if not np.isfinite(signal).all():
            raise BrokenItem(f"{file.name} has values that are no numbers")
        mean, std = (np.float32(self.facts[name])[:, None] for name in ("mean", "std"))
        return {"signal": torch.from_numpy((signal - mean) / std)}

    def name(self, index):
        file, number, start = self.windows[index]
        return f"{file.name}[{number}] from {start}"

    def labels(self, spec):
        if spec != "folder":
            raise UserError(f"recordings have no label {spec!r}; there is: folder")
        return np.array([file.parent.name for file, _, _ in self.windows])
