"""A bench on a Ray cluster of two nodes, one of which dies in the middle of a run."""

import dataclasses
import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from small import small_dataset

from scribbleseg.bench import bench, engines
from scribbleseg.bench.plan import Job, read_bench_plan
from scribbleseg.bench.run import run_job
from scribbleseg.bench.store import read_scores
from scribbleseg.bench.worker import log_path, open_log
from scribbleseg.config import Bench
from scribbleseg.core.errors import InputError
from scribbleseg.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

PLAN = """
seeds = [0, 1]
[[data]]
folder = "small"
split = "final"
folds = [0]
[[row]]
method = "pce"
"""
ITERATIONS = 40
PATIENCE_S = 900  # on a busy machine


@pytest.fixture
def place(tmp_path, quick_budget, monkeypatch) -> Bench:
    quick_budget(ITERATIONS)
    small_dataset(tmp_path / "datasets" / "small")
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)  # relative paths are of the bench's folder, on every node
    return Bench(
        Path("plan.toml"),
        datasets=Path("datasets"),
        runs=Path("runs"),
        results=Path("results"),
        checkpoint_every=0.0,
        engine="ray",
        device="cpu",
    )


@pytest.fixture
def cluster(place, monkeypatch):
    """A head that takes no jobs and two nodes that take one each."""
    pytest.importorskip("ray", reason="the ray extra is not installed")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 unless told: never, on a busy machine
    small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    made.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    made.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    place.address = made.address
    yield made
    made.shutdown()


def processes(job: Job, config: Bench) -> list[int]:
    """Of the starts that the job's log has."""
    path = log_path(job, config)
    return (
        [
            int(number)
            for number in re.findall(r"^-- .*, process (\d+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        ]
        if path.is_file()
        else []
    )


def parent(process: int) -> int:
    return int(
        re.search(r"^PPid:\s+(\d+)", Path(f"/proc/{process}/status").read_text(encoding="utf-8"), re.MULTILINE)[1]
    )


def kill_the_node_of(job: Job, config: Bench, cluster, killed: list) -> None:
    """After the job's first checkpoint inside the run: the node's raylet, and the process that trains, as when the
    machine loses its power."""
    until = time.monotonic() + PATIENCE_S
    run = config.runs / job.place
    while not (run / "resume.pt").is_file() or not read_checkpoint(run)["iteration"]:
        if time.monotonic() > until:
            return
        time.sleep(0.2)
    (process,) = processes(job, config)
    raylet = parent(process)
    (node,) = [node for node in cluster.worker_nodes if node.all_processes["raylet"][0].process.pid == raylet]
    os.kill(raylet, signal.SIGKILL)
    os.kill(process, signal.SIGKILL)
    killed.append(read_checkpoint(run)["iteration"])
    cluster.remove_node(node, allow_graceful=False)


def test_a_run_whose_node_dies_goes_on_elsewhere(place, cluster, tmp_path, capsys):
    first, second = read_bench_plan(place).jobs
    killed = []
    killer = threading.Thread(target=kill_the_node_of, args=(first, place, cluster, killed))
    killer.start()
    done = bench(place)
    killer.join()
    assert done, capsys.readouterr().err
    assert len(killed) == 1 and 0 < killed[0] < ITERATIONS
    assert len(processes(first, place)) == 2, "started again"
    assert len(processes(second, place)) == 1, "not disturbed"
    for job in (first, second):
        log = [
            json.loads(line) for line in (place.runs / job.place / "log.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        assert [entry["iteration"] for entry in log] == list(range(1, ITERATIONS + 1)), "nothing lost, nothing twice"
    training = log_path(first, place).read_text(encoding="utf-8").rpartition("\n-- ")[2]
    assert re.search(rf"training pce: {ITERATIONS}/{ITERATIONS} it", training)
    scores = read_scores(place.results / "quick")
    assert set(scores) == {first.run, second.run}
    whole = Bench(
        place.plan, datasets=place.datasets, runs=tmp_path / "whole", results=tmp_path / "whole-results", device="cpu"
    )
    run_job(first, whole)
    undisturbed = read_scores(whole.results / "quick")
    assert scores[first.run] == undisturbed[first.run], "the scores of a run that was not disturbed"
    assert scores[first.run] != scores[second.run]


def test_ray_that_is_not_there(place, monkeypatch):
    jobs = list(read_bench_plan(place).jobs)
    monkeypatch.setitem(engines.sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'scribbleseg\[ray\]'"):
        list(engines.run_ray(jobs, place, lambda *_: None))


def test_a_run_that_fails_on_a_node_names_its_log(place, monkeypatch):
    job = read_bench_plan(place).jobs[0]
    monkeypatch.setattr(engines.os, "dup2", lambda *_: None)
    monkeypatch.setattr(engines, "run_logged", lambda *_: "RuntimeError: no luck")
    assert engines._run_on_node(job, place, os.getcwd()) == f"RuntimeError: no luck (log: {log_path(job, place)})"
    monkeypatch.setattr(engines, "run_logged", lambda *_: None)
    assert engines._run_on_node(job, place, os.getcwd()) is None


def test_sigterm_stops_a_bench_also_when_ray_has_taken_it(place, monkeypatch):
    """As ray.init does, which says so; the one job is locked, so that no task starts."""
    taken = SimpleNamespace(
        init=lambda **_: signal.signal(signal.SIGTERM, lambda *_: os._exit(15)),
        cluster_resources=dict,
        shutdown=lambda: None,
    )
    taken.remote = lambda **_: lambda task: task
    monkeypatch.setitem(engines.sys.modules, "ray", taken)
    job = read_bench_plan(place).jobs[0]
    with open_log(job, place), engines.stops():
        for _ in engines.run_ray([job], dataclasses.replace(place, address="local"), lambda *_: None):
            assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


def test_a_cluster_that_is_not_there(place):
    pytest.importorskip("ray", reason="the ray extra is not installed")
    jobs = list(read_bench_plan(place).jobs)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        for place.address in (f"127.0.0.1:{unused.getsockname()[1]}", "127.0.0.1:head"):
            with pytest.raises(InputError, match=f"--address {place.address}: no Ray cluster answers"):
                list(engines.run_ray(jobs, place, lambda *_: None))
    place.jobs = 2
    with pytest.raises(InputError, match="--jobs is for --engine local"):
        list(engines.run_ray(jobs, place, lambda *_: None))
