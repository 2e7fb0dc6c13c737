"""A plugin as it was written for unlabeled 0.1: every hook, and most of what docs/public.md named then.

Frozen: it is never edited to suit the core. What breaks it breaks strangers' plugins, and has to go the way that
docs/public.md promises: the old name for two more minor versions, with a warning.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from unlabeled.cli.parser import CommandParser
from unlabeled.collectives import batch_mean, masked_mean
from unlabeled.contract import Encoded, Encoder, Predictor, Reader, Tokens, View
from unlabeled.errors import BrokenItem, UserError, nearest
from unlabeled.hookspecs import hookimpl
from unlabeled.layers import Place, Trunk, head, mean_of, predictor
from unlabeled.masking import Hidden, lowest, per_sample, rows_of, scores
from unlabeled.methods import Method, Views, use
from unlabeled.terms.base import Term, full_precision, need_batch, pairs_of, spread

PATCH = 4


class Signals(Reader):
    """A folder of .npy signals of different length; the class of one is in its name."""

    embed_batch = 64

    def __init__(self, source, *, facts=None):
        self.paths = sorted(Path(source).glob("*.npy"))
        if not self.paths:
            raise UserError(f"{source} holds no .npy file")
        self.facts = facts or self._fit()

    def _fit(self):
        values = np.concatenate([np.load(path) for path in self.paths if "broken" not in path.name])
        return {"mean": float(values.mean()), "std": float(values.std())}

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        try:
            signal = np.load(self.paths[index])
        except (ValueError, EOFError) as error:
            raise BrokenItem(str(error)) from None
        return {"signal": torch.from_numpy(signal)}

    def name(self, index):
        return self.paths[index].name

    def labels(self, spec):
        if spec != "kind":
            raise UserError(f"no label is called {spec!r}; {nearest(spec, ['kind'])}")
        return np.array([path.stem.split("-")[0] for path in self.paths])

    def summary(self):
        return [{"file": path.name, "bytes": str(path.stat().st_size)} for path in self.paths]


class Crops(View):
    transforms = 2

    def __init__(self, facts, *, gain: float = 0.2):
        self.gain = gain

    def sample(self, sample, kind, draws):
        signal = sample["signal"]
        size = max(2 * PATCH, int({"global": 0.8, "local": 0.4}.get(kind, 1.0) * len(signal)))
        start = int(draws.integers(0, len(signal) - size + 1)[0])
        return {"signal": signal[start : start + size]}

    def batch(self, batch, kind, draws):
        if kind in ("plain", "whole"):
            return batch
        gain = 1 + self.gain * draws.fork("gain").normal(1)
        return {**batch, "signal": batch["signal"] * gain}

    def transform(self, batch, which):
        return {**batch, "signal": torch.where(which[:, None] == 1, -batch["signal"], batch["signal"])}


class Steps:
    """Content of its own: the differences between neighbouring values."""

    width = PATCH - 1

    def loss(self, prediction, tokens):
        return (prediction - tokens.values.diff(dim=-1)).abs().mean(-1)


class Guess(Predictor):
    """The mean of what is seen, and the place of what is wanted."""

    def __init__(self, enter, out, width):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(enter + 1, width), nn.GELU(), nn.Linear(width, out))

    def forward(self, latent, tokens, seen, wanted):
        about = mean_of(latent, seen)[:, None].expand(-1, latent.shape[1], -1)
        return self.net(torch.cat([about, tokens.coords], -1))


class Former(Encoder):
    value_width, coord_width, depth = PATCH, 1, 2

    def __init__(self, facts, *, width: int = 32):
        super().__init__()
        self.facts, self.width, self.embed_width, self.content = facts, width, width, Steps()
        self.enter, self.place, self.trunk = nn.Linear(PATCH, width), Place(1, width), Trunk(width, self.depth)

    def tokenize(self, batch):
        length = batch["length"][:, None]
        signal = (batch["signal"] - self.facts["mean"]) / self.facts["std"]
        signal = torch.where(torch.arange(signal.shape[1], device=signal.device) < length, signal, 0)
        values = F.pad(signal, (0, -signal.shape[1] % PATCH)).unflatten(1, (-1, PATCH))
        place = PATCH * torch.arange(values.shape[1], device=signal.device)
        return Tokens(values, (place / length).clamp(max=1)[..., None], place < length, {"length": batch["length"]})

    def embed(self, tokens):
        return self.enter(tokens.values)

    def forward(self, tokens, hidden=None, layers=0, alter=None):
        keep = tokens.valid if hidden is None else tokens.valid & ~hidden
        x = self.embed(tokens) if alter is None else alter(self.embed(tokens))
        x, kept = self.trunk(x + self.place(tokens.coords), keep, tokens.owner, layers)
        return Encoded(x, mean_of(x, keep), torch.stack(kept) if layers else None)

    def predictor(self, out_width, width, depth):
        return Guess(self.width, out_width, width)


class Summary(Former):
    """No tokens, no mixing point."""

    def __init__(self, facts, *, width: int = 32):
        super().__init__(facts, width=width)
        del self.place, self.trunk
        self.depth, self.embed_width, self.has_tokens, self.content = 0, 0, False, None

    def forward(self, tokens, hidden=None, layers=0, alter=None):
        keep = tokens.valid if hidden is None else tokens.valid & ~hidden
        return Encoded(None, mean_of(self.enter(tokens.values).relu(), keep))


class HideSome:
    """The mask: a share of each sample's tokens."""

    gives = frozenset({"hidden"})

    def __init__(self, *, share: float = 0.5):
        self.share = share

    def __call__(self, tokens, draws):
        rows = rows_of(tokens, draws)
        _, valid = per_sample(tokens)
        count = torch.minimum((self.share * valid).round().long().clamp(min=1), (valid - 1).clamp(min=0))
        hidden = lowest(scores(tokens, rows.fork("score")), tokens.valid, tokens.owner, count)
        return Hidden(hidden, (hidden,))


