"""benchmarks/studies/folds.py: whole runs, several at once, with their scores and times."""

import csv
import subprocess
import sys
import threading
import time

import folds
import pytest
from small import small_dataset

from scribbleseg.cli import main
from scribbleseg.training.plan import read_plan


def in_this_process(words, environment):
    """`folds.clocked` without the start-up of a process."""
    start, words = time.perf_counter(), [*map(str, words)]
    if code := main(words):
        raise subprocess.CalledProcessError(code, [sys.executable, "-m", "scribbleseg", *words])
    return time.perf_counter() - start


def run(tmp_path, monkeypatch, *words):
    given = [
        "folds.py",
        str(tmp_path / "small"),
        "--split",
        "final",
        "--method",
        "pce",
        "--size",
        "32",
        "--device",
        "cpu",
        *words,
    ]
    monkeypatch.setattr(sys, "argv", [*given, "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)])
    monkeypatch.setattr(folds, "clocked", in_this_process)
    folds.main()
    (table,) = tmp_path.glob("folds-*.csv")
    return list(csv.DictReader(table.open(newline="", encoding="utf-8")))


def test_two_formats_and_then_another_length(tmp_path, monkeypatch):
    small_dataset(tmp_path / "small")
    both = run(tmp_path, monkeypatch, "--iterations", "4", "--precisions", "bfloat16", "float32")
    assert [(line["precision"], line["at_once"], line["iterations"], line["size"], line["step"]) for line in both] == [
        (precision, "1", "4", "32", "eager") for precision in ("bfloat16", "float32")
    ]
    assert all(
        float(line["training_s"]) > 0 and float(line["iterations_per_s"]) > 0.1 and 0 <= float(line["dice"]) <= 100
        for line in both
    )
    means = [sum(map(float, line["dice_per_class"].split(" / "))) / 2 for line in both]
    assert all(0 <= float(line[name]) <= 100 for line in both for name in ("dice_in_box", "outside"))
    assert means == pytest.approx([float(line["dice"]) for line in both], abs=0.1)
    (tmp_path / "runs" / "small-final-0-pce-auto-3-32-x1-s0").mkdir(parents=True)
    (tmp_path / "runs" / "small-final-0-pce-auto-3-32-x1-s0" / "note").touch()
    with pytest.raises(SystemExit, match=r"not measured: \(0, 0, 'auto'\): exit code 2 of scribbleseg train"):
        run(tmp_path, monkeypatch, "--iterations", "3")
    again = run(tmp_path, monkeypatch, "--iterations", "4", "--precisions", "bfloat16")
    assert again == both, "a finished run that is asked for again keeps its times"


def test_a_setting_of_the_method_is_another_line(tmp_path, monkeypatch):
    small_dataset(tmp_path / "small")
    run(tmp_path, monkeypatch, "--iterations", "1", "--method", "effdnet")
    _, line = run(
        tmp_path, monkeypatch, "--iterations", "1", "--method", "effdnet", "--set", "fbsl=false", "fadc=false"
    )
    assert line["set"] == "fbsl=false fadc=false"
    options = read_plan(tmp_path / "runs" / "small-final-0-effdnet-fbsl=false-fadc=false-auto-1-32-x1-s0")[1].options
    assert not options["fbsl"] and not options["fadc"]


def test_several_run_at_once(tmp_path, monkeypatch):
    def measure(given, fold, seed, precision):
        barrier.wait(20)
        return {"fold": str(fold)}

    barrier, shown = threading.Barrier(2), []
    monkeypatch.setattr(folds, "measure", measure)
    monkeypatch.setattr(folds, "write", lambda line, results: shown.append(line))
    monkeypatch.setattr(sys, "argv", ["folds.py", "data", "--folds", "0", "1", "--at-once", "2"])
    folds.main()
    assert shown == [{"fold": "0"}, {"fold": "1"}]


def test_a_verb_is_clocked_and_its_failure_is_one(monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    assert 0 < folds.clocked(["--version"], {}) < 60
    with pytest.raises(subprocess.CalledProcessError):
        folds.clocked(["nothing"], {})
    assert "No such command 'nothing'" in capfd.readouterr().err


def test_the_rate_is_of_the_second_half():
    log = [{"iteration": at, "seconds_per_iteration": s} for at, s in ((1, 100.0), (10, 1.0), (12, 0.5), (20, 0.25))]
    assert folds.late_rate(log) == pytest.approx(10 / 3)
    assert folds.late_rate(log[:1]) == pytest.approx(0.01), "a run of one line"
