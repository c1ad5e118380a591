import dataclasses
import json
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small import plan_of, small_dataset

from scribbleseg.bench import bench, engines
from scribbleseg.bench.plan import Boxplot, Curves, read_bench_plan
from scribbleseg.bench.run import run_job, short_curve, training_time
from scribbleseg.bench.store import add_run, convert, is_done, read_records, read_results, read_scores
from scribbleseg.bench.tables import aggregate
from scribbleseg.config import Bench
from scribbleseg.core.errors import InputError
from scribbleseg.evaluation.scores import COLUMNS, read_rows, summarise, write_rows
from scribbleseg.methods import hyperparameters, parse_options
from scribbleseg.training.plan import make_recipe, write_plan

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
def place(tmp_path, quick_budget):
    quick_budget(2)
    small_dataset(tmp_path / "datasets" / "small")
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    return Bench(
        tmp_path / "plan.toml",
        datasets=tmp_path / "datasets",
        runs=tmp_path / "runs",
        results=tmp_path / "results",
        jobs=2,
    )


def test_a_plan_is_run_once_and_its_table_comes_from_the_scores(place, capsys):
    assert bench(place)
    records, scores = read_records(place.results / "quick"), read_scores(place.results / "quick")
    runs = [f"small/final-0/{name}" for name in ("no-fadc-s0", "no-fadc-s1", "pce-s0", "pce-s1")]
    assert list(records) == list(scores) == runs
    record = records[runs[0]]
    assert repr(scores[runs[0]]) == repr(read_rows(place.runs / "quick" / runs[0] / "metrics.csv"))
    assert record["environment"] == json.loads(
        (place.runs / "quick" / runs[0] / "environment.json").read_text(encoding="utf-8")
    )
    assert (
        record["plan"]["options"] == {"fadc": False}
        and "--set fadc=false" in record["command"]
        and record["held_out_cases"] == 2
    )
    results = read_results(read_bench_plan(place), place)
    curves = {job.label: result.curve for job, result in results.items()}
    assert curves["pce"]["iteration"].tolist() == [1, 2] and (curves["pce"]["loss"] > 0).all()
    assert np.isnan(curves["pce"]["val_mean_dice"]).all(), "this split has no validation cases"
    assert (
        record["peak_memory_mib"] > 50
        and all(0 <= value < 60 for value in record["wall_seconds"].values())
        and record["wall_seconds"]["training"] > 0
    )
    table = (place.results / "plan-quick.md").read_text(encoding="utf-8")
    dice = [summarise(scores[run])[-1]["dice"] for run in runs[2:]]
    assert "| pce | 0 | 0-1 | 2 |" in table and f"{50 * sum(dice):.2f} (" in table and "not run" not in table
    assert {path.suffix for path in place.results.glob("plan-quick.*")} == {".md", ".csv", ".tex"}
    shutil.rmtree(place.runs)
    shutil.rmtree(place.datasets)
    assert "already done" not in capsys.readouterr().out
    assert bench(place), "done runs are skipped: neither data nor runs are needed"
    assert "4 of the plan's 4 runs are already done and are skipped\n" in capsys.readouterr().out


def test_a_failing_run_does_not_stop_the_others(place, capsys):
    for seed in (0, 1):
        (place.runs / f"quick/small/final-0/no-fadc-s{seed}").mkdir(parents=True)
        (place.runs / f"quick/small/final-0/no-fadc-s{seed}" / "not a run").touch()
    assert not bench(place)
    said = capsys.readouterr().err
    assert "no-fadc-s0: InputError" in said and "no-fadc-s1: InputError" in said
    table = (place.results / "plan-quick.md").read_text(encoding="utf-8")
    assert (
        "| no-fadc | not run |" in table
        and "no-fadc (seed 0 fold 0, seed 1 fold 0)" in table
        and "small/final-0/pce-s1" in read_records(place.results / "quick")
    )