class Energy:
    """The target: how loud a patch is."""

    width = 1

    def __init__(self, encoder):
        del encoder

    def __call__(self, tokens):
        return tokens.values.square().mean(-1, keepdim=True)


@full_precision
def pull(one, two):
    one, two = (F.normalize(z, dim=-1) for z in (one, two))
    return 1 - (one * two).sum(-1).mean() + batch_mean(one).square().sum()


class PullAndFill(Term):
    """Views agree, and a head fills hidden tokens' features."""

    needs = frozenset({"instances", "views", "tokens", "hidden", "teacher"})
    tracked = ("projector",)

    def __init__(self, encoder, *, out: int = 16, target=None):
        super().__init__(encoder)
        self.target = target or Energy(encoder)
        self.projector = head([encoder.width, encoder.width, out])
        self.decoder = predictor(encoder, self.target.width, None, 1)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, passes):
        need_batch("pull_and_fill", passes)
        student, teacher = self.project(passes)
        agree = torch.stack([pull(student[one], teacher[two]) for one, two in pairs_of(len(student))]).mean()
        fills = []
        for look, _ in passes.masked():
            wanted = look.hidden.targets[0]
            guess = self.decoder(look.latent, look.tokens, look.seen, wanted)
            fills.append(masked_mean((guess - self.target(look.tokens)).square().mean(-1), wanted))
        fill = torch.stack(fills).mean()
        return {"loss": agree + fill, "agree": agree.detach(), "fill": fill.detach(), "std": spread(student[0])}

    def after_step(self, clock):
        self.steps += 1
        assert int(self.steps) == clock.step + 1


def count(arguments):
    """Count the signals in DATA."""
    parser = CommandParser("unlabeled old count")
    parser.add_argument("data")
    print(len(Signals(parser.parse_args(arguments).data)))


@hookimpl
def unlabeled_readers():
    return {"npy": Signals}


@hookimpl
def unlabeled_views():
    return {"crops": Crops}


@hookimpl
def unlabeled_collate(samples):
    length = torch.tensor([len(sample["signal"]) for sample in samples])
    return {"signal": nn.utils.rnn.pad_sequence([sample["signal"] for sample in samples], True), "length": length}


@hookimpl
def unlabeled_encoders():
    return {"former": Former, "summary": Summary}


@hookimpl
def unlabeled_masks():
    return {"some": HideSome}


@hookimpl
def unlabeled_targets():
    return {"energy": Energy}


@hookimpl
def unlabeled_terms():
    return {"pull_and_fill": PullAndFill}


@hookimpl
def unlabeled_methods():
    row = Method(
        views=Views(global_=2),
        hide=use("some", share=0.4),
        teacher=use("ema", momentum=0.99),
        terms=(use("pull_and_fill", target="energy"), use("koleo", weight=0.1)),
        summary="views agree, and hidden patches are as loud as they are said to be",
    )
    return {"fill": row, "fill_more": replace(row, hide=use("some", share=0.7))}


@hookimpl
def unlabeled_recipes():
    return {"default": {"epochs": 2, "batch_size": 4, "lr": 1e-3}, "fill": {"set": {"some.share": 0.5}}}


@hookimpl
def unlabeled_commands():
    return {"count": count}


@hookimpl
def unlabeled_example(folder):
    """Sixteen signals of two kinds and of different length, and a damaged file."""
    chance = np.random.default_rng(0)
    for number in range(16):
        length = 17 + 3 * number
        signal = chance.normal(size=length) if number % 2 else np.sin(np.arange(length) / 3)
        np.save(folder / f"{('wave', 'noise')[number % 2]}-{number}.npy", signal.astype(np.float32))
    (folder / "wave-broken.npy").write_bytes(b"\x93NUMPY, and then nothing")
    return str(folder)
