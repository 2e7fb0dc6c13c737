"""`unlabeled`: finds the command and says errors in one sentence. No torch before a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from unlabeled.errors import UserError, nearest

USAGE = """\
usage: unlabeled <domain> <command> ...     unlabeled <command>

Turns unlabelled data of any domain into a foundation model.

for a domain ({domains}):
  pretrain DATA --method M --out RUN   train an encoder without labels; --resume goes on
  inspect DATA                         what the reader sees, what is broken
  embed RUN DATA -o FILE               a row of numbers for every sample
  evaluate RUN DATA --label L          probes, beside the untrained encoder and the raw data
  export RUN --to FORMAT --out FOLDER  the encoder for others to read: safetensors, ONNX, the Hugging Face hub

everywhere:
  report RUN ...    one page about runs: results, curves, health, a map of the embedding
  demo              pre-train and evaluate on real data that is already here, in a minute
  methods           the table of methods
  plugins           installed plugins, and what each is missing
  new-plugin NAME   a plugin to begin with: a domain of your own, or --adds-to one
  doctor            versions, devices, what is missing and how to get it

Any command with --help says more. --debug shows the traceback of an error, --disable NAME goes on without a plugin."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for an error the user can mend, 128 + a signal's number."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [one for one in arguments if one != "--debug"]
    try:
        return dispatch(_without_disabled(arguments))
    except UserError as error:
        if debug:
            raise
        print(f"unlabeled: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `unlabeled methods | head`
        sys.stderr.close()
        return 0


def _without_disabled(arguments: list[str]) -> list[str]:
    """The arguments but for --disable NAME, which from here on, and in every worker, is UNLABELED_DISABLE."""
    rest = list(arguments)
    while "--disable" in rest:
        from unlabeled import plugins

        at = rest.index("--disable")
        name = " ".join(rest[at + 1 : at + 2])
        known = {plugin.name for plugin in plugins.listing()} | plugins.disabled()
        if name not in known:
            raise UserError(f"--disable takes the name of a plugin, not {name!r}; {nearest(name, known)}")
        os.environ["UNLABELED_DISABLE"] = ",".join(sorted(plugins.disabled() | {name}))
        plugins.load.cache_clear()
        del rest[at : at + 2]
    return rest


def dispatch(arguments: list[str]) -> int:
    """Find the command and run it."""
    from unlabeled import plugins

    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE.format(domains=", ".join(domains()) or "none installed"))
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("unlabeled"))
        return 0
    name, rest = arguments[0], arguments[1:]
    if name in GENERAL:
        return GENERAL[name](rest)
    if name not in domains():
        known = [*domains(), *GENERAL]
        raise UserError(f"no command or domain is called {name!r}; {nearest(name, known)}")
    from unlabeled.cli import domain

    return domain.run(plugins.load(name), rest)


def domains() -> list[str]:
    """Installed domains, from metadata alone."""
    from unlabeled import plugins

    return sorted({plugin.domain for plugin in plugins.listing()})


def _plugins(arguments: list[str]) -> int:
    from unlabeled.cli import listing

    return listing.show_plugins(arguments)


def _methods(arguments: list[str]) -> int:
    from unlabeled.cli import listing

    return listing.show_methods(arguments)


def _doctor(arguments: list[str]) -> int:
    from unlabeled.cli import doctor

    return doctor.run(arguments)


def _report(arguments: list[str]) -> int:
    from unlabeled.cli import report

    return report.run(arguments)


def _demo(arguments: list[str]) -> int:
    from unlabeled.cli import demo

    return demo.run(arguments)


def _new_plugin(arguments: list[str]) -> int:
    from unlabeled.cli import new_plugin

    return new_plugin.run(arguments)


GENERAL: dict[str, Callable[[list[str]], int]] = {
    "report": _report,
    "demo": _demo,
    "methods": _methods,
    "plugins": _plugins,
    "new-plugin": _new_plugin,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