def test_another_row_under_the_same_label_is_refused(place):
    leave(place, read_bench_plan(place).jobs[1])
    place.plan.write_text(PLAN.replace("fadc=false", "fbsl=false"), encoding="utf-8")
    with pytest.raises(InputError, match="another label"):
        bench(place)


def leave(place: Bench, job, rows=(("a", "mm"),), more=(), **changed) -> None:
    """What a finished run leaves, of one class and Dice .5; `more`: of its record."""
    more = dict(more)
    plan = {
        "method": job.method,
        "options": parse_options(job.method, job.set),
        "fold": {"name": "0", "train": ["x"], "val": [], "test": ["a"]},
        "classes": ["background", "A"],
    }
    plan |= dict(zip(("recipe", "size", "network"), make_recipe(job.settings(place))))
    plan["recipe"] = dataclasses.asdict(plan["recipe"]) | changed.pop("recipe", {})
    plan |= changed
    scores = [
        dict.fromkeys(COLUMNS, 0.5) | {"case": case, "class": "A", "unit": unit, "missing": False, "spurious": False}
        for case, unit in rows
    ]
    record = {"plan": plan} | more
    add_run(place.results / job.budget, job, record, scores, short_curve([{"iteration": 1, "loss": 1.0}]))


@pytest.mark.parametrize(
    "at, changed, what",
    [
        (1, {"fold": {"name": "0", "train": ["y"], "val": [], "test": ["a"]}}, "cases of the fold"),
        (1, {"rows": [("a", "mm"), ("b", "mm")]}, "scored cases"),
        (1, {"classes": ["background", "B"]}, "classes"),
        (1, {"rows": [("a", "voxel")]}, "units"),
    ],
)
def test_runs_that_cannot_stand_side_by_side_are_refused(place, at, changed, what):
    plan = read_bench_plan(place)
    for job in plan.jobs:
        leave(place, job)
    assert len(read_results(plan, place)) == 4
    leave(place, plan.jobs[at], **changed)
    with pytest.raises(InputError, match=f"pce-s0 and .*{plan.jobs[at].place.name} have different {what}"):
        read_results(plan, place)


def test_a_record_that_cannot_be_read_says_what_to_do(place):
    plan = read_bench_plan(place)
    leave(place, plan.jobs[0])
    table = place.results / "quick" / "runs.csv"
    good = table.read_text(encoding="utf-8")
    for bad in (f"<<<<<<< HEAD\n{good}", f"{good}<<<<<<< HEAD\n", f"{good}{good}", "", f'{good}"'):
        table.write_text(bad, encoding="utf-8")
        with pytest.raises(InputError, match="runs.csv: .* Restore it"):
            bench(place)


def test_a_data_set_goes_without_a_row_that_it_cannot_have(place):
    place.plan.write_text(PLAN.replace("folds = [0]", 'folds = [0]\nwithout = ["no-fadc"]'), encoding="utf-8")
    plan = read_bench_plan(place)
    assert {job.label for job in plan.jobs} == {"pce"} and plan.labels == ("pce", "no-fadc")
    assert [row.label for section in aggregate(plan, {}) for row in section.rows] == ["pce"]
    place.plan.write_text(PLAN.replace("folds = [0]", 'folds = [0]\nwithout = ["no-fad"]'), encoding="utf-8")
    with pytest.raises(InputError, match='without = ."no-fad". names no row. Did you mean .no-fadc'):
        read_bench_plan(place)


def test_results_from_before_a_default_changed_are_refused(place):
    job = read_bench_plan(place).jobs[0]
    leave(place, job)
    leave(place, job, more={"options": hyperparameters("pce")})
    assert is_done(job, place)
    leave(place, job, more={"options": {"weight": 0.25}})
    way_out = f"delete its row there and the folder {place.runs / job.place}"
    with pytest.raises(InputError, match=f"pce-s0 was produced with weight=0.25, the method now has None. .*{way_out}"):
        is_done(job, place)
    leave(place, job)
    path = place.results / "quick" / "runs.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.drop(columns="plan.recipe.ema").to_csv(path, index=False)
    assert is_done(job, place), "an earlier run says nothing of a key that came later, and had its default"


