"""The plugin keeps every promise of the conformance kit, as a third party's would have to."""

from __future__ import annotations

from pathlib import Path

from unlabeled.testing import check_plugin


def test_the_plugin_keeps_the_contract(tmp_path: Path) -> None:
    check_plugin("tabular", tmp_path)
