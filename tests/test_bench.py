import json
import shutil

import numpy as np
import pytest
from small import small_dataset

from scribbleseg import plan
from scribbleseg.bench import bench
from scribbleseg.bench.jobs import read_bench_plan, read_results
from scribbleseg.config import Bench
from scribbleseg.errors import InputError
from scribbleseg.evaluate import read_rows, summarise

PLAN = """
seeds = [0, 1]
[[data]]
folder = "small"
split = "final"
folds = [0]
[[row]]
method = "pce"
[[row]]
label = "no-fadc"
method = "effdnet"
set = ["fadc=false"]
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setitem(plan.BUDGETS, "quick", {"size": 32, "iterations": 2})
    small_dataset(tmp_path / "datasets" / "small")
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    return Bench(tmp_path / "plan.toml", datasets=tmp_path / "datasets", runs=tmp_path / "runs", results=tmp_path / "results")


def test_a_plan_is_run_once_and_its_table_comes_from_the_scores(place, capsys):
    assert bench(place)
    folder = place.results / "quick" / "small" / "final-0"
    assert sorted(p.name for p in folder.iterdir()) == ["no-fadc-s0", "no-fadc-s1", "pce-s0", "pce-s1"]
    record = json.loads((folder / "no-fadc-s0" / "run.json").read_text(encoding="utf-8"))
    assert record["plan"]["options"] == {"fadc": False} and "--set fadc=false" in record["command"] and record["held_out_cases"] == 2
    results = read_results(read_bench_plan(place), place)
    curves = {job.label: result.curve for job, result in results.items()}
    assert curves["pce"]["iteration"].tolist() == [1, 2] and (curves["pce"]["loss"] > 0).all()
    assert np.isnan(curves["pce"]["val_mean_dice"]).all(), "this split has no validation cases"
    assert record["peak_memory_mib"] > 50
    table = (place.results / "plan-quick.md").read_text(encoding="utf-8")
    mean = summarise(read_rows(folder / "pce-s1" / "metrics.csv"))[-1]
    assert "| pce | 1 |" in table and f"{100 * mean['dice']:.1f} (" in table and "not run" not in table
    shutil.rmtree(place.runs)
    shutil.rmtree(place.datasets)
    assert bench(place), "done runs are skipped: neither data nor runs are needed"


def test_a_failing_run_does_not_stop_the_others(place, capsys):
    place.plan.write_text(PLAN.replace("fadc=false", "fadx=false"), encoding="utf-8")
    assert not bench(place)
    said = capsys.readouterr().err
    assert "no-fadc-s0: InputError" in said and "Did you mean 'fadc'" in said
    table = (place.results / "plan-quick.md").read_text(encoding="utf-8")
    assert table.count("not run") == 2 and (place.results / "quick/small/final-0/pce-s1/metrics.csv").is_file()


def test_another_row_under_the_same_label_is_refused(place):
    place.plan.write_text(PLAN.replace("seeds = [0, 1]", "seeds = [0]"), encoding="utf-8")
    assert bench(place)
    place.plan.write_text(place.plan.read_text(encoding="utf-8").replace("fadc=false", "fbsl=false"))
    with pytest.raises(InputError, match="another label"):
        bench(place)


def test_table_only_runs_nothing(place):
    place.table_only = True
    assert not bench(place)
    assert not place.runs.exists() and "not run" in (place.results / "plan-quick.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text, words", [("seeds = [", "not a bench plan"), ("seeds = [0]", "'row'"), (PLAN.replace('label = "no-fadc"', 'label = "pce"'), "same label")])
def test_bad_plans(place, text, words):
    place.plan.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        read_bench_plan(place)
