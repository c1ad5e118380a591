"""benchmarks/studies/presets.py: a place is trained, predicted and scored once."""

import presets
import pytest
from common import read_csv
from small import ringed

from scribbleseg.evaluation.tables import read_rows
from scribbleseg.training.plan import read_plan


@pytest.mark.slow
def test_a_place_is_trained_scored_and_left_out_the_next_time(tmp_path, monkeypatch):
    ringed(tmp_path / "squares")
    run, done = presets.scribbleseg, []

    def short(words):
        words = [str(word) for word in words]
        done.append(words[0])
        run(words + ["--iterations", "2", "--size", "32", "--batch", "2"] * (words[0] == "train"))

    monkeypatch.setattr(presets, "scribbleseg", short)
    monkeypatch.setattr(presets, "PLACES", {"other-final-0": ("other", "final", 0), "squares": ("squares", "final", 0)})
    monkeypatch.setattr(presets, "place", lambda line: (["other", "squares"].index(line["data"]), int(line["seed"])))
    words = ["best", "--only", "squares", "--seeds", "1", "--datasets", tmp_path, "--runs", tmp_path / "runs"]
    monkeypatch.setattr("sys.argv", ["presets.py", *map(str, words), "--results", str(tmp_path)])
    presets.main()
    presets.main()
    assert done == ["train", "predict", "evaluate"]
    config, plan = read_plan(tmp_path / "runs" / "best" / "squares-s1")
    assert (config.preset, config.seed, plan.options) == ("best", 1, {"taught": 1.0})
    [line] = read_csv(tmp_path / "best" / "runs.csv")
    rows = read_rows(tmp_path / "best" / "squares-s1.csv")
    mean = 100 * sum(row["dice"] for row in rows) / len(rows)
    assert float(line["dice"]) == pytest.approx(mean, abs=0.01)
    assert (line["seed"], line["cases"], line["iterations"]) == ("1", str(len(plan.fold.test)), "2")
