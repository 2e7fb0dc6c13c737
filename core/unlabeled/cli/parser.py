"""The parser for commands that a domain adds to its own."""

from __future__ import annotations

import argparse
from typing import NoReturn

from unlabeled.errors import UserError

__all__ = ["CommandParser"]


class CommandParser(argparse.ArgumentParser):
    """argparse with one sentence for an error."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)
