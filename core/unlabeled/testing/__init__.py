"""The conformance kit: the promises of docs/plugins.md, run. For first- and third-party plugins alike.

    def test_my_domain(tmp_path):
        check_plugin("mydomain", tmp_path)

Every failure is a `BrokenPromise` that says which promise, by what input, and where the contract says so.
"""

from unlabeled.testing.bench import Bench, check_plugin
from unlabeled.testing.encoders import check_encoder
from unlabeled.testing.learning import Bout, check_method, unable
from unlabeled.testing.promises import PROMISES, BrokenPromise, Promise
from unlabeled.testing.readers import check_reader
from unlabeled.testing.views import check_view

__all__ = [
    "PROMISES",
    "Bench",
    "Bout",
    "BrokenPromise",
    "Promise",
    "check_encoder",
    "check_method",
    "check_plugin",
    "check_reader",
    "check_view",
    "unable",
]
