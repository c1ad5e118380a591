import dataclasses
import json
import re
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from small import plan_of, small_dataset

from scribbleseg.bench import bench, engines
from scribbleseg.bench.formats import to_csv
from scribbleseg.bench.plan import Boxplot, Curves, read_bench_plan
from scribbleseg.bench.run import run_job, short_curve, training_time
from scribbleseg.bench.store import add_run, done_jobs, is_done, read_records, read_results, read_scores
from scribbleseg.bench.tables import aggregate
from scribbleseg.bench.worker import open_log
from scribbleseg.cli import parse
from scribbleseg.config import Bench
from scribbleseg.core.errors import InputError
from scribbleseg.evaluation.scores import COLUMNS, read_rows, summarise
from scribbleseg.methods import hyperparameters, method_class, parse_options
from scribbleseg.training.plan import read_plan, write_plan
from scribbleseg.training.recipe import make_recipe
from scribbleseg.training.train import train

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


@pytest.mark.slow
def test_a_plan_is_run_once_and_its_table_comes_from_the_scores(place, capsys):
    info = place.datasets / "small" / "dataset.json"
    content = json.loads(info.read_text(encoding="utf-8")) | {"groups": {"case.4 a": "somebody"}}
    info.write_text(json.dumps(content), encoding="utf-8")
    assert bench(place)
    records, scores = read_records(place.results / "quick"), read_scores(place.results / "quick")
    runs = [f"small/final-0/{name}" for name in ("no-fadc-s0", "no-fadc-s1", "pce-s0", "pce-s1")]
    assert list(records) == list(scores) == runs
    record = records[runs[0]]
    scored = read_rows(place.runs / "quick" / runs[0] / "metrics.csv")
    assert repr(scores[runs[0]]) == repr(
        [row | {"patient": "somebody" if row["case"] == "case.4 a" else row["case"]} for row in scored]
    )
    assert record["environment"] == json.loads(
        (place.runs / "quick" / runs[0] / "environment.json").read_text(encoding="utf-8")
    )
    assert (
        record["plan"]["options"] == {"fadc": False}
        and "--set fadc=false" in record["command"]
        and record["held_out_cases"] == 2
    )
    results = read_results(read_bench_plan(place), place)
    curve = results.curves[results.curves["run"] == runs[2]]
    assert curve["iteration"].tolist() == [1, 2] and (curve["loss"] > 0).all()
    assert np.isnan(curve["val_mean_dice"]).all(), "this split has no validation cases"
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
    assert "already done and skipped: 4 of the plan's 4 runs\n" in capsys.readouterr().out


@pytest.mark.slow
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
        dict.fromkeys(COLUMNS, 0.5)
        | {"case": case, "class": "A", "unit": unit, "missing": False, "spurious": False, "patient": case}
        for case, unit in rows
    ]
    numbers = {"parameters": 7, "seconds_per_iteration": 0.5, "minutes": 1.0, "held_out_cases": 1}
    machine = {"device": "a CPU, 1 thread", "precision": "float32"}
    record = {"plan": plan, "environment": machine, **numbers} | more
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
    assert len(read_results(plan, place).records) == 4
    leave(place, plan.jobs[at], **changed)
    with pytest.raises(InputError, match=f"pce-s0 and .*{plan.jobs[at].place.name} have different {what}"):
        read_results(plan, place)


def test_runs_on_files_that_changed_in_between_are_refused(place):
    plan = read_bench_plan(place)
    machine = {"device": "a CPU, 1 thread", "precision": "float32", "data": {"learned": "12", "held_out": "ab"}}
    for job in plan.jobs:
        leave(place, job, more={"environment": machine})
    assert len(read_results(plan, place).records) == 4
    for part in ("learned", "held_out"):
        leave(place, plan.jobs[1], more={"environment": machine | {"data": machine["data"] | {part: "cd"}}})
        with pytest.raises(InputError, match="have different files of the fold"):
            read_results(plan, place)


@pytest.mark.parametrize(
    ("table", "old", "new", "words"),
    [
        ("runs", ",0.5,", ",half,", "runs.csv: .*'seconds_per_iteration' is 'half': expected a number"),
        ("runs", ",pce,", ",[1],", "runs.csv: .*expected text"),
        ("scores", "0.5", "0.5x", "scores.csv: is damaged"),
        ("curves", ",nan", ",x", "curves.csv: is damaged"),
        ("scores", "pce-s0", "other", "has no scores in scores.csv"),
    ],
)
def test_tables_of_other_types_are_named(place, table, old, new, words):
    plan = read_bench_plan(place)
    for job in plan.jobs:
        leave(place, job)
    path = place.results / "quick" / f"{table}.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=words):
        read_results(plan, place)


