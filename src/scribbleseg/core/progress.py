"""Progress of a long task: a bar on a terminal, plain lines if the output is piped."""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from .console import say


class Progress:
    """`with Progress("training", 600, "it") as bar: bar.advance(); bar.note("dice .81")`.

    If nobody can read it any more, the task goes on without it.
    """

    def __init__(self, label: str, total: int, unit: str, done: int = 0, shown: bool = True):
        self.label, self.total, self.unit, self.done, self.started_at = label, total, unit, done, done
        self.text, self.shown = "", shown
        self.bar: tqdm | None = None
        if shown and sys.stderr.isatty():
            try:
                self.bar = tqdm(total=total, initial=done, desc=label, unit=unit, dynamic_ncols=True)
            except (OSError, ValueError):
                self.shown = False

    def __enter__(self) -> "Progress":
        self.start = self.said = time.monotonic()
        return self

    def advance(self, count: int = 1) -> None:
        self.done += count
        if self.bar is not None:
            self._drawn(lambda bar: bar.update(count))
        elif time.monotonic() - self.said > 15:
            self._say()

    def note(self, text: str) -> None:
        """Show a short text after the bar."""
        self.text = text
        self._drawn(lambda bar: bar.set_postfix_str(text, refresh=False))

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.bar is not None:
            self._drawn(lambda bar: bar.close())
        elif error is None:
            self._say()

    def _drawn(self, change: Callable[[tqdm], object]) -> None:
        try:
            if self.bar is not None:
                change(self.bar)
        except (OSError, ValueError):
            self.bar, self.shown = None, False

    def _say(self) -> None:
        self.said = time.monotonic()
        if not self.shown:
            return
        seconds = self.said - self.start
        rate = (self.done - self.started_at) / seconds if seconds > 0 else 0
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate and self.done < self.total else ""
        note = f", {self.text}" if self.text else ""
        say(f"{self.label}: {self.done}/{self.total} {self.unit}, {rate:.2f} {self.unit}/s{left}{note}")
