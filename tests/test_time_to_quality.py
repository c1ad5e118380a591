import json
import sys

import time_to_quality as ttq
from small import small_dataset

from scribbleseg.config import Evaluate, Predict
from scribbleseg.evaluate import evaluate, read_rows, summarise
from scribbleseg.predict import predict

CUT = """
import sys
from scribbleseg import train as module
rate, limit = module.learning_rate, int(sys.argv.pop(1))
def stop(recipe, progress):
    if round(progress * recipe.iterations) == limit:
        raise KeyboardInterrupt
    return rate(recipe, progress)
module.learning_rate = stop
import torch
torch.set_num_threads(1)
from scribbleseg.cli import main
sys.exit(main())
"""


def test_checkpoints_carry_their_time_over_an_interruption_and_are_scored(tmp_path):
    dataset = small_dataset(tmp_path / "small")
    run = tmp_path / "runs" / "small-fast-s0"
    words = ["train", str(dataset), str(run), "--preset", "fast", "--method", "pce", "--iterations", "8", "--size", "32", "--checkpoint-every", "0"]
    ttq.train([sys.executable, "-c", CUT, "4"], words, run, 5)
    first = sorted(float(path.read_text()) for path in run.parent.glob("small-fast-s0-checkpoints/*/seconds"))
    assert first and first[0] > 0.2, "start-up counts"
    assert json.loads((run / "log.jsonl").read_text().splitlines()[-1])["iteration"] == 4
    ttq.train([sys.executable, "-c", CUT, "-1"], words, run, 5)
    lines = ttq.score(run, dataset)
    seconds = [line["seconds"] for line in lines]
    assert lines[-1]["iteration"] == 8 and seconds == sorted(seconds) and seconds[-1] > first[-1]

    predict(Predict(run, dataset, tmp_path / "found"))
    evaluate(Evaluate(tmp_path / "found", dataset / "labelsTr_dense", tmp_path / "scores.csv"))
    assert lines[-1]["mean"] == round(100 * summarise(read_rows(tmp_path / "scores.csv"))[-1]["dice"], 2)

    record = {"data": "acdc", "recipe": "fast", "method": "pce", "seed": 0, "iterations": 8, "command": "x", "environment": json.loads((run / "environment.json").read_text())}
    ttq.write(tmp_path / "kept" / "one", lines, ttq.step_times(run), record)
    found = ttq.read(tmp_path / "kept")
    assert found[0].lines == lines and [line["iteration"] for line in found[0].steps] == list(range(1, 9))
    assert "8 of 8" in ttq.table(found) and len(ttq.picture(found).axes) == 2


def test_a_level_is_reached_at_the_first_checkpoint_on_or_above_it():
    lines = [{"seconds": s, "mean": m} for s, m in ((10, 60.0), (20, 75.0), (30, 70.0))]
    assert [ttq.reached(lines, level) for level in (0.6, 0.7, 0.75, 0.76)] == [10, 20, 20, None]