def test_names_that_a_spreadsheet_would_run_are_quoted_in_the_tables(place):
    plan = read_bench_plan(place)
    for job in plan.jobs:
        leave(place, job, rows=[("=cmd|'/c calc'!A0", "mm")])
    text = (place.results / "quick" / "scores.csv").read_text(encoding="utf-8")
    assert ",'=cmd" in text and ",=cmd" not in text
    assert set(read_results(plan, place).scores["case"]) == {"=cmd|'/c calc'!A0"}
    assert to_csv(pd.DataFrame({"label": ["@x", "plain"], "dice": [-0.5, 1.0]})) == "label,dice\n'@x,-0.5\nplain,1\n"


def test_a_record_that_cannot_be_read_says_what_to_do(place):
    plan = read_bench_plan(place)
    leave(place, plan.jobs[0])
    table = place.results / "quick" / "runs.csv"
    good = table.read_text(encoding="utf-8")
    for bad in (f"<<<<<<< HEAD\n{good}", f"{good}<<<<<<< HEAD\n", f"{good}{good}", "", f'{good}"'):
        table.write_text(bad, encoding="utf-8")
        with pytest.raises(InputError, match="runs.csv: .* Restore the tables"):
            bench(place)


def test_a_data_set_goes_without_a_row_that_it_cannot_have(place):
    place.plan.write_text(PLAN.replace("folds = [0]", 'folds = [0]\nwithout = ["no-fadc"]'), encoding="utf-8")
    plan = read_bench_plan(place)
    assert {job.label for job in plan.jobs} == {"pce"} and plan.labels == ("pce", "no-fadc")
    assert [row for section in aggregate(plan, read_results(plan, place)) for row in section.rows] == ["pce"]
    place.plan.write_text(PLAN.replace("folds = [0]", 'folds = [0]\nwithout = ["no-fad"]'), encoding="utf-8")
    with pytest.raises(InputError, match='without = ."no-fad". names no row. Did you mean .no-fadc'):
        read_bench_plan(place)


def test_a_row_can_have_fewer_folds_than_the_others(place):
    fewer = '[[data]]\nfolder = "small"\nsplit = "final"\nfolds = [1]\nwithout = ["no-fadc"]\n\n[[row]]'
    place.plan.write_text(PLAN.replace("[0, 1]", "[0]").replace("[[row]]", fewer, 1), encoding="utf-8")
    plan = read_bench_plan(place)
    assert [(job.label, job.fold) for job in plan.jobs] == [("pce", 0), ("no-fadc", 0), ("pce", 1)]
    for job in plan.jobs:
        leave(place, job)
    (section,) = aggregate(plan, read_results(plan, place))
    assert (section.ranked, section.part) == (["pce"], {"no-fadc"}), "rows with unequal folds are not compared"


def test_results_from_before_a_default_changed_are_refused(place):
    job = read_bench_plan(place).jobs[0]
    leave(place, job)
    leave(place, job, more={"options": hyperparameters("pce")})
    assert is_done(job, place)
    other = next(job for job in read_bench_plan(place).jobs if job.method == "effdnet")
    old = {key: value for key, value in hyperparameters("effdnet").items() if key not in method_class("effdnet").later}
    leave(place, other, more={"options": old | {"fadc": False}})
    assert is_done(other, place), "its default is what was computed before there was the option"
    leave(place, other, more={"options": old | {"fadc": False, "warm_up": False}})
    with pytest.raises(InputError, match="because the method changed after it. It had warm_up False .now True"):
        is_done(other, place)
    leave(place, job, more={"options": {"weight": 0.25}})
    way_out = f"delete its row there and the folder {place.runs / job.place}"
    with pytest.raises(
        InputError, match=f"pce-s0 is outdated, .* It had weight 0.25 .no longer a setting.. .*{way_out}"
    ):
        is_done(job, place)
    leave(place, job)
    path = place.results / "quick" / "runs.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.drop(columns="plan.recipe.ema").to_csv(path, index=False)
    assert is_done(job, place), "an earlier run says nothing of a key that came later, and had its default"


def test_runs_of_corral_from_before_its_teacher_count(place):
    job = dataclasses.replace(read_bench_plan(place).jobs[0], label="corral", method="corral")
    old = {key: value for key, value in hyperparameters("corral").items() if key != "soft"}
    leave(place, job, more={"options": old})
    assert is_done(job, place)


