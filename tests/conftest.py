"""What all tests share: few threads, a fixed seed, files that stay in one process, and no silent skips in CI."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
import torch
from hypothesis import settings
from threadpoolctl import threadpool_limits

settings.register_profile("here", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("here")
torch.set_num_threads(1)  # tensors are tiny: threads cost more than they bring
threadpool_limits(1)  # nor do those of NumPy and scikit-learn
os.environ.setdefault("OMP_NUM_THREADS", "1")  # nor those of commands that tests run


TOGETHER = {
    "test_collectives",
    "test_continual",
    "test_finetune",
    "test_graph_evaluation",
    "test_protocols",
    "test_report_labels",
    "test_report_map",
    "test_report_results",
    "test_resume",
    "test_shots",
}


LONG = {"test_tutorial", "test_docs", "test_ranks", "test_optim", "test_new_plugin", "test_cli"}


@pytest.hookimpl(tryfirst=True)  # xdist looks for groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose fixture costs seconds stay in one process where xdist has several; they and long tests come first.

    Else the last of them would run alone, and the other processes wait.
    """
    items.sort(key=lambda item: item.path.stem not in TOGETHER | LONG)
    for item in items:
        if item.path.stem in TOGETHER:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where the shared data are present nothing may be skipped: CI sets UNLABELED_SKIP_NOTHING."""
    report = yield
    if report.skipped and os.environ.get("UNLABELED_SKIP_NOTHING") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and nothing may be: {report.longrepr}"
    return report
