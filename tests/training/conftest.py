"""Fixtures of the training tests."""

from conftest_training import command, toy_domain  # noqa: F401
