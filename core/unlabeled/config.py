"""A run as plain data: what config.yaml holds, flags set and Python passes are one and the same.

domain, data, reader {name, options}, view {name, options}, encoder {name, options}, init, labels, method, training
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from unlabeled.compose import CHOICES, composed, parts_from
from unlabeled.errors import UserError, choose, nearest, one_line
from unlabeled.methods import Method, Part, Views
from unlabeled.precision import PRECISIONS, Precision

if TYPE_CHECKING:
    from unlabeled.plugins import Registry


@dataclass(frozen=True)
class Training:
    """How a run optimises, watches and saves. Each field is a flag of `pretrain`.

    Args:
        epochs: passes over the data; `steps` wins where both are given.
        steps: optimiser steps.
        batch_size: samples a step, over all processes and micro-batches.
        accumulate: micro-batches a step; state (centres, teachers) still moves once a step.
        optimizer: adamw (arXiv 1711.05101), adam (1412.6980, weight decay in the gradient) or lars (1708.03888).
        lr: peak learning rate at this batch size.
        schedule: of the rate: cosine to the end; infinite (arXiv 2503.02844: a cosine to a constant rate, the constant,
            and annealing at last); or constant. Runs of the latter two can be made longer.
        lr_end: the rate at the last step; infinite: a tenth of the constant where this is 0, never reached.
        lr_constant: infinite: the constant rate; none: 0.55 of lr (arXiv 2403.08763).
        warmup: share of the steps over which the rate rises; from 1 on, a number of steps.
        cooldown: infinite: share of the steps over which it falls to the constant; from 1 on, a number of steps.
        anneal: infinite: share of the steps, the last ones, over which it falls to its end; 0: never.
        weight_decay: on matrices; never on norms, biases and other vectors.
        weight_decay_end: where a cosine takes the decay; none: it stays.
        beta2: AdamW's second-moment memory.
        clip: largest gradient norm; none: not clipped.
        lora: rank of adapters on the encoder's linear layers, whose other weights stay as --init gave them; none: all
            weights learn.
        precision: fp32, or bf16 autocast.
        compile: run the encoder through torch.compile.
        seed: of weights, order, views and masks.
        workers: loader processes; their number changes no result.
        device: auto, cpu, cuda or cuda:N.
        log_every: steps between lines of metrics.jsonl.
        health_every: steps between looks at held-out embeddings; none: eight to twenty in a run, by what they cost.
        health_samples: how many samples are held out for them; at most a tenth of the data; of fewer
            than 80, samples that are trained on are looked at.
        watch: a label to watch by neighbours among labelled samples; weights never learn of it.
        watch_samples: how many labelled samples at most.
        checkpoint_every: steps between checkpoints; none: ten in a run.
        keep_checkpoints: how many of the last checkpoints stay.
        on_collapse: warn, or stop the run.
        max_broken: share of broken samples at which the run stops.
        tensorboard: also write TensorBoard events (needs tensorboard).
    """

    epochs: int = 10
    steps: int | None = None
    batch_size: int = 256
    accumulate: int = 1
    optimizer: Literal["adamw", "adam", "lars"] = "adamw"
    lr: float = 1e-3
    schedule: Literal["cosine", "infinite", "constant"] = "cosine"
    lr_end: float = 0.0
    lr_constant: float | None = None
    warmup: float = 0.1
    cooldown: float = 0.3
    anneal: float = 0.1
    weight_decay: float = 0.01
    weight_decay_end: float | None = None
    beta2: float = 0.999
    clip: float | None = None
    lora: int | None = None
    precision: Precision = "fp32"
    compile: bool = False
    seed: int = 0
    workers: int = 0
    device: str = "auto"
    log_every: int = 20
    health_every: int | None = None
    health_samples: int = 256
    watch: str | None = None
    watch_samples: int = 512
    checkpoint_every: int | None = None
    keep_checkpoints: int = 2
    on_collapse: Literal["warn", "stop"] = "warn"
    max_broken: float = 0.1
    tensorboard: bool = False

    def __post_init__(self) -> None:
        least = {"epochs": 1, "batch_size": 1, "accumulate": 1, "log_every": 1, "keep_checkpoints": 1, "workers": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise UserError(f"{name} must be at least {bound}, not {getattr(self, name)}")
        for name in ("steps", "health_every", "checkpoint_every", "lora"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}")
        choose("schedule", self.schedule, {"cosine": 1, "infinite": 1, "constant": 1})
        choose("precision", self.precision, PRECISIONS)
        for name in ("lr", "lr_constant"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UserError(f"{name} must be above 0, not {value}")
        for name in ("warmup", "cooldown"):
            value = getattr(self, name)
            if value < 0 or (value > 1 and value != int(value)):
                raise UserError(f"{name} is a share of the run, from 0 to below 1, or a number of steps, not {value}")
        if not 0 <= self.anneal <= 1:
            raise UserError(f"anneal is a share of the run, from 0 to 1, not {self.anneal}")


FREE_ON_RESUME = frozenset(
    {"workers", "device", "log_every", "keep_checkpoints", "on_collapse", "tensorboard", "watch", "watch_samples"}
)
"""What may change when a run goes on. The results do not depend on it (log_every only shapes the log)."""

FREE_TO_LENGTHEN = frozenset({"steps", "epochs", "anneal"})
"""What may also change where the schedule is not made for one length, as long as the rate does not jump."""


@dataclass(frozen=True)
class Named:
    """A factory by name with its options; name None is the domain's default."""

    name: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(value: Mapping[str, Any] | str | None) -> Named:
        """From config.yaml: a name, or a mapping with a name and options."""
        if value is None or isinstance(value, str):
            return Named(value)
        options = dict(value)
        return Named(options.pop("name", None), options)

    def data(self) -> dict[str, Any]:
        """As config.yaml holds it."""
        return {"name": self.name, **self.options}


