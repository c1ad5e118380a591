"""benchmarks/gpu.sh, with a Python that only pretends to train: it ends in time, asks for scripts, verbs and options
that there are, and its second call carries on.
"""

import os
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from scribbleseg.cli import VERBS

ROOT = Path(__file__).parents[1]
STUB = """#!/bin/bash
line=$(printf '%q ' "$@"); echo "$line" >> {asked}  # one write: processes in the background ask too
case "$*" in
*unpack*mscmr*) mkdir -p datasets/mscmr; touch datasets/mscmr/dataset.json ;;
*unpack*acdc*) mkdir -p datasets/acdc; touch datasets/acdc/dataset.json ;;
*" train "*)
    for run in {runs}; do case "$*" in *$run*) break ;; esac; done
    mkdir -p $run
    touch $run/config.json $run/last.safetensors
    echo '{{"iteration": 20000, "loss": 1.0}}' >> $run/log.jsonl
    echo "compiled in 1 s"
    trap 'echo stopped; exit 0' INT
    for _ in {{1..{steps}}}; do /bin/sleep 0.1; done ;;
esac
"""

RUNS = ["runs/paper/mscmr/25-5-15-0/scn-s0", "runs/paper/acdc/622-0/scn-s0", "runs/paper/acdc/cv5-0/effdnet-s0"]
LOGS = ["mscmr-scn-s0", "acdc-scn-s0", "acdc-effdnet-s0"]


