"""benchmarks/timing/time_to_quality.py: its clock, over interruptions too, and what it makes of the checkpoints."""

import json
import multiprocessing
import os
import signal
import sys
import time

import pytest
import time_to_quality as ttq
from small import small_dataset

from scribbleseg.config import Evaluate, Predict, Train
from scribbleseg.evaluation.scores import evaluate, read_rows, summarise
from scribbleseg.inference.predict import predict
from scribbleseg.training.train import train

START_UP, PAUSE = 0.5, 3.0  # seconds
PROGRAM = """
import json, pathlib, sys, time
words = sys.argv[1:]
run = pathlib.Path(words[1] if "--resume" in words else words[2])
run.mkdir(parents=True, exist_ok=True)
(run / "config.json").write_text("{}")
number = len(list(run.iterdir()))
time.sleep(START_UP)
head = json.dumps({"__metadata__": {"iteration": str(number)}}).encode()
(run / "partial").write_bytes(len(head).to_bytes(8, "little") + head)
(run / f"seen{number}").touch()
(run / "partial").replace(run / "last.safetensors")
try:
    time.sleep(LINGER)
except KeyboardInterrupt:
    sys.exit(130)
"""


def program(linger: float) -> list[str]:
    return [sys.executable, "-c", PROGRAM.replace("START_UP", str(START_UP)).replace("LINGER", str(linger))]


def seconds(run) -> list[float]:
    return [float(path.read_text()) for path in sorted(run.parent.glob(f"{run.name}-checkpoints/*/seconds"))]


def test_the_clock_counts_start_up_and_goes_on_after_a_stop(tmp_path):
    run = tmp_path / "run"
    words = ["train", "data", str(run)]
    start = time.perf_counter()
    ttq.train(program(60), words, run, (START_UP + PAUSE) / 60)  # stopped by the minutes
    spent = time.perf_counter() - start
    (first,) = seconds(run)
    assert START_UP <= first < spent < 20
    ttq.train(["no such program"], words, run, (START_UP + PAUSE) / 60)  # they are used up: nothing is started
    ttq.train(program(0), words, run, 5)
    assert len(seconds(run)) == 2 and seconds(run)[1] >= START_UP + PAUSE + START_UP
    (run / "config.json").unlink()
    ttq.train(program(0), words, run, 5)
    assert len(seconds(run)) == 1 and seconds(run)[0] < START_UP + PAUSE, "a run begun anew has a clock of its own"


def test_ctrl_c_lets_the_training_save_and_keeps_its_time(tmp_path):
    run = tmp_path / "run"
    fork = multiprocessing.get_context("fork")  # it has everything imported
    process = fork.Process(target=ttq.train, args=(program(60), ["train", "data", str(run)], run, 5))
    process.start()
    while not (run / "last.safetensors").is_file():
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    process.join(20)
    assert process.exitcode not in (0, None)
    assert float((tmp_path / "run-checkpoints" / "seconds").read_text()) > START_UP + 0.4 and len(seconds(run)) == 1


def test_a_failed_training_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="exit status 3"):
        ttq.train([sys.executable, "-c", "raise SystemExit(3)"], ["train"], tmp_path / "run", 5)


def test_checkpoints_are_scored_as_predict_and_evaluate_do(tmp_path, monkeypatch):
    dataset, run = small_dataset(tmp_path / "small"), tmp_path / "runs" / "small-fast-s0"
    given = {"iterations": 2, "size": 32, "checkpoint_every": 0.0}
    trained = train(Train(dataset, tmp_path / "trained", method="pce", preset="fast", **given))
    code = "import os, shutil, sys; shutil.copytree(sys.argv[1], 'made'); os.rename('made', sys.argv[-1])"
    monkeypatch.chdir(tmp_path)
    run.parent.mkdir()
    ttq.train([sys.executable, "-c", code, str(trained)], ["train", str(dataset), str(run)], run, 5)
    lines = ttq.score(run, dataset)
    assert lines[-1]["iteration"] == 2 and [line["seconds"] for line in lines] == sorted(
        line["seconds"] for line in lines
    )
    predict(Predict(run, dataset, tmp_path / "found"))
    evaluate(Evaluate(tmp_path / "found", dataset / "labelsTr_dense", tmp_path / "scores.csv"))
    assert lines[-1]["mean"] == round(100 * summarise(read_rows(tmp_path / "scores.csv"))[-1]["dice"], 2)

    machine = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    record = {
        "data": "acdc",
        "recipe": "fast",
        "method": "pce",
        "seed": 0,
        "iterations": 2,
        "command": "train it",
        "environment": machine,
    }
    ttq.write(tmp_path / "kept" / "one", lines, ttq.step_times(run), record)
    found = ttq.read(tmp_path / "kept")
    assert found[0].lines == lines and [line["iteration"] for line in found[0].steps] == [1, 2]
    assert "| 2 of 2 |" in ttq.table(found) and len(ttq.picture(found).axes) == 2


def test_a_level_is_reached_at_the_first_checkpoint_on_or_above_it():
    lines = [{"seconds": s, "mean": m} for s, m in ((10, 60.0), (20, 75.0), (30, 70.0))]
    assert [ttq.reached(lines, level) for level in (0.6, 0.7, 0.75, 0.76)] == [10, 20, 20, None]