@dataclass(frozen=True)
class Config:
    """One run, whole."""

    domain: str
    data: str
    method: Method
    method_name: str = ""
    reader: Named = Named()
    view: Named = Named()
    encoder: Named = Named()
    init: str = ""  # where the encoder's weights come from: a run, a file, timm:NAME, torchvision:NAME, hf:ID
    labels: str = ""
    training: Training = Training()

    def save(self, path: Path) -> None:
        """Write config.yaml."""
        path.write_text(yaml.safe_dump(self.as_data(), sort_keys=False))

    def as_data(self) -> dict[str, Any]:
        """Plain data that `config_from` turns back into this."""
        return {
            "domain": self.domain,
            "data": self.data,
            "reader": self.reader.data(),
            "view": self.view.data(),
            "encoder": self.encoder.data(),
            "init": self.init,
            "labels": self.labels,
            "method": {"name": self.method_name, **method_data(self.method)},
            "training": asdict(self.training),
        }


def method_data(method: Method) -> dict[str, Any]:
    """A method as plain data, without what is empty."""

    def part(one: Part) -> dict[str, Any]:
        options = {key: list(value) if isinstance(value, tuple) else value for key, value in one.options.items()}
        weight = dict(one.weight) if isinstance(one.weight, Mapping) else one.weight
        return {"name": one.name, **options, **({"weight": weight} if weight != 1 else {})}

    views = {name.rstrip("_"): count for name, count in asdict(method.views).items() if count}
    data: dict[str, Any] = {"views": views, "teacher": part(method.teacher), "terms": [part(t) for t in method.terms]}
    if method.hide:
        data["hide"] = part(method.hide)
    usual = {"weights": "fixed", "keep": "student"}
    return data | {name: getattr(method, name) for name, value in usual.items() if getattr(method, name) != value}


