"""Run the jobs of a bench: in processes of this machine, or as tasks of a Ray cluster.

An engine is given the jobs. When a job ends, it yields (job, None) or (job, why it failed). About once a second it
calls `tick` with the jobs that it has started and those that another bench is running. An engine starts one of the
latter only if the other bench stops it. If an engine is closed early (Ctrl-C), it stops its runs at a checkpoint.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import torch

from ..config import Bench
from ..core.console import say
from ..core.device import pick_device
from ..core.errors import InputError, counted
from ..core.signals import stops
from .plan import Job
from .run import without_data
from .store import is_done
from .view import View
from .worker import ELSEWHERE, STOPS, log_path, open_log, run_logged, to_json

RETRIES = 3  # how often a Ray task whose node died is started again
LEASE_S = 150  # NFS frees the locks of a dead machine after its lease, 90 s

Ended = Generator[tuple[Job, str | None], None, None]
Tick = Callable[[set[Job], set[Job]], None]


def run_jobs(jobs: list[Job], config: Bench, done: int) -> dict[Job, str]:
    """Run jobs on the chosen engine and show their progress. Returns the failed jobs, each with the reason.

    `done`: the number of the plan's runs that were done before. Jobs whose data set, split or fold does not exist fail
    before the first one starts.
    """
    engine = {"local": run_local, "ray": run_ray}[config.engine]
    view, failed = View(jobs, config, done), without_data(jobs, config)
    for job, reason in failed.items():
        view.end(job, reason)
    able = [job for job in jobs if job not in failed]
    if not able:
        return failed
    with stops(), closing(engine(able, config, view.tick)) as ended:
        for job, why in ended:
            view.end(job, why)
            if why is not None:
                failed[job] = why
    return failed


# --- processes of this machine


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen
    environment: dict[str, str]


def run_local(jobs: list[Job], config: Bench, tick: Tick) -> Ended:
    """Each job in its own process, `config.jobs` of them at once."""
    free, waiting, look = worker_environments(config), list(jobs), True
    running: list[_Running] = []
    try:
        while True:
            for run in [run for run in running if run.process.poll() is not None]:
                running.remove(run)
                free.append(run.environment)
                look = True
                yield run.job, _reason(run.process.returncode, log_path(run.job, config))
            if look:
                held, look = [], False
                while free and waiting:
                    job = waiting.pop(0)
                    try:
                        log = open_log(job, config)
                    except OSError as error:  # such as a file in the place of a folder
                        yield job, f"{error.strerror}: {error.filename}"
                        continue
                    if log is None:
                        held.append(job)
                        continue
                    with log:
                        done = is_done(job, config)
                        if not done:
                            with _stops_held():
                                running.append(_start(job, config, log, free.pop(0)))
                    if done:
                        yield job, None
                waiting = held + waiting
            if not running:
                yield from ((job, ELSEWHERE) for job in waiting)
                return
            tick({run.job for run in running}, set(held))
            time.sleep(0.2)
    finally:
        if running:
            _say_stopping(len(running))
        for run in running:
            run.process.send_signal(signal.SIGINT)
        for run in running:
            run.process.wait()


def worker_environments(config: Bench) -> list[dict[str, str]]:
    """Environment variables for each of the processes that run at once: its number of threads and, on CUDA, its GPU.

    The processes divide the cores among them. Each sees one of the GPUs, in turn.
    """
    if config.jobs < 0:
        raise InputError(f"--jobs {config.jobs}: expected 1 or more runs at once, or 0 for one per GPU.")
    gpus = []
    if pick_device(config.device).type == "cuda" and ":" not in config.device:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    count = config.jobs or max(1, len(gpus))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // count)))}
    return [threads | ({"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if gpus else {}) for index in range(count)]


def _start(job: Job, config: Bench, log: BinaryIO, environment: dict[str, str]) -> _Running:
    """Start the process, which inherits the log and with it the lock.

    It gets a session of its own, so that Ctrl-C in the terminal reaches the bench only.
    """
    command = [sys.executable, "-m", "scribbleseg.bench", to_json(job, config)]
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
    return _Running(
        job, subprocess.Popen(command, env=os.environ | environment, start_new_session=True, **streams), environment
    )


@contextmanager
def _stops_held() -> Iterator[None]:
    """Block SIGINT and SIGTERM until the block ends. A process started inside unblocks them itself (`worker.main`)."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reason(code: int, log: Path) -> str | None:
    if code == 0:
        return None
    if code < 0:
        return f"killed by {signal.Signals(-code).name}; its last output is in {log}"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return f"{[line for line in lines if line.strip()][-1].strip()} (log: {log})"