def test_results_of_a_method_of_ones_own_are_refused_once_its_file_has_changed(place, tmp_path, monkeypatch):
    file = tmp_path / "mine_of_one_file.py"
    file.write_text("from scribbleseg.methods.pce import PCE\n\n\nclass Mine(PCE):\n    pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    text = (
        PLAN.split("[[row]]")[0].replace("[0, 1]", "[0]")
        + '[[row]]\nlabel = "mine"\nmethod = "mine_of_one_file:Mine"\n'
    )
    place.plan.write_text(text, encoding="utf-8")
    assert bench(place) and bench(place)
    with open(file, "a", encoding="utf-8") as more:
        more.write("\n")
    with pytest.raises(
        InputError, match="mine-s0 was produced by another version of the file that defines mine_of_one_file:Mine. To"
    ):
        bench(place)


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"recipe": {"lr": 0.2, "ema": 0.9}}, "lr=0.2, the method now has 0.03; ema=0.9, the method now has 0.0"),
        ({"size": 64}, "size=64, the method now has 32"),
        ({"network": "x"}, "network=x, the method now has unet"),
    ],
)
def test_results_of_another_recipe_are_refused(place, changed, words):
    job = read_bench_plan(place).jobs[0]
    leave(place, job, **changed)
    with pytest.raises(InputError, match=f"pce-s0 was produced with {words}"):
        is_done(job, place)


def test_training_time_counts_the_iterations_of_each_line():
    log = [{"iteration": at, "seconds_per_iteration": s} for at, s in ((3, 2.0), (4, 6.0), (10, 1.0))]
    assert training_time(log) == (2.0, 18 / 60)


def test_a_run_begun_with_other_settings_is_not_carried_on(place):
    job = read_bench_plan(place).jobs[0]
    begun = dataclasses.replace(job.settings(place), iterations=1, precision="float32")
    write_plan(begun, plan_of(begun))
    with pytest.raises(InputError, match=r"pce-s0: began with another precision, recipe than .* Delete the folder"):
        run_job(job, place)
    assert [path.name for path in (place.runs / job.place).iterdir()] == ["config.json"]


def test_nothing_to_score_is_said_before_training(place):
    shutil.rmtree(place.datasets / "small" / "labelsTr_dense")
    job = read_bench_plan(place).jobs[0]
    with pytest.raises(InputError, match="fold '0' holds out no case with a dense mask"):
        run_job(job, place)
    assert not place.runs.exists()


def test_data_that_is_not_there_is_said_before_the_first_run(place, monkeypatch, capsys):
    others = '[[data]]\nfolder = "absent"\nsplit = "final"\nfolds = [0]\n'
    others += '[[data]]\nfolder = "small"\nsplit = "final"\nfolds = [7]\n'
    place.plan.write_text(PLAN + others, encoding="utf-8")
    plan, started = read_bench_plan(place), []

    def engine(jobs, config, tick):
        said = capsys.readouterr().err
        assert "quick/absent/final-0/pce-s0: InputError: " in said and "split 'final' has folds 0 to 0; got 7" in said
        started.extend(jobs)
        yield from ((job, None) for job in jobs)

    monkeypatch.setattr(engines, "run_local", engine)
    failed = engines.run_jobs(list(plan.jobs), place, 0)
    assert (
        set(started)
        == {job for job in plan.jobs if (job.data, job.fold) == ("small", 0)}
        == set(plan.jobs) - set(failed)
    )
    assert len(started) == 4 and len(failed) == 8
    started.clear()
    assert engines.run_jobs(list(failed), place, 0) == failed and not started


def test_table_only_runs_nothing(place):
    place.table_only = True
    assert not bench(place)
    assert not place.runs.exists() and "not run" in (place.results / "plan-quick.md").read_text(encoding="utf-8")


