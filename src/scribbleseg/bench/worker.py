"""One job in a process of its own: `python -m scribbleseg.bench JSON` with the job and the bench's settings.

The process writes its output to RUNS/PLACE.log and holds a `flock` on that file. The lock ends with the process, also
after a crash. So two benches on one RUNS folder never train the same run.
"""

import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import BinaryIO

import msgspec

from ..config import Bench
from ..core.console import say
from ..core.errors import InputError
from .plan import Job
from .run import run_job
from .store import lock_file

STOPS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
ELSEWHERE = "running elsewhere"  # why this bench did not run a job: another one holds its lock


def log_path(job: Job, config: Bench) -> Path:
    """RUNS/PLACE.log."""
    return Path(f"{config.runs / job.place}.log")


def open_log(job: Job, config: Bench) -> BinaryIO | None:
    """Open the job's log to append to it, and lock it. None if another process holds the lock.

    Raises InputError if the file system has no locks.
    """
    return lock_file(log_path(job, config), "--runs")


def run_logged(job: Job, config: Bench) -> str | None:
    """Run a job whose lock this process holds. Returns None, or one line that says why the job failed.

    stderr gets time and machine of the start, and the traceback.
    """
    say(f"-- {time.strftime('%Y-%m-%d %H:%M:%S')}, {socket.gethostname()}, process {os.getpid()}")
    try:
        run_job(job, config)
    except Exception as error:  # whatever the error is, the other runs must continue
        if not isinstance(error, InputError):
            traceback.print_exc()
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        say(reason)
        return reason
    return None


def to_json(job: Job, config: Bench) -> str:
    return msgspec.json.encode((job, config), enc_hook=str).decode()


def from_json(text: str) -> tuple[Job, Bench]:
    return msgspec.json.decode(text, type=tuple[Job, Bench], dec_hook=lambda kind, value: kind(value))


def main() -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in a shell script's background jobs
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # the bench blocked them while this process imported torch
        return 0 if run_logged(*from_json(sys.argv[1])) is None else 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