def test_the_tables_show_outdated_runs_with_a_note_and_a_bench_refuses_them(place):
    plan = read_bench_plan(place)
    for job in plan.jobs:
        leave(place, job)
    known = hyperparameters("effdnet") | {"fadc": False}
    lacking = {key: value for key, value in known.items() if key != "delta"}
    leave(place, plan.jobs[1], more={"options": lacking}, recipe={"lr": 0.2})
    place.table_only = True
    assert bench(place)
    page = (place.results / "plan-quick.md").read_text(encoding="utf-8")
    assert "| no-fadc | 0 | 0-1 |" in page and "Outdated" not in page.split("### Cost")[1]
    reason = "Outdated: these runs were made before the method changed. To repeat one, delete its"
    assert f"\n{reason}" in page
    assert "start the bench again. small/final-0/no-fadc-s0 had lr 0.2 (now 0.03), no delta (now 0.3).\n" in page
    leave(place, plan.jobs[3], more={"options": lacking}, recipe={"lr": 0.2})
    assert bench(place)
    page = (place.results / "plan-quick.md").read_text(encoding="utf-8")
    assert "start the bench again. small/final-0/no-fadc-s0, small/final-0/no-fadc-s1 had lr 0.2 (now" in page
    place.table_only = False
    with pytest.raises(
        InputError, match=r"no-fadc-s0 is outdated, .* had lr .*no delta .*, delete its row there and the folder"
    ):
        bench(place)
    assert (place.results / "plan-quick.md").read_text(encoding="utf-8") == page and not place.runs.exists()


RECIPE = """
[recipe]
optimizer = "adam"
lr = 0.001
schedule = "step"
step_at = [0.5]
gamma = 0.5
weight_decay = 0.0
batch = 24
iterations = 30000
"""


def test_a_plans_recipe_trains_every_row_and_has_runs_of_its_own(place):
    jobs = read_bench_plan(place).jobs
    place.plan.write_text(PLAN + RECIPE + '[[row]]\nmethod = "scn"\n', encoding="utf-8")
    plan = read_bench_plan(place)
    assert plan.jobs[0].run == "small/final-0/pce@plan-s0" and plan.jobs[0].place != jobs[0].place
    wanted = {"optimizer": "adam", "lr": 0.001, "schedule": "step", "step_at": (0.5,), "gamma": 0.5}
    wanted |= {"weight_decay": 0.0, "batch": 24}
    for budget, iterations in (("paper", 30_000), ("quick", 2)):
        place.budget = budget
        for job in read_bench_plan(place).jobs:
            recipe, *_ = make_recipe(job.settings(place))
            assert dataclasses.asdict(recipe) == wanted | {
                "iterations": iterations,
                "ema": 0.0,
                "augmentation": "papers",
            }
            words = shlex.split(job.command(place))[1:]
            assert make_recipe(parse(words))[0] == recipe, "the command trains the same"


def test_a_recipe_that_changes_nothing_leaves_a_run_to_all_plans(place):
    rows = '[[row]]\nmethod = "scn"\n'
    same = RECIPE.replace("[0.5]", "[0.25, 0.5, 0.75]").replace("30000", "7")
    place.plan.write_text(PLAN + rows, encoding="utf-8")
    before = [job for job in read_bench_plan(place).jobs if job.label == "scn"]
    place.plan.write_text(PLAN + rows + same, encoding="utf-8")
    assert [job for job in read_bench_plan(place).jobs if job.label == "scn"] == before, "quick has its own iterations"
    place.budget = "paper"
    assert {job.plan for job in read_bench_plan(place).jobs} == {"plan"}


def test_a_run_with_the_methods_own_recipe_stands_in_for_one_with_the_plans(place):
    for job in read_bench_plan(place).jobs:
        leave(place, job)
    place.plan.write_text(PLAN + RECIPE, encoding="utf-8")
    plan, place.table_only = read_bench_plan(place), True
    assert done_jobs(plan.jobs, place) == [] and not bench(place), "it is not done"
    page = (place.results / "plan-quick.md").read_text(encoding="utf-8")
    assert "| pce | 0 | 0-1 |" in page and "Not run: pce (seed 0 fold 0, seed 1 fold 0)" in page
    assert "Outdated: these runs used each method's own settings. The plan now has one recipe for all" in page
    assert "no-fadc-s1 had optimizer sgd (now adam), lr 0.03 (now 0.001), " in page
    assert "step_at none (now 0.5)" in page
    for job in plan.jobs:
        leave(place, job)
    assert bench(place) and set(read_results(plan, place).records) == set(plan.jobs)
    page = (place.results / "plan-quick.md").read_text(encoding="utf-8")
    assert "Outdated" not in page and "Not run" not in page
    place.plan.write_text(PLAN + RECIPE.replace("0.001", "0.002"), encoding="utf-8")
    with pytest.raises(
        InputError,
        match="pce@plan-s0 is outdated, because the plan changed after it. It had lr 0.001 .now 0.002., .* To run it",
    ):
        is_done(read_bench_plan(place).jobs[0], place)