BAD = [
    ("seeds = [", "plan.toml: is not TOML: "),
    (PLAN.encode().replace(b"pce", b"pc\xe9"), f"byte {PLAN.index('pce') + 3} is not UTF-8"),
    ("seeds = [0]", r"data is missing\. A plan needs \[\[data\]\]"),
    (PLAN.replace('split = "final"', ""), r"data\[0\]: split is missing"),
    (PLAN.replace('method = "pce"', ""), r"row\[0\]: method is missing"),
    (PLAN.replace('label = "no-fadc"', 'label = "pce"'), "same label"),
    (PLAN.replace("seeds", "seed"), "unknown key 'seed'. Did you mean 'seeds'"),
    (PLAN.replace("folds = [0]", "folds = [0]\nfold = 0"), r"data\[0\]: unknown key 'fold'. Did you mean 'folds'"),
    (PLAN.replace("method =", "methd ="), r"row\[0\]: unknown key 'methd'. Did you mean 'method'"),
    (PLAN.replace("[[row]]", "[[rows]]"), "unknown key 'rows'. Did you mean 'row'"),
    (PLAN.replace("label", "lable"), "unknown key 'lable'. Did you mean 'label'"),
    (PLAN.replace("[[data]]", "[data]"), r"data = \{.*\}; expected a list, got a table"),
    ("data = []" + PLAN.replace("[[data]]", "[[row]]"), r"data = \[\]; expected a list with at least one entry"),
    ("row = []" + PLAN.partition("[[row]]")[0], r"row = \[\]; expected a list with at least one entry"),
    (PLAN.replace("[0, 1]", "3"), r"seeds = 3; expected a list, got a whole number"),
    (PLAN.replace("[0, 1]", "[]"), r"seeds = \[\]; expected a list"),
    (PLAN.replace("[0, 1]", "[-1]"), r"seeds\[0\] = -1; expected a whole number >= 0"),
    (PLAN.replace("[0, 1]", "[true]"), r"seeds\[0\] = True; expected a whole number, got true or false"),
    (PLAN.replace("folds = [0]", "folds = '01'"), "folds = '01'; expected a list"),
    (PLAN.replace("folds = [0]", "folds = []"), r"data\[0\].folds = \[\]; expected a list with"),
    (PLAN.replace("folds = [0]", "folds = [0, -2]"), r"data\[0\].folds\[1\] = -2; expected a whole number"),
    (
        PLAN.replace('["fadc=false"]', '"fadc=false"'),
        r"row\[1\].set = 'fadc=false'; expected a list, got a text",
    ),
    (PLAN.replace('"no-fadc"', "3"), r"row\[1\].label = 3; expected a text"),
    (PLAN.replace('"no-fadc"', '"../no"'), "label = '../no'; expected a text .*without a slash"),
    (PLAN.replace('"small"', '"/small"'), "folder = '/small'; expected"),
    (PLAN.replace("[0, 1]", "[1, 1]"), "a run is listed twice"),
    (PLAN.replace('"effdnet"', '"effdnett"'), "plan.toml: row 'no-fadc': no method 'effdnett'. Did you mean 'effdnet'"),
    (PLAN.replace("fadc=false", "x=1"), "plan.toml: row 'no-fadc': --set x=1: effdnet has no option 'x'"),
    (PLAN.replace("fadc=false", "fadc=no"), "plan.toml: row 'no-fadc': --set fadc=no: 'no' is not true or false"),
    (PLAN + '[figure]\nkind = "grid"', r"figure = \{.*\}; expected a list, got a table"),
    ('published = "table-9"' + PLAN, "table-1"),
    ('published = "table-1"' + PLAN, "published.toml: table-1: source is missing"),
]


@pytest.mark.parametrize("text, words", BAD)
def test_bad_plans(tmp_path, text, words):
    path = tmp_path / "plans" / "plan.toml"
    path.parent.mkdir()
    (tmp_path / "published.toml").write_text("[table-1]", encoding="utf-8")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=words):
        read_bench_plan(Bench(path))


