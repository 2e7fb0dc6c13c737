"""A domain's plugins on the examples that they write themselves: check_plugin, and its parts one by one."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unlabeled import plugins
from unlabeled.config import Training
from unlabeled.contract import Batch, Encoder, Reader, Sample, View
from unlabeled.data.collate import collate
from unlabeled.errors import UserError
from unlabeled.plugins import Registry
from unlabeled.randomness import sample_keys
from unlabeled.testing.encoders import check_encoder, check_tokens
from unlabeled.testing.learning import check_method
from unlabeled.testing.promises import BrokenPromise, attempt, chance, expect, unequal
from unlabeled.testing.readers import check_reader, damaged
from unlabeled.testing.views import KINDS, check_view, make_view

FLAGS = ("data", "out", "method", "view", "encoder", "labels", "init", "resume", "config")  # of `pretrain` besides
SAMPLES = 8  # of the example, in the batches that encoders see


def check_plugin(domain: str, folder: Path) -> None:
    """Run every promise on every reader, view and encoder of a domain, and every encoder by every method.

    Args:
        domain: the name of the entry point.
        folder: where the plugins write their examples, a temporary one.

    Raises:
        PluginError: a plugin of the domain cannot be loaded.
        BrokenPromise: the first promise that is not kept.
    """
    bench = Bench(domain, folder)
    for name in bench.registry.readers:
        bench.check_reader(name)
    for name in bench.registry.views:
        bench.check_view(name)
    for name in bench.registry.encoders:
        bench.check_encoder(name)
        for method in bench.registry.methods:
            bench.check_method(name, method)


class Bench:
    """A domain's registry with its examples open.

    Raises:
        PluginError: a plugin of the domain cannot be loaded, or lacks what it requires.
        BrokenPromise: something is missing that no check can do without (P1, P2).
    """

    def __init__(self, domain: str, folder: Path):
        self.registry: Registry = plugins.load(domain)
        for plugin in plugins.listing():
            if plugin.domain == domain and plugin.missing:
                lack = ", ".join(plugin.missing)
                raise plugins.PluginError(f"plugin {plugin} lacks {lack}; mend it with: {plugin.mend}")
        self.who = f"domain {domain!r}"
        for table in ("readers", "views", "encoders"):
            expect(bool(getattr(self.registry, table)), "P2", self.who, f"it offers no {table}")
        for table in ("masks", "targets", "terms", "methods", "recipes", "commands"):
            getattr(self.registry, table)  # what is wrong with it shows below
        self.examples = self.registry.examples(folder)
        expect(bool(self.examples), "P1", self.who, "no plugin of it implements unlabeled_example")
        broken = list(self.registry.broken.values())
        if broken:
            raise plugins.PluginError(broken[0])
        self.sources = {name: self._source(name) for name in self.registry.readers}
        self.reader = self.open(next(iter(self.registry.readers)))
        good = [index for index in range(min(len(self.reader), 1000)) if not damaged(self.reader, index)][:SAMPLES]
        self.indices = torch.tensor(good)
        expect(len(good) >= 4, "P1", self.who, f"its example has {len(good)} readable samples")
        who = f"reader {next(iter(self.registry.readers))!r}"
        self.samples: list[Sample] = [
            attempt(partial(self.reader.__getitem__, index), "R9", who, f"item {index}") for index in good
        ]
        self.view: View = self.registry.make("view", None, self.reader.facts)

    def _source(self, reader: str) -> str:
        refusals = []
        for source in self.examples:
            try:
                self.registry.make("reader", reader, source)
                return source
            except UserError as error:  # it is another reader's example
                refusals.append(str(error))
            except Exception as error:
                what = f"opening {source} raises {type(error).__name__}: {error}"
                raise BrokenPromise("P1", f"reader {reader!r}", what) from error
        raise BrokenPromise("P1", f"reader {reader!r}", f"it takes none of the examples: {'; '.join(refusals)}")

    def open(self, reader: str, **options: Any) -> Reader:
        """A reader on the example that it takes."""
        made: Reader = self.registry.make("reader", reader, self.sources[reader], **options)
        return made

    def collate(self, samples: Any) -> Batch:
        """As the loader collates."""
        return collate(samples, self.registry)

    def batch(self, samples: list[Sample], numbers: Tensor) -> Batch:
        """The undisturbed view of samples."""
        return make_view(self.view, samples, "whole", sample_keys(0, 0, numbers), self.collate)

    def encoder(self, name: str, facts: Mapping[str, Any] | None = None, **options: Any) -> Encoder:
        """An encoder with the facts of the default reader."""
        made: Encoder = self.registry.make("encoder", name, self.reader.facts if facts is None else facts, **options)
        return made

    def check_reader(self, name: str) -> None:
        """R1 … R10, and P5."""
        taken = {*(field.name for field in fields(Training)), *FLAGS}
        clash = sorted(taken & set(inspect.signature(self.registry.readers[name]).parameters))
        expect(not clash, "P5", f"reader {name!r}", f"its option {', '.join(clash)} is one of training too")
        check_reader(partial(self.open, name), collate=self.collate, name=f"reader {name!r}")

    def check_view(self, name: str) -> None:
        """V1 … V7, and P3 for every encoder."""
        view: View = self.registry.make("view", name, self.reader.facts)
        check_view(view, self.samples, collate=self.collate, name=f"view {name!r}")
        keys = sample_keys(0, 0, self.indices)
        batches = {kind: make_view(view, self.samples, kind, keys, self.collate) for kind in KINDS}
        for encoder in self.registry.encoders:
            made = self.encoder(encoder)
            for kind, batch in batches.items():
                note = f" of view {name!r}, kind {kind!r},"
                try:
                    check_tokens(made, batch, f"encoder {encoder!r}", note)
                except BrokenPromise as error:
                    raise BrokenPromise("P3", f"view {name!r}", str(error)) from error

    def check_encoder(self, name: str) -> None:
        """E1 … E20."""
        who = f"encoder {name!r}"
        alone = [self.batch([sample], self.indices[at : at + 1]) for at, sample in enumerate(self.samples)]
        with chance(0):
            encoder = self.encoder(name)
        with chance(0):
            facts = json.loads(json.dumps(self.reader.facts))
            words = unequal(encoder.state_dict(), self.encoder(name, facts).state_dict())
        expect(not words, "E19", who, f"facts that went through JSON give another encoder: {words}")
        batch = self.batch(self.samples, self.indices)
        check_encoder(encoder, batch, again=partial(self.encoder, name), alone=alone, name=who)

    def check_method(self, encoder: str, method: str, **options: Any) -> None:
        """P4, of an encoder with these options: a small one takes its steps in less time."""
        with chance(0):
            made = self.encoder(encoder, **options)
            check_method(self.registry, self.reader, self.view, made, (method, encoder), self.indices)
