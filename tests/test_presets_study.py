"""benchmarks/studies/presets.py: a place is trained, predicted and scored once."""

import presets
import pytest
from common import read_csv, write_csv
from small import briefly, ringed, small_dataset

from scribbleseg.data.layout import read_dataset
from scribbleseg.data.set_aside import set_aside
from scribbleseg.evaluation.tables import read_rows
from scribbleseg.training.plan import read_plan


@pytest.mark.slow
def test_a_place_is_trained_scored_and_left_out_the_next_time(tmp_path, monkeypatch):
    ringed(tmp_path / "squares")
    done = []
    monkeypatch.setattr(presets, "scribbleseg", briefly(presets.scribbleseg, done))
    monkeypatch.setattr(presets, "summary", lambda *_: [])  # of ACDC, below
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


def test_the_page_has_means_of_seeds_and_folds_and_leaves_out_the_cases_that_chose(tmp_path, monkeypatch):
    small_dataset(tmp_path / "acdc")
    dataset = read_dataset(tmp_path / "acdc")
    monkeypatch.setattr(presets, "CHOSE", (("final", 0, 0.3, 0),))
    [chose] = set_aside(dataset, dataset.fold("final", 0), 0.3, 0).val
    lines = []
    for fold in range(5):
        for seed in (0, 1) if fold == 0 else (0,):
            dice = {chose: 0.5, "other": 0.8 + 0.02 * fold + 0.01 * seed}
            rows = [[case, "core", value, 2.0, 1.0, "voxel", 0, 0, 2.0] for case, value in dice.items()]
            head = ["case", "class", "dice", "hd95", "assd", "unit", "missing", "spurious", "penalised_hd95"]
            write_csv(tmp_path / f"acdc-cv5-{fold}-s{seed}.csv", [dict(zip(head, row)) for row in rows], head)
            line = dict.fromkeys(presets.COLUMNS, "") | {"data": "acdc", "split": "cv5", "fold": fold, "seed": seed}
            lines.append(line)
    write_csv(tmp_path / "runs.csv", lines, presets.COLUMNS)
    rows = presets.summary("best", tmp_path, tmp_path)
    assert rows[0] == ["acdc-cv5-0", "0, 1", 2, "65.2", "65.2 (65.0 / 65.5)", "2.0", "80.5"]
    assert rows[1] == ["acdc-cv5-1", "0", 2, "66.0", "66.0", "2.0", "82.0"]
    # the mean of 65.25, 66, 67, 68, 69 and of 80.5, 82, 84, 86, 88
    assert rows[5] == ["acdc-cv5, mean of the folds", "", 10, "67.0", "67.0", "2.0", "84.1"] and len(rows) == 6
