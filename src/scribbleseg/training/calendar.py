"""When something happens during a run: log lines, sweeps, validations, pictures, checkpoints."""

import time
from dataclasses import dataclass, field

from ..core.errors import InputError

LOG_LINES, PICTURES = 200, 5  # of a run
SWEEP_DISTANCE = 100  # iterations between two sweeps, at least: the distance in S2L's paper


@dataclass
class Calendar:
    """The iterations of a run, counted from 1, at which something is due; `saves` also looks at the clock."""

    total: int
    sweeps: int  # how many the method asks for
    validations: int  # 0 without validation cases
    checkpoint_seconds: float
    saved_at: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self._sweep = evenly(self.total, min(self.sweeps, self.total // SWEEP_DISTANCE)) - {self.total}
        self._validate = evenly(self.total, self.validations)
        self._log = evenly(self.total, LOG_LINES) | self._validate
        self._picture = evenly(self.total, PICTURES)

    def sweeps_at(self, iteration: int) -> bool:
        return iteration in self._sweep

    def logs_at(self, iteration: int) -> bool:
        return iteration in self._log

    def validates_at(self, iteration: int) -> bool:
        return iteration in self._validate

    def pictures_at(self, iteration: int) -> bool:
        """Only at iterations that are logged too."""
        return iteration in self._picture and iteration in self._log

    def saves_at(self, iteration: int) -> bool:
        """At the end, and when the last checkpoint is older than `checkpoint_seconds`."""
        return iteration == self.total or time.perf_counter() - self.saved_at > self.checkpoint_seconds

    def saved(self) -> None:
        self.saved_at = time.perf_counter()


def evenly(total: int, count: int) -> set[int]:
    """`count` iterations evenly spread over a run, the last one among them; all if count > total; none for 0."""
    return {round(total * (i + 1) / min(count, total)) for i in range(min(count, total))}


def check_interval(seconds: float) -> None:
    """Raises InputError for an interval between checkpoints that is below 0 or no number."""
    if not seconds >= 0:
        raise InputError(f"--checkpoint-every {seconds:g}: expected seconds, 0 or more.")
