"""Results beside the runs that they are of: RUN/results/<protocol>-<label>-<hash of what was asked>.json."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unlabeled.errors import UserError, one_line
from unlabeled.evaluation.results import Result
from unlabeled.files import write_text
from unlabeled.saved import HUB, run_folder

__all__ = ["keep"]

FOLDER = "results"


@dataclass(frozen=True)
class Kept:
    """A result in a run's folder."""

    path: Path
    result: Result
    place: int  # of the run among those of the result


def keep(result: Result, warn: Callable[[str], None] | None = None) -> tuple[Path, ...]:
    """Write a result into the folder of each of its runs, for `unlabeled report`; returns the files.

    Asked the same again, of the same runs, a file is written over; another question has another file.

    Args:
        warn: told of a folder that cannot be written, in a sentence, while the others are; None: it is an error.

    Raises:
        UserError: a folder cannot be written, where nobody is told.
    """
    made = []
    for number, run in enumerate(result.runs):
        if run.startswith(HUB):
            continue  # which has no folder here
        path = (run_folder(run) or Path(run)) / FOLDER / _name(result)
        try:
            write_text(path, result.text(place=number))
        except UserError as error:
            if warn is None:
                raise
            warn(f"the result is not kept in {run}: {error}")
        else:
            made.append(path)
    return tuple(made)


def read_kept(run: str | Path) -> tuple[list[Kept], list[str]]:
    """Results of a run by the names of their files, and a sentence for each file that is none."""
    found, broken = [], []
    for path in sorted((Path(run) / FOLDER).glob("*.json")):
        try:
            data = json.loads(path.read_text())
            result, place = Result.of(data), int(data.get("place", 0))
            found.append(Kept(path, result, place))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            broken.append(f"{path} cannot be read as a result ({one_line(error)}); evaluate again, or remove it")
    return found, broken


def _name(result: Result) -> str:
    """A question's file: the runs are part of it where they are several, which share their numbers."""
    question = {**result.asked, "runs": [str(Path(run).resolve()) for run in result.runs[1:] and result.runs]}
    number = hashlib.blake2b(json.dumps(question, sort_keys=True).encode(), digest_size=4).hexdigest()
    names = [re.sub(r"\W+", "_", one)[:40] for one in (result.protocol, result.label or "none")]
    return f"{'-'.join(names)}-{number}.json"
