"""How a bench runs its jobs: processes, locks, stopping, the view over all runs. Ray: test_bench_ray.py."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small import small_dataset

from scribbleseg.bench import bench, engines, view
from scribbleseg.bench.engines import run_local, worker_environments
from scribbleseg.bench.plan import Job, read_bench_plan
from scribbleseg.bench.store import is_done
from scribbleseg.bench.view import View, duration, read_reached
from scribbleseg.bench.worker import ELSEWHERE, from_json, log_path, open_log, to_json
from scribbleseg.config import Bench
from scribbleseg.core.errors import InputError
from scribbleseg.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

DATA = '[[data]]\nfolder = "small"\nsplit = "final"\nfolds = [0]\n'
DOOMED = '''
import os, signal, time
from pathlib import Path
from scribbleseg.methods.pce import PCE

def meet(own, other):
    """Returns only when both processes are here at the same time."""
    Path(__file__).with_name(own).touch()
    until = time.monotonic() + 300
    while not Path(__file__).with_name(other).exists():
        assert time.monotonic() < until, "never met"
        time.sleep(0.05)

class Fails(PCE):
    def losses(self, batch, progress):
        meet("fails", "dies")
        raise RuntimeError("no\\nluck")

class Dies(PCE):
    def losses(self, batch, progress):
        meet("dies", "fails")
        os.kill(os.getpid(), signal.SIGKILL)
'''


def settings(folder: Path, rows: str, **changes) -> Bench:
    plan = folder / "plan.toml"
    plan.write_text(DATA + rows, encoding="utf-8")
    return Bench(plan, datasets=folder / "datasets", runs=folder / "runs", results=folder / "results", **changes)


def row(label: str, method: str = "pce") -> str:
    return f'[[row]]\nlabel = "{label}"\nmethod = "{method}"\n'


def jobs_of(config: Bench) -> list[Job]:
    return list(read_bench_plan(config).jobs)


def log_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


# --- processes


def test_a_run_that_fails_and_one_that_is_killed_leave_the_others_alone(tmp_path, quick_budget, capsys, monkeypatch):
    quick_budget(2)
    (tmp_path / "path" / "doomed.py").write_text(DOOMED, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "path")  # reading the plan imports it too
    small_dataset(tmp_path / "datasets" / "small")
    config = settings(tmp_path, row("fails", "doomed:Fails") + row("dies", "doomed:Dies") + row("lives"), jobs=2)
    fails, dies, lives = jobs_of(config)
    assert not bench(config)
    said = capsys.readouterr().err
    listed = said.splitlines()[-2:]
    assert listed[0] == f"{fails.place}: RuntimeError: no luck (log: {log_path(fails, config)})", said
    assert listed[1].startswith(f"{dies.place}: killed by SIGKILL; ") and str(log_path(dies, config)) in listed[1]
    assert "Traceback" in log_path(fails, config).read_text(encoding="utf-8") and "Traceback" not in said
    assert is_done(lives, config) and not is_done(fails, config) and not is_done(dies, config)
    assert f"{lives.place}: started" in said and f"] {lives.place}: done" in said
    lock = open_log(dies, config)
    assert lock is not None, "the lock of a killed process is free"
    environment = json.loads((config.runs / lives.place / "environment.json").read_text(encoding="utf-8"))
    assert environment["threads"] == 1


@pytest.mark.usefixtures("in_time")
def test_a_run_of_another_bench_is_left_to_it(tmp_path, monkeypatch):
    config = settings(tmp_path, row("held") + row("held too"))
    monkeypatch.setattr(engines, "_start", lambda *_: pytest.fail("a locked run was started"))
    jobs = jobs_of(config)
    locks = [open_log(job, config) for job in jobs]
    assert open_log(jobs[0], config) is None
    assert list(run_local(jobs, config, lambda *_: None)) == [(job, ELSEWHERE) for job in jobs]
    locks[0].close()
    monkeypatch.setattr(engines, "is_done", lambda job, config: True)  # the other bench has finished it
    assert list(run_local(jobs, config, lambda *_: None)) == [(jobs[0], None), (jobs[1], ELSEWHERE)]


@pytest.mark.usefixtures("in_time")
def test_a_run_is_taken_over_when_the_other_bench_gives_it_up(tmp_path, monkeypatch):
    """Two runs, the first held by another bench until the second has ended."""
    config = settings(tmp_path, row("held") + row("free"))
    held, free = jobs_of(config)
    lock, started = open_log(held, config), []

    def start(job, config, log, environment):
        started.append(job)
        return engines._Running(job, subprocess.Popen([sys.executable, "-S", "-c", ""], stderr=log), environment)

    monkeypatch.setattr(engines, "_start", start)
    for _, reason in run_local([held, free], config, lambda *_: None):
        assert reason is None
        lock.close()
    assert started == [free, held]


def test_gpus_and_cores_are_shared_out(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(engines.os, "sched_getaffinity", lambda _: range(8), raising=False)
    config = settings(tmp_path, row("pce"), device="cpu")
    assert worker_environments(config) == [{"OMP_NUM_THREADS": "8"}]
    config.jobs = 3
    assert worker_environments(config) == 3 * [{"OMP_NUM_THREADS": "2"}]
    monkeypatch.setattr(engines, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config.device = "auto"
    assert [each["CUDA_VISIBLE_DEVICES"] for each in worker_environments(config)] == ["0", "1", "0"]
    config.jobs = 0
    assert worker_environments(config) == [{"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": gpu} for gpu in ("0", "1")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-7c1,3")
    assert [each["CUDA_VISIBLE_DEVICES"] for each in worker_environments(config)] == ["GPU-7c1", "3"]
    config.device = "cuda:1"
    assert worker_environments(config) == [{"OMP_NUM_THREADS": "8"}]


@pytest.mark.usefixtures("in_time")
def test_an_engine_says_what_it_started_and_what_another_bench_has(tmp_path, monkeypatch):
    config = settings(tmp_path, row("held") + row("ours") + row("not looked at"))
    held, ours, _ = jobs = jobs_of(config)
    endless = SimpleNamespace(poll=lambda: None, send_signal=lambda _: None, wait=lambda: None)
    monkeypatch.setattr(
        engines, "_start", lambda job, config, log, environment: engines._Running(job, endless, environment)
    )
    told = []

    def tick(started, other):
        told.append((started, other))
        if len(told) == 2:
            raise KeyboardInterrupt

    with open_log(held, config), pytest.raises(KeyboardInterrupt):
        list(run_local(jobs, config, tick))
    assert told == [({ours}, {held})] * 2, "also when it has not looked again"


def test_a_worker_that_is_stopped_while_it_imports_says_stopped(tmp_path):
    config = settings(tmp_path, row("pce"))
    (job,) = jobs_of(config)
    with open_log(job, config) as log, engines._stops_held():
        run = engines._start(job, config, log, {})
        run.process.send_signal(signal.SIGINT)
    assert run.process.wait() == 130
    assert log_path(job, config).read_text(encoding="utf-8") == "stopped\n"
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & engines.STOPS


def test_fewer_than_no_runs_at_once_is_refused(tmp_path):
    config = settings(tmp_path, row("pce"), jobs=-1, device="cpu")
    with pytest.raises(InputError, match="--jobs -1: expected 1 or more"):
        list(run_local(jobs_of(config), config, lambda *_: None))


def test_a_job_travels_as_json(tmp_path):
    job = Job("acdc", "cv5", 3, "no fadc", "effdnet", ("fadc=false", "a=1"), 7, "quick")
    config = settings(tmp_path, row("pce"), checkpoint_every=3.5)
    assert from_json(to_json(job, config)) == (job, config)


# --- Slurm, and stopping


def test_the_slurm_script_stops_at_a_checkpoint_requeues_and_carries_on(tmp_path, quick_budget):
    quick_budget(200)
    small_dataset(tmp_path / "datasets" / "small")
    config = settings(tmp_path, row("pce"))
    (job,) = jobs_of(config)
    run = config.runs / job.place
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        ("scribbleseg", f'exec "{sys.executable}" -m scribbleseg "$@"'),
        ("scontrol", f'echo "$@" >> "{tmp_path}/requeued"'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    task = {
        "SLURM_ARRAY_JOB_ID": "41",
        "SLURM_ARRAY_TASK_ID": "3",
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    script = Path(__file__).parents[1] / "benchmarks" / "slurm.sh"
    command = [
        "bash",
        script,
        config.plan,
        "--datasets",
        config.datasets,
        "--runs",
        config.runs,
        "--results",
        config.results,
    ]
    process = subprocess.Popen(
        command, env=os.environ | task, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    until = time.monotonic() + 300
    while not (run / "log.jsonl").is_file() or len(log_of(run)) < 5:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=300)[1]
    assert (
        process.returncode == 130
        and "stopping 1 run at a checkpoint" in said
        and "Continue with the same command. With --table-only it makes the tables of the runs that are done." in said
    ), said
    assert (tmp_path / "requeued").read_text(encoding="utf-8") == "requeue 41_3\n"
    reached = read_checkpoint(run)["iteration"]
    assert 5 <= reached < 200 and not is_done(job, config) and open_log(job, config) is not None
    again = subprocess.run(command, env=os.environ | task, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    assert is_done(job, config) and (tmp_path / "requeued").read_text(encoding="utf-8").count("\n") == 1
    assert [entry["iteration"] for entry in log_of(run)] == list(range(1, 201)), "carried on where it stopped"
    starts = [line for line in log_path(job, config).read_text(encoding="utf-8").splitlines() if line.startswith("-- ")]
    assert len(starts) == 2


# --- the view


def fake_run(config: Bench, job: Job, iteration: int, seconds: float, total: int = 100) -> None:
    run = config.runs / job.place
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps({"plan": {"recipe": {"iterations": total}}}), encoding="utf-8")
    lines = [json.dumps({"iteration": i, "seconds_per_iteration": seconds}) + "\n" for i in range(1, iteration + 1)]
    (run / "log.jsonl").write_text(
        "".join(lines) + '{"iteration": 99', encoding="utf-8"
    )  # the last line is still being written
    log_path(job, config).write_text("-- began\n", encoding="utf-8")


def test_the_view_counts_and_estimates(tmp_path):
    config = settings(tmp_path, row("pce") + row("scn"))
    pce, scn = jobs = jobs_of(config)
    later = [Job(**{**vars(pce), "seed": seed}) for seed in (1, 2)]
    look = View([pce, scn, *later], config, done=3)
    assert look.lines() == ["7 runs: 3 done, 0 failed, 0 running, 4 waiting"]
    fake_run(config, pce, 40, seconds=2.0)
    fake_run(config, scn, 10, seconds=6.0)
    look.poll(set(jobs), set())
    assert read_reached(config.runs / pce.place) == view.Reached(40, 100, 2.0)
    # 120 s and 540 s are left of the two that run, two at once; the two that wait are pce, so 200 s each: 530 s,
    # but the longest needs 540 s
    assert look.seconds_left() == 540
    fake_run(config, pce, 20, seconds=2.0)
    look.poll(set(jobs), set())
    assert look.seconds_left() == (160 + 540 + 2 * 200) / 2
    fake_run(config, pce, 40, seconds=2.0)
    look.poll(set(jobs), set())
    assert look.lines() == [
        "7 runs: 3 done, 0 failed, 2 running, 2 waiting, about 9 min left",
        f"  {pce.place}  40/100 it, 2 min left",
        f"  {scn.place}  10/100 it, 9 min left",
    ]
    fake_run(config, pce, 100, seconds=2.0)
    look.poll(set(jobs), set())
    assert look.lines()[1].endswith("  100/100 it, predicting")
    look.end(pce, None)
    look.end(scn, "InputError: no")
    assert look.lines() == ["7 runs: 4 done, 1 failed, 0 running, 2 waiting, about 3 min left"], (
        "two of 200 s, two at once"
    )
    look.end(later[0], ELSEWHERE)
    assert look.lines() == ["7 runs: 4 done, 1 failed, 1 running elsewhere, 0 running, 1 waiting, about 3 min left"]


def test_a_run_that_another_bench_started_before_is_not_yet_running(tmp_path):
    config = settings(tmp_path, row("pce"))
    (job,) = jobs_of(config)
    fake_run(config, job, 5, seconds=1.0)
    look = View([job], config, done=0)
    look.poll(set(), set())
    assert look.lines() == ["1 run: 0 done, 0 failed, 0 running, 1 waiting"]


def test_the_view_knows_the_runs_of_another_bench(tmp_path, capsys):
    config = settings(tmp_path, row("held") + row("begun there") + row("ours") + row("waits"))
    held, there, ours, waits = jobs_of(config)
    fake_run(config, held, 40, seconds=2.0)
    look = View([held, there, ours, waits], config, done=0)
    fake_run(config, there, 10, seconds=2.0)  # its log grows, and this bench did not start it
    fake_run(config, ours, 10, seconds=2.0)
    look.poll({ours}, {held})
    look.poll({ours}, {held})
    assert look.lines() == [
        "4 runs: 0 done, 0 failed, 2 running elsewhere, 1 running, 1 waiting, about 4 min left",
        f"  {held.place}         40/100 it, 2 min left, elsewhere",
        f"  {there.place}  10/100 it, 3 min left, elsewhere",
        f"  {ours.place}         10/100 it, 3 min left",
    ]
    look.poll({ours, held}, set())  # taken over
    look.end(there, ELSEWHERE)
    look.end(waits, ELSEWHERE)
    assert look.lines()[0].startswith("4 runs: 0 done, 0 failed, 2 running elsewhere, 2 running, 0 waiting")
    said = [
        f"{held.place}: running elsewhere",
        f"{there.place}: running elsewhere",
        f"{ours.place}: started",
        f"{held.place}: started",
        f"{waits.place}: running elsewhere",
    ]
    assert capsys.readouterr().err.splitlines() == [f"[0/4] {line}" for line in said], "each once"


def test_piped_the_view_is_a_line_per_event(tmp_path, capsys):
    config = settings(tmp_path, row("pce"))
    (job,) = jobs_of(config)
    look = View([job], config, done=1)
    fake_run(config, job, 5, seconds=1.0)
    look.poll({job}, set())
    look.poll({job}, set())
    look.end(job, "killed")
    assert capsys.readouterr().err == f"[1/2] {job.place}: started\n[2/2] {job.place}: killed\n"


def test_on_a_terminal_the_lines_are_redrawn(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(view, "POLL_S", 0.0)
    monkeypatch.setattr(view.shutil, "get_terminal_size", lambda: (30, 3))
    config = settings(tmp_path, row("a") + row("b"))
    jobs = jobs_of(config)
    look = View(jobs, config, done=0)
    for job in jobs:
        fake_run(config, job, 5, seconds=1.0)
    look.tick(set(jobs), set())
    said = capsys.readouterr().err
    assert said == "2 runs: 0 done, 0 failed, 2 r\n  … and 2 more\n", "as high and wide as the terminal"
    look.tick(set(jobs), set())
    assert capsys.readouterr().err == "\x1b[2F\x1b[J" + said
    look.end(jobs[0], None)
    assert "done\n" not in capsys.readouterr().err
    look.end(jobs[1], "killed")
    assert f"\x1b[J{jobs[1].place}: killed\n" in capsys.readouterr().err, "a failure stays on the screen"


@pytest.mark.parametrize(
    "seconds, text", [(12.4, "12 s"), (90, "2 min"), (3599, "1 h 0 min"), (4800, "1 h 20 min"), (183_600, "2 d 3 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
