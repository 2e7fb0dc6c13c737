"""Broken distributions: what is wrong before a promise can be checked. Each adds to the domain `strips`."""

from __future__ import annotations

HOOK = """
from unlabeled.hookspecs import hookimpl
from unlabeled.methods import METHODS

@hookimpl
def unlabeled_methods():
    return {"again": METHODS["simclr"]}
"""

VIEW = """
from strips import Crops
from unlabeled.hookspecs import hookimpl

@hookimpl
def unlabeled_views():
    return {"crops": Crops}
"""

ADDITIONS: dict[str, tuple[str, tuple[str, ...], str]] = {
    # name: the module, what its distribution requires, what is said of it
    "misspelt_hook": (
        HOOK.replace("unlabeled_methods", "unlabeled_method"),
        (),
        "implements unlabeled_method, which is no hook; did you mean unlabeled_methods",
    ),
    "unmarked_hook": (HOOK.replace("@hookimpl\n", ""), (), "defines unlabeled_methods without @hookimpl"),
    "strange_argument": (HOOK.replace("methods():", "methods(domain):"), (), "arguments that it does not have"),
    "no_hook": ("x = 1", (), "implements no hook"),
    "name_of_the_core": (HOOK.replace('"again"', '"mae"'), (), "'mae' is claimed by both the core and strips-name"),
    "name_of_the_domain": (VIEW, (), "'crops' is claimed by both strips of dist_strips 1.0 and strips-name_of_the_"),
    "missing_dependency": ("import nowhere_at_all", ("nowhere-at-all",), "lacks nowhere-at-all; mend it with: pip"),
    "undeclared_dependency": ("import nowhere_at_all", (), "needs 'nowhere_at_all', which is not installed"),
    "missing_and_unused": (HOOK, ("nowhere-at-all>=2",), "lacks nowhere-at-all; mend it with: pip install dist_str"),
    "wrong_version": (HOOK, ("torch>=1,<1.5",), "lacks torch>=1,<1.5 ("),
    "import_error": ("from json import nothing_such", (), "fails to import: cannot import name 'nothing_such'"),
    "crash_on_import": ("raise OSError('lib.so.3')", (), "fails to load: OSError: lib.so.3"),
    "leaves_the_program": ("import sys; sys.exit(3)", (), "fails to load: SystemExit: 3"),
    "syntax_error": ("def broken(:", (), "fails to load: SyntaxError"),
    "crash_in_a_hook": (
        HOOK.replace('METHODS["simclr"]', "1 / 0"),
        (),
        "fails in unlabeled_methods: ZeroDivisionErr",
    ),
    "list_for_a_mapping": (HOOK.replace('{"again": METHODS["simclr"]}', "[]"), (), "returns list, not a mapping"),
    "row_that_is_none": (
        HOOK.replace('METHODS["simclr"]', "{}"),
        (),
        "something that is not an unlabeled.methods.M",
    ),
}
