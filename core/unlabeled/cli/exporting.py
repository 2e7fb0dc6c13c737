"""`export`: a run's encoder for others to read."""

from __future__ import annotations

from collections.abc import Sequence

from unlabeled.cli.evaluation import same_domain
from unlabeled.cli.flags import Parser, normalise
from unlabeled.errors import UserError, nearest
from unlabeled.plugins import Registry


def export(registry: Registry, arguments: Sequence[str]) -> int:
    """Write a run's encoder for others to read: RUN --to FORMAT --out FOLDER."""
    from unlabeled.exporting.export import FORMATS
    from unlabeled.exporting.export import export as write
    from unlabeled.saved import describe

    says = "; ".join(f"{name}: {form.says}" for name, form in FORMATS.items())
    parser = Parser(f"{registry.domain} export", "Write a run's encoder for others to read.")
    parser.add_argument("run", help="a run's folder, its encoder folder, or hf:OWNER/NAME")
    parser.add_argument("--to", metavar="FORMAT", help=says)
    parser.add_argument("--out", help="the folder to make")
    parser.add_argument("--data", help="onnx, torch: samples to compare with (default: the run's own data)")
    parser.add_argument("--push", default="", metavar="OWNER/NAME", help="huggingface: also upload it to the hub")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    flags = parser.read(normalise(arguments))
    if not flags.to:
        raise UserError(f"say by --to what to write; {nearest('', FORMATS)}")
    if not flags.out:
        raise UserError("say by --out which folder to make")
    same_domain(registry, describe(flags.run).domain, flags.run)
    made = write(
        flags.run,
        flags.to,
        flags.out,
        data=flags.data,
        push=flags.push,
        private=flags.private,
        overwrite=flags.overwrite,
    )
    files = ", ".join(f"{name} ({_size(size)})" for name, size in made.files.items())
    print(f"{made.folder}: {files}")
    for note in made.notes:
        print(note)
    if made.url:
        print(f"uploaded to {made.url}")
    print("it is loaded by\n")
    print("\n".join(f"    {line}" if line else "" for line in made.load.splitlines()))
    return 0


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"