# --- a Ray cluster


def _join_cluster(config: Bench) -> ModuleType:
    """Ray, connected to the cluster at `--address`. Raises InputError if it is not installed or does not answer."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster started here must not send usage statistics
    try:
        import ray
    except ImportError as error:
        raise InputError("--engine ray needs the ray package. Run: pip install 'scribbleseg[ray]'") from error
    if config.jobs:
        raise InputError(
            "--jobs is for --engine local. Ray runs as many at once as the cluster has GPUs (or CPUs, if it has no "
            "GPU). Leave --jobs out."
        )
    host, _, port = config.address.rpartition(":")
    try:
        if host:
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself would retry for minutes
        with stops():  # ray.init installs its own SIGTERM handler
            ray.init(address=config.address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"--address {config.address}: no Ray cluster answers ({error}). Start one with `ray start --head`, or use "
            "--address local."
        ) from error
    return ray


def run_ray(jobs: list[Job], config: Bench, tick: Tick) -> Ended:
    """Each job as a Ray task with a GPU of its own, or a CPU if the cluster has no GPU.

    If a node dies, Ray starts its task on another one, where it continues from its checkpoint.
    """
    ray = _join_cluster(config)
    gpu = config.device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
    task = ray.remote(num_cpus=1, num_gpus=int(gpu), max_calls=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(
        _run_on_node
    )
    waiting, running = list(jobs), {}
    try:
        while True:
            for job in [job for job in waiting if _is_free(job, config)]:
                waiting.remove(job)
                running[task.remote(job, config, os.getcwd())] = job
            if not running:
                yield from ((job, None if is_done(job, config) else ELSEWHERE) for job in waiting)
                return
            ended: list = []
            while not ended:
                tick(set(running.values()), set(waiting))
                ended, _ = ray.wait(list(running), timeout=1)
            for ref in ended:
                try:
                    reason = ray.get(ref)
                except ray.exceptions.RayTaskError as error:
                    reason = " ".join(f"{type(error.cause).__name__}: {error.cause}".split())
                except ray.exceptions.RayError as error:  # the process or its node died, more than RETRIES times
                    reason = " ".join(f"{type(error).__name__}: {error}".split())
                    reason += f" (its last output is in {log_path(running[ref], config)})"
                job = running.pop(ref)
                if reason is None and not is_done(job, config):
                    reason = (
                        f"the run ended, but {config.results / job.budget} has no results of it. Put RESULTS on a file "
                        "system that all nodes share."
                    )
                yield job, reason
    finally:
        if running:
            _say_stopping(len(running))
            for ref in running:
                ray.cancel(ref)
            ray.wait(list(running), num_returns=len(running), timeout=LEASE_S)
        ray.shutdown()


def _is_free(job: Job, config: Bench) -> bool:
    log = open_log(job, config)
    if log is not None:
        log.close()
    return log is not None


def _run_on_node(job: Job, config: Bench, folder: str) -> str | None:
    """The Ray task. Relative paths start at the bench's folder.

    A task that was started again waits until the lock of the dead one is free.
    """
    try:
        os.chdir(folder)
    except OSError as error:
        return (
            f"{folder}: not found on {socket.gethostname()} ({error.strerror}). Start the bench in a folder on a file "
            "system that all nodes share."
        )
    until = time.monotonic() + LEASE_S
    while (log := open_log(job, config)) is None:
        if time.monotonic() > until:
            return ELSEWHERE
        time.sleep(1)
    if is_done(job, config):
        return None
    os.dup2(log.fileno(), sys.stdout.fileno())
    os.dup2(log.fileno(), sys.stderr.fileno())
    reason = run_logged(job, config)
    return reason and f"{reason} (log: {log_path(job, config)})"


def _say_stopping(count: int) -> None:
    say(f"stopping {counted(count, 'run')} at a checkpoint")