def test_results_of_a_method_of_ones_own_are_refused_once_its_file_has_changed(place, tmp_path, monkeypatch):
    file = tmp_path / "mine_of_one_file.py"
    file.write_text("from scribbleseg.methods.pce import PCE\n\n\nclass Mine(PCE):\n    pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    text = (
        PLAN.split("[[row]]")[0].replace("[0, 1]", "[0]")
        + '[[row]]\nlabel = "mine"\nmethod = "mine_of_one_file:Mine"\n'
    )
    place.plan.write_text(text, encoding="utf-8")
    (job,) = read_bench_plan(place).jobs
    run_job(job, place)
    assert bench(place)
    with open(file, "a", encoding="utf-8") as more:
        more.write("\n")
    with pytest.raises(
        InputError, match="mine-s0 .* It had another version of the file that defines mine_of_one_file:Mine. To"
    ):
        bench(place)


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"recipe": {"lr": 0.2, "ema": 0.9}}, "lr 0.2 (now 0.03), ema 0.9 (now 0.0)"),
        ({"size": 64}, "size 64 (now 32)"),
        ({"network": "x"}, "network x (now unet)"),
    ],
)
def test_results_of_another_recipe_are_refused(place, changed, words):
    job = read_bench_plan(place).jobs[0]
    leave(place, job, **changed)
    with pytest.raises(InputError, match=re.escape(f"because the method changed after it. It had {words}")):
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


def test_a_run_on_data_that_count_voxels_is_carried_on(place):
    path = place.datasets / "small" / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"spacing": "voxels"}), encoding="utf-8")
    job = read_bench_plan(place).jobs[0]
    train(job.settings(place))
    assert read_plan(place.runs / job.place)[1].fitted.unit == "voxels"
    run_job(job, place)
    assert job.run in read_records(place.results / job.budget)


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


def test_a_file_system_without_locks_is_found_before_the_first_run(place, monkeypatch):
    def no_locks(file, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("scribbleseg.core.lock.fcntl.flock", no_locks)
    monkeypatch.setattr("scribbleseg.bench.run_jobs", lambda *_: pytest.fail("a run was started"))
    with pytest.raises(InputError, match=r"results/quick/.lock: cannot be locked .*Choose --results on a file system"):
        bench(place)
    with pytest.raises(InputError, match=r"pce-s0.log: cannot be locked .*Choose --runs on a file system"):
        open_log(read_bench_plan(place).jobs[0], place)


def test_a_bench_whose_runs_all_fail_writes_no_tables(place, monkeypatch, capsys):
    monkeypatch.setattr("scribbleseg.bench.run_jobs", lambda jobs, config, done: dict.fromkeys(jobs, "no luck"))
    assert not bench(place)
    assert "quick/small/final-0/pce-s1: no luck\n" in capsys.readouterr().err
    assert [path.name for path in place.results.rglob("*") if path.is_file()] == [".lock"]


def test_scores_without_patients_are_refused(place):
    jobs = read_bench_plan(place).jobs
    leave(place, jobs[0])
    path = place.results / "quick" / "scores.csv"
    pd.read_csv(path).drop(columns="patient").to_csv(path, index=False)
    with pytest.raises(InputError, match="scores.csv: has no column 'patient'; .* `groups` of dataset.json"):
        read_results(read_bench_plan(place), place)


def test_table_only_runs_nothing(place):
    place.table_only = True
    assert not bench(place)
    assert not place.runs.exists() and "not run" in (place.results / "plan-quick.md").read_text(encoding="utf-8")


BAD = [
    ("seeds = [", "plan.toml: is not TOML: "),
    ("seeds = " + "[" * 100_000, "nested too deeply"),
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
    (PLAN + RECIPE.replace("batch", "bach"), "recipe: unknown key 'bach'. Did you mean 'batch'"),
    (PLAN + RECIPE.replace('"step"', '"stepp"'), "recipe.schedule = 'stepp'; invalid"),
    (PLAN + RECIPE.replace("0.001", "0"), "row 'pce': --lr 0.0: expected a positive"),
    (PLAN + RECIPE.replace("[0.5]", "[]"), "row 'pce': --schedule step: pce names no steps. Give --step-at"),
    (PLAN + RECIPE.replace("[0.5]", "[1.5]"), r"row 'pce': --step-at \(1.5,\): expected shares"),
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


def test_benches_that_end_at_the_same_time_lose_nothing(place):
    jobs = read_bench_plan(place).jobs
    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(lambda job: leave(place, job), jobs))
    assert set(read_records(place.results / "quick")) == {job.run for job in jobs}
    assert len(read_results(read_bench_plan(place), place).records) == 4
