"""What a person sees while a run trains: rate, time left, loss, health."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from unlabeled.collectives import rank


class Progress:
    """A live bar on a terminal, a line per log elsewhere; silent on all ranks but the first."""

    def __init__(self, steps: int, start: int, batch_size: int, quiet: bool = False):
        self.steps, self.batch_size = steps, batch_size
        self._quiet = quiet or rank() != 0
        self._began, self._start = time.perf_counter(), start
        self._last, self._last_step = self._began, start
        self._bar: Any = None
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("", total=steps, completed=start)
            self._bar.start()

    def step(self, step: int) -> None:
        """A step is done."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def log(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Show metrics; returns the timing that goes beside them into metrics.jsonl."""
        now = time.perf_counter()
        rate = (step - self._last_step) * self.batch_size / max(now - self._last, 1e-9)
        self._last, self._last_step = now, step
        done = max(step - self._start, 1)
        left = (now - self._began) / done * (self.steps - step)
        text = f"loss {values.get('loss', math.nan):.4f}  {rate:,.0f} samples/s"
        if self._bar:
            self._bar.update(self._task, description=text)
        elif not self._quiet:
            self.say(f"step {step}/{self.steps}  {text}  {_time(left)} left")
        return {"seconds": round(now - self._began, 3), "samples_per_second": round(rate, 1)}

    def say(self, sentence: str) -> None:
        """A sentence above the bar."""
        if self._quiet:
            return
        if self._bar:
            self._bar.console.print(sentence, highlight=False, markup=False)
        else:
            print(sentence, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.stop()


def _time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
