"""`unlabeled demo`: pre-train and evaluate on real data that a domain brings along."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from unlabeled import plugins
from unlabeled.errors import UserError


def run(arguments: list[str]) -> int:
    """Run the recipe "demo" of a domain: {data, test, label, reader, method, training}; test may be left out."""
    parser = argparse.ArgumentParser("unlabeled demo", description="Pre-train and evaluate on real data that is here.")
    parser.add_argument("domain", nargs="?", help="default: the first installed one that has a demo")
    parser.add_argument("--out", help="keep the run in this folder")
    flags = parser.parse_args(arguments)
    domain, recipe = _recipe(flags.domain)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(flags.out or Path(scratch) / "run")
        _show(domain, recipe, out)
    if flags.out:
        print(f"\nthe run is in {out}; look into {out / 'metrics.jsonl'} and {out / 'config.yaml'}")
    return 0


def _recipe(wanted: str | None) -> tuple[str, dict[str, Any]]:
    names = [wanted] if wanted else sorted({plugin.domain for plugin in plugins.listing()})
    for name in names:
        recipe = plugins.load(name).recipes.get("demo")
        if recipe:
            return name, dict(recipe)
    raise UserError(f'no demo in {", ".join(names) or "no domain"}; install one: pip install "unlabeled[all]"')


def _show(domain: str, recipe: dict[str, Any], out: Path) -> None:
    from unlabeled.cli.tables import print_result
    from unlabeled.config import config_from
    from unlabeled.evaluation.evaluate import evaluate
    from unlabeled.evaluation.kept import keep
    from unlabeled.report.write import report
    from unlabeled.training.folder import RunFolder
    from unlabeled.training.pretrain import run as train

    label, test = recipe.pop("label"), recipe.pop("test", None)
    config = config_from({"domain": domain, **recipe}, plugins.load(domain))
    print(f"1. pre-train on {config.data} with {config.method_name}, without the column {label!r}")
    train(config, RunFolder(out))
    print(f"\n2. predict {label!r} from frozen features, beside what needs no pre-training")
    result = evaluate([out], config.data, label=label, test=test)
    print_result(result)
    keep(result)
    report([out])  # with the result in it
