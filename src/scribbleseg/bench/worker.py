"""One job in a process of its own: `python -m scribbleseg.bench JSON` with the job and the bench's settings.

RUNS/PLACE.log receives all that the process says. It is also the run's lock: whoever trains the run holds a `flock` on
it, which ends with the process, however that dies. So two benches on one RUNS folder never train the same run.
"""

import fcntl
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
from ..core.errors import InputError
from .plan import Job
from .run import run_job

STOPS = {signal.SIGINT, signal.SIGTERM}
ELSEWHERE = "running elsewhere"  # why a job was left alone


def log_path(job: Job, config: Bench) -> Path:
    """RUNS/PLACE.log."""
    return Path(f"{config.runs / job.place}.log")


def open_log(job: Job, config: Bench) -> BinaryIO | None:
    """The job's log, to append to, and with it its lock; None while another process has that.

    Raises InputError where the file system has no locks.
    """
    path = log_path(job, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    log = open(path, "ab")
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.close()
        return None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be locked ({error.strerror}). Choose --runs on a file system with locks, such as NFS 4 "
            "or a local disk."
        ) from error
    return log


def run_logged(job: Job, config: Bench) -> str | None:
    """Run a job whose lock this process holds; None, or in one line why it failed. stderr gets when and where it began,
    and the traceback."""
    print(
        f"-- {time.strftime('%Y-%m-%d %H:%M:%S')}, {socket.gethostname()}, process {os.getpid()}",
        file=sys.stderr,
        flush=True,
    )
    try:
        run_job(job, config)
    except Exception as error:  # whatever one run dies of, the others go on
        if not isinstance(error, InputError):
            traceback.print_exc()
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(reason, file=sys.stderr, flush=True)
        return reason
    return None


def to_json(job: Job, config: Bench) -> str:
    return msgspec.json.encode((job, config), enc_hook=str).decode()


def from_json(text: str) -> tuple[Job, Bench]:
    return msgspec.json.decode(text, type=tuple[Job, Bench], dec_hook=lambda kind, value: kind(value))


def main() -> int:
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a bench in the background of a shell script was told to ignore it
    try:
        signal.pthread_sigmask(
            signal.SIG_UNBLOCK, STOPS
        )  # held since the bench started this process: torch had to be imported
        return 0 if run_logged(*from_json(sys.argv[1])) is None else 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