def method_from(data: Mapping[str, Any] | str, registry: Registry) -> tuple[str, Method]:
    """A method and its name, as the command line, config.yaml and Python write it.

    "dino" or {name: dino}: a row of the table. {terms: [...]}: one composed; what is left out, its terms say.
    Both with {views, hide, teacher, weights, keep}, which replace the row's; {add: [...]}, more terms; and
    {set: {part.option: value}}.

    Raises:
        UserError: there is no such row, term, choice or option; with the nearest names.
    """
    given: Mapping[str, Any] = {"name": data} if isinstance(data, str) else data
    known = ["name", "terms", "add", "set", *CHOICES]
    for key in given:
        if key not in known:
            raise UserError(f"a method has no {key!r}; {nearest(key, known)}")
    added = parts_from(given.get("add") or ())
    if "terms" in given:
        base = Method(Views(), ())
        added = (*parts_from(given["terms"] or ()), *added)
        name = str(given.get("name") or "+".join(part.name for part in added))
    else:
        base = choose("method", str(given.get("name") or ""), registry.methods)
        name = "+".join([str(given["name"]), *(part.name for part in added)])
    return name, composed(base, given, added, registry).with_options(given.get("set") or {})


def config_from(data: Mapping[str, Any], registry: Registry) -> Config:
    """A run from plain data, on top of the defaults of its method and its domain's recipes.

    Raises:
        UserError: an unknown key or name, with the nearest ones.
    """
    known = [one.name for one in fields(Config)]
    for key in data:
        if key not in known:
            raise UserError(f"config has no {key!r}; {nearest(key, known)}")
    given = data.get("method")
    if not given:
        raise UserError(f"no method chosen: give --method, or --term; {nearest('', registry.methods)}")
    given = {"name": given} if isinstance(given, str) else given
    layers = recipe_layers(given, registry)
    view = layers.pop("view", None)
    name, method = method_from({**given, "set": {**layers.pop("set"), **(given.get("set") or {})}}, registry)
    training: dict[str, Any] = {**layers, **(data.get("training") or {})}
    names = [one.name for one in fields(Training)]
    for key in training:
        if key not in names:
            raise UserError(f"training has no {key!r}; {nearest(key, names)}")
    return Config(
        domain=str(data["domain"]),
        data=str(data["data"]),
        method=method,
        method_name=name,
        reader=Named.of(data.get("reader")),
        view=Named.of(data.get("view") or view),
        encoder=Named.of(data.get("encoder")),
        init=str(data.get("init") or ""),
        labels=str(data.get("labels") or ""),
        training=Training(**training),
    )


def recipe_layers(given: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    """Training defaults, "set" and "view": the method's own row, then the domain's recipes "default" and of that row.

    Options that name a part which the method does not have are meant for other methods. What is spelt out has none of
    them: a whole method, or a choice in place of the row's.
    """
    name, method = method_from(given, registry)
    spelt = "terms" in given
    layers: dict[str, Any] = dict(method.training)
    options: dict[str, Any] = {}
    chosen_by = {"hide": method.hide.name if method.hide else "", "teacher": method.teacher.name, "views": "views"}
    parts = {term.name for term in method.terms} | {name for choice, name in chosen_by.items() if choice not in given}
    for recipe in ("default", name if spelt else str(given["name"])):
        layer = dict(registry.recipes.get(recipe, {}))
        chosen = layer.pop("set", {})
        options |= {key: value for key, value in chosen.items() if key.partition(".")[0] in parts}
        layers |= layer
    return {**layers, "set": {} if spelt else options}


def load_config(path: Path) -> dict[str, Any]:
    """The plain data of a config.yaml.

    Raises:
        UserError: it is absent or not YAML.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {one_line(error, None)}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} is not a configuration: it has no keys")
    return data


def total_steps(training: Training, epoch_steps: int) -> int:
    """How many optimiser steps a run has."""
    return training.steps or training.epochs * epoch_steps


def with_training(config: Config, **changes: Any) -> Config:
    """The configuration with some training fields replaced."""
    return replace(config, training=replace(config.training, **changes))
