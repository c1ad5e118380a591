"""Progress of all runs of a bench: a few lines that are redrawn on a terminal, or a line per event if piped.

It reads the files of the runs, so it is the same for every engine. On a shared file system it also shows runs on other
machines.
"""

import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Annotated

from msgspec import Meta, Struct

from ..config import Bench
from ..core.console import say
from ..core.errors import counted
from ..core.json_file import convert, read_json, read_lines
from .plan import Job
from .worker import ELSEWHERE, log_path

POLL_S = 2.0


class Length(Struct):
    iterations: Annotated[int, Meta(ge=1)]


class Planned(Struct):
    recipe: Length


class Begun(Struct):
    """What is read of config.json."""

    plan: Planned


class Logged(Struct):
    """What is read of a line of log.jsonl."""

    iteration: Annotated[int, Meta(ge=0)]
    seconds_per_iteration: Annotated[float, Meta(ge=0, le=1e9)]


@dataclass(frozen=True)
class Reached:
    """The progress of a training."""

    iteration: int
    total: int
    seconds_per_iteration: float  # mean of the last five log entries

    @property
    def seconds_left(self) -> float:
        return (self.total - self.iteration) * self.seconds_per_iteration


def read_reached(run: Path) -> Reached | None:
    """Read the progress from RUN/config.json and RUN/log.jsonl.

    None before the first log entry, and if they cannot be read: the run itself says so when it is started.
    """
    try:
        total = read_json(run / "config.json", Begun).plan.recipe.iterations
        lines = [line for line in read_lines(run / "log.jsonl") if line.endswith("\n")][-5:]
        last = [convert(json.loads(line), Logged, run) for line in lines]
        return Reached(last[-1].iteration, total, mean(entry.seconds_per_iteration for entry in last))
    except (OSError, ValueError, LookupError, RecursionError):
        return None


class View:
    """The engine calls `tick(started, held)` about once a second, and `end(job, reason)` when a job has ended."""

    def __init__(self, jobs: list[Job], config: Bench, done: int):
        self.jobs, self.config, self.done = jobs, config, done
        self.total = done + len(jobs)
        self.failed = self.at_once = 0
        self.waiting = {job: _size(log_path(job, config)) for job in jobs}  # a run has begun if its log has grown
        self.running: dict[Job, Reached | None] = {}  # here or elsewhere
        self.elsewhere: set[Job] = set()
        self.seconds: dict[Job, float] = {}  # of whole trainings that have ended
        self.terminal = sys.stderr.isatty()
        self.drawn, self.polled_at = 0, -POLL_S

    def tick(self, started: set[Job], held: set[Job]) -> None:
        if time.monotonic() - self.polled_at >= POLL_S:
            self.polled_at = time.monotonic()
            self.poll(started, held)
            self._draw()

    def poll(self, started: set[Job], held: set[Job]) -> None:
        begun = self.elsewhere & started  # taken over
        begun |= {job for job, size in self.waiting.items() if job in held or _size(log_path(job, self.config)) > size}
        for job in (job for job in self.jobs if job in begun):
            self.waiting.pop(job, None)
            self.running[job] = None
            (self.elsewhere.discard if job in started else self.elsewhere.add)(job)
            if not self.terminal:
                self._say(f"{job.place}: {'started' if job in started else ELSEWHERE}")
        self.at_once = max(self.at_once, len(self.running))
        self.running = {job: read_reached(self.config.runs / job.place) for job in self.running}

    def end(self, job: Job, reason: str | None) -> None:
        said = job in self.elsewhere and reason == ELSEWHERE
        self.waiting.pop(job, None)
        self.running.pop(job, None)
        self.elsewhere.discard(job)
        if reason == ELSEWHERE:
            self.elsewhere.add(job)
        elif reason is None:
            self.done += 1
            if reached := read_reached(self.config.runs / job.place):
                self.seconds[job] = reached.total * reached.seconds_per_iteration
        else:
            self.failed += 1
        if not said and (reason is not None or not self.terminal):
            self._say(f"{job.place}: {reason or 'done'}")
        self._draw()

    def seconds_left(self) -> float | None:
        """An estimate for the whole bench, or None while nothing is known.

        It assumes that as many runs go on at once as before. For a waiting run it takes the mean of the runs with its
        label, or of all runs.
        """
        reached = {job: at for job, at in self.running.items() if at is not None}
        known = self.seconds | {job: at.total * at.seconds_per_iteration for job, at in reached.items()}
        if not known:
            return None

        def expected(job: Job) -> float:
            return mean([value for other, value in known.items() if other.label == job.label] or known.values())

        left = [reached[job].seconds_left if job in reached else expected(job) for job in self.running]
        left += [expected(job) for job in self.waiting]
        return max([sum(left) / max(1, self.at_once), *left])

    def lines(self) -> list[str]:
        """The summary, then a line per running job."""
        left = self.seconds_left()
        about = f", about {duration(left)} left" if left else ""
        elsewhere = f", {len(self.elsewhere)} {ELSEWHERE}" if self.elsewhere else ""
        here = len(self.running.keys() - self.elsewhere)
        head = (
            f"{counted(self.total, 'run')}: {self.done} done, {self.failed} failed{elsewhere}, {here} running, "
            f"{len(self.waiting)} waiting{about}"
        )
        width = max((len(str(job.place)) for job in self.running), default=0)
        states = {job: _state(at) + ", elsewhere" * (job in self.elsewhere) for job, at in self.running.items()}
        return [head, *(f"  {job.place!s:{width}}  {state}" for job, state in states.items())]

    def _say(self, line: str) -> None:
        self._erase()
        number = "" if self.terminal else f"[{self.done + self.failed}/{self.total}] "
        say(f"{number}{line}")

    def _erase(self) -> None:
        if self.drawn:
            sys.stderr.write(f"\x1b[{self.drawn}F\x1b[J")  # `say` would show the codes
        self.drawn = 0

    def _draw(self) -> None:
        if not self.terminal:
            return
        columns, rows = shutil.get_terminal_size()
        lines = self.lines()
        if len(lines) > rows - 1:
            lines = [*lines[: rows - 2], f"  … and {len(lines) - rows + 2} more"]
        self._erase()
        say("\n".join(line[: columns - 1] for line in lines))
        self.drawn = len(lines)


def duration(seconds: float) -> str:
    """12 s, 6 min, 1 h 20 min, 2 d 3 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def _state(at: Reached | None) -> str:
    if at is None:
        return "starting"
    if at.iteration == at.total:
        return f"{at.total}/{at.total} it, predicting"
    return f"{at.iteration}/{at.total} it, {duration(at.seconds_left)} left"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