def test_published_numbers_that_are_not_there(tmp_path):
    path = tmp_path / "plans" / "plan.toml"
    path.parent.mkdir()
    path.write_text('published = "table-1"' + PLAN, encoding="utf-8")
    with pytest.raises(
        InputError,
        match=r"plan.toml: published = 'table-1', but there is no .*published.toml. Write .*, or leave the key out",
    ):
        read_bench_plan(Bench(path))


def test_a_plan_that_is_no_file(tmp_path):
    with pytest.raises(InputError, match="is a folder; expected a TOML file"):
        read_bench_plan(Bench(tmp_path))
    with pytest.raises(InputError, match="none.toml: no such file"):
        read_bench_plan(Bench(tmp_path / "none.toml"))


def test_a_time_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    with pytest.raises(InputError, match="--checkpoint-every -1: expected seconds, 0 or more"):
        bench(Bench(tmp_path / "plan.toml", results=tmp_path / "results", table_only=True, checkpoint_every=-1.0))
    assert not (tmp_path / "results").exists()


def test_folds_restricts_the_folds_and_nothing_else(place):
    place.plan.write_text(PLAN.replace("folds = [0]", "folds = [0, 1, 2]"), encoding="utf-8")
    whole = read_bench_plan(place)
    place.folds = (0, 2)
    assert read_bench_plan(place).jobs == tuple(job for job in whole.jobs if job.fold in (0, 2))
    place.folds = (0, 3)
    with pytest.raises(InputError, match=r"--fold 3: .*\[0, 1, 2\]"):
        read_bench_plan(place)


def test_figures_are_kept(place):
    place.plan.write_text(PLAN + '[[figure]]\nkind = "boxplot"\n[[figure]]\nkind = "curves"\n', encoding="utf-8")
    assert read_bench_plan(place).figures == (Boxplot(), Curves())


def before(place: Bench, job, record: dict) -> Path:
    """A run as versions before 0.2 left it."""
    folder = place.results / job.place
    rows = [dict(zip(COLUMNS, ("001", "A", 0.1 + 0.2, math.nan, math.nan, "mm", True, False, 5.0)))]
    write_rows(folder / "metrics.csv", rows)
    (folder / "curve.csv").write_text("iteration,loss,val_mean_dice\n12,2.2587,nan\n", encoding="utf-8")
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_runs_of_the_layout_of_before_are_moved_and_nothing_is_lost(place, capsys):
    jobs = read_bench_plan(place).jobs[:2]
    for job in jobs:
        leave(place, job)
    stored = {
        "command": "a --split 622",
        "environment": {
            "commit": None,
            "device": "622",
            "precision": "float32",
            "threads": 1,
            "continued": [{"commit": "1e5"}],
        },
        "options": hyperparameters("pce"),
        "data_note": "",
        "wall_seconds": {"training": None, "scoring": 0.1},
        "parameters": 7,
        "seconds_per_iteration": 0.5,
        "minutes": 1.0,
        "held_out_cases": 1,
    }
    records = {name: record | stored for name, record in read_records(place.results / "quick").items()}
    del records[jobs[1].run]["options"]
    shutil.rmtree(place.results)
    for job in jobs:
        before(place, job, records[job.run])
    place.table_only = True
    assert not bench(place)
    assert "moved 2 runs from the layout before 0.2" in capsys.readouterr().out
    assert convert(place.results) == 0 and read_records(place.results / "quick") == records
    (row,) = read_scores(place.results / "quick")[jobs[0].run]
    assert row["case"] == "001" and row["dice"] == 0.1 + 0.2 and math.isnan(row["hd95"]) and row["missing"] is True
    assert {path.name for path in (place.results / "quick").glob("[!.]*")} == {
        *("runs.csv", "folds.csv", "scores.csv", "curves.csv")
    }


def test_benches_that_end_at_the_same_time_lose_nothing(place):
    jobs = read_bench_plan(place).jobs
    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(lambda job: leave(place, job), jobs))
    assert set(read_records(place.results / "quick")) == {job.run for job in jobs}
    assert len(read_results(read_bench_plan(place), place)) == 4