def call(folder: Path, steps: int, seconds: int | None) -> tuple[list[list[str]], float, str]:
    """The commands that gpu.sh asked for, the seconds that it took, and what it said."""
    asked, stub = folder / "asked", folder / "python"
    asked.write_text("")
    stub.write_text(STUB.format(asked=asked, steps=steps, runs=" ".join(RUNS)), encoding="utf-8")
    stub.chmod(0o755)
    start = time.monotonic()
    ended = subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "out", *([] if seconds is None else [str(seconds)])],
        cwd=folder,
        env=os.environ | {"PYTHON": str(stub)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return (
        [shlex.split(line) for line in asked.read_text(encoding="utf-8").splitlines()],
        (time.monotonic() - start),
        ended.stdout,
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "packed").mkdir()
    for name in ("mscmr.zip", "acdc1.zip", "acdc2.zip"):
        (tmp_path / "packed" / name).touch()
    (tmp_path / "benchmarks" / "results" / "paper").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.md").touch()
    write_rates(tmp_path, scn=1e-6, effdnet=1e-6)
    return tmp_path


def write_rates(folder: Path, scn: float, effdnet: float) -> None:
    logs = folder / "runs" / "gpu"
    logs.mkdir(parents=True, exist_ok=True)
    lines = f"method,batch,seconds\neffdnet,12,{effdnet}\nscn,24,{scn}\n"
    (logs / "speed-a-gpu-256.csv").write_text(lines, encoding="utf-8")


def test_it_asks_for_what_there_is_and_carries_on(folder):
    first, *_ = call(folder, steps=1, seconds=60)
    for line in first:
        if line[0].startswith("benchmarks/"):
            text = (ROOT / line[0]).read_text(encoding="utf-8")
            assert [word for word in line if word.startswith("--") and f'"{word}"' not in text] == []
        else:
            assert line[1] == "scribbleseg" and line[2] in VERBS
    rates = [line for line in first if line[0] == "benchmarks/timing/speed.py"]
    assert ["--compile" in line for line in rates] == [False]
    assert ["packed/acdc1.zip", "packed/acdc2.zip", "datasets/acdc"] in [line[2:] for line in first]
    trained = [line for line in first if "train" in line]
    assert all("--method" in line for line in trained) and sorted(line[4] for line in trained) == sorted(RUNS)
    (folder / RUNS[0] / "log.jsonl").write_text('{"iteration": 30000, "loss": 1}\n', encoding="utf-8")
    second, *_ = call(folder, steps=1, seconds=60)
    assert sorted(line[3:] for line in second if "train" in line) == [[run, "--resume"] for run in sorted(RUNS[1:])]
    packed = subprocess.run("cat out/runs.tar.gz.* | tar tz", shell=True, cwd=folder, capture_output=True, text=True)
    assert {f"{run}/last.safetensors" for run in RUNS} <= set(packed.stdout.splitlines())
    halves = [line[3:] for line in first if "pack" in line]
    assert sorted(halves) == sorted([run, f"out/{log}.zip"] for run, log in zip(RUNS, LOGS))


def test_a_run_whose_scores_are_committed_is_passed_over(folder):
    committed = folder / "benchmarks" / "results" / "paper" / "runs.csv"
    committed.write_text("run,data\nmscmr/25-5-15-0/scn-s0,mscmr\n", encoding="utf-8")
    (folder / "runs" / "gpu" / "rates.log").touch()
    write_rates(folder, scn=0.001, effdnet=1e-6)
    asked, _, said = call(folder, steps=1, seconds=300)
    assert sorted(line[4] for line in asked if "train" in line) == sorted(RUNS[1:])
    assert f"{RUNS[0]}: its scores are committed" in said
    assert "both runs of SCN: 36 s" in said, "30 000 steps and a fifth, of one run"


def test_the_queue_at_quick_is_run_in_the_time_that_trainings_leave(folder):
    asked, *_ = call(folder, steps=30, seconds=300)
    ((script, *words),) = [line for line in asked if line[0].endswith("results.py")]
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert script == "benchmarks/studies/results.py" and options.pop("--minutes") == "3", "60 s before the last 40"
    assert options == {
        "--budget": "quick",
        "--jobs": str(len(os.sched_getaffinity(0)) // 2 + 1),
        "--results": "runs/gpu/results",
        "--page": "runs/gpu/results.md",
    }
    assert (folder / "runs" / "gpu" / "results" / "paper").is_dir()
    rates = [line for line in asked if line[0] == "benchmarks/timing/speed.py"]
    assert ["--compile" in line for line in rates] == [False, True], "compiled once the trainings have ended"


def test_it_takes_nine_minutes_if_none_are_named(folder):
    asked, *_ = call(folder, steps=1, seconds=None)
    (queue,) = [line for line in asked if line[0].endswith("results.py")]
    assert queue[queue.index("--minutes") + 1] == "7", "540 s without the last 40 and 60"


def test_it_ends_in_time_and_leaves_checkpoints(folder):
    asked, seconds, _ = call(folder, steps=600, seconds=43)
    assert not any(line[0].endswith("results.py") for line in asked), "no time is left for the queue"
    assert seconds < 15
    for name in LOGS:
        assert (folder / "runs" / "gpu" / f"{name}.log").read_text().splitlines() == ["compiled in 1 s", "stopped"]


def test_a_data_set_that_is_not_there_is_passed_over(folder):
    (folder / "packed" / "mscmr.zip").unlink()
    asked, *_ = call(folder, steps=1, seconds=60)
    assert [line[3] for line in asked if "train" in line] == ["datasets/acdc"] * 2


@pytest.mark.parametrize("step, expected", [(0.001, 2), (0.01, 1)])
def test_the_runs_of_scn_are_side_by_side_if_both_end_in_time(folder, step, expected):
    """Both runs stand at 20 000 of 30 000 iterations: 20 000 steps are missing, 24 000 with a fifth for the rest."""
    logs = folder / "runs" / "gpu"
    (logs / "rates.log").touch()
    write_rates(folder, scn=step, effdnet=9)
    (logs / "speed-parts-a-gpu-256.csv").write_text("method,seconds\nscn,99\n", encoding="utf-8")
    for run in RUNS[:2]:
        (folder / run).mkdir(parents=True)
        (folder / run / "log.jsonl").write_text('{"iteration": 20000, "loss": 1}\n', encoding="utf-8")
    *_, said = call(folder, steps=1, seconds=100)
    assert f"both runs of SCN: {24_000 * step:.0f} s, " in said and f"{expected} at once" in said


@pytest.mark.parametrize("step, begun", [(0.0003, True), (0.0009, False)])
def test_effdnet_is_begun_if_it_needs_less_than_four_fifths_of_what_is_left(folder, step, begun):
    """60 000 steps and a fifth for the rest: 22 s and 65 s, of 75 s."""
    write_rates(folder, scn=1e-6, effdnet=step)
    asked, _, said = call(folder, steps=1, seconds=100)
    assert any(RUNS[2] in line for line in asked) == begun
    assert ("it is not begun" in said) != begun


def test_effdnet_that_was_begun_is_carried_on_whatever_it_needs(folder):
    write_rates(folder, scn=1e-6, effdnet=9)
    (folder / RUNS[2]).mkdir(parents=True)
    (folder / RUNS[2] / "config.json").touch()
    asked, _, said = call(folder, steps=1, seconds=60)
    assert [RUNS[2], "--resume"] in [line[3:] for line in asked] and "it is not begun" not in said
