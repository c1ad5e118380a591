"""Tables from hand-made scores: spread, ranks, tests, published numbers, formats; and the committed plans agree with
each other."""

import csv
import dataclasses
import io
import math
import re
import shlex
import tomllib
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from finished import Run, results_of

from scribbleseg import cli
from scribbleseg.bench.formats import LATEX, escape, fold_lines, latex, markdown, to_csv, write_tables
from scribbleseg.bench.plan import BenchPlan, Job, Published, read_bench_plan
from scribbleseg.bench.statistics import holm, interval, paired_p, rank, seed_means
from scribbleseg.bench.store import read_results
from scribbleseg.bench.tables import aggregate, spans, tables, tidy
from scribbleseg.config import Bench
from scribbleseg.evaluation.scores import COLUMNS
from scribbleseg.methods import hyperparameters, parse_options

ROOT = Path(__file__).parents[1]
PLANS = sorted((ROOT / "benchmarks" / "plans").glob("*.toml"))
PAGES = [
    page
    for path in PLANS
    for page in sorted((ROOT / "benchmarks" / "results").glob(f"{path.stem}-*.md"))
    if page.stem.rpartition("-")[0] == path.stem
]


def score(case, name, dice, hd95=2.0):
    missing = math.isnan(hd95)
    return dict(zip(COLUMNS, (case, name, dice, hd95, 1.0, "mm", missing, False, 100.0 if missing else hd95)))


def record(**changed):
    fold = {"name": "some", "train": ["x", "y"], "val": [], "test": ["a"]}
    recipe = {"optimizer": "sgd", "lr": 0.01, "schedule": "poly", "batch": 12, "iterations": 600}
    plan = {"recipe": recipe, "size": 128, "fold": fold}
    machine = {"device": "some CPU, 1 threads", "threads": 1, "precision": "float32", "commit": "abc"}
    numbers = {
        "parameters": 1000,
        "seconds_per_iteration": 0.5,
        "minutes": 5.0,
        "peak_memory_mib": 700.0,
        "held_out_cases": 2,
    }
    return {"command": "scribbleseg train a b", "environment": machine, "plan": plan, **numbers, **changed}


def result(scores, classes="AB", **changed):
    """`scores`: case → Dice, or Dice and HD95, of the two classes."""
    rows = [
        score(case, name, *(value if isinstance(value, tuple) else (value,)))
        for case, pair in scores.items()
        for name, value in zip(classes, pair)
    ]
    return Run(record(**changed), rows)


def bench_plan(labels, folds, seeds=(0,), data=("heart",), published=None, methods=None):
    methods = methods or {}
    jobs = [
        Job(d, "cv", f, label, methods.get(label, label), (), s, "quick")
        for d, f, s, label in product(data, folds, seeds, labels)
    ]
    return BenchPlan("table", Path("table.toml"), "quick", tuple(labels), tuple(jobs), "A table", (), published, ())


def of(plan, found):
    """Results from (label, fold) or (label, fold, seed) → Run, of the first data set."""
    whole = {(key if len(key) == 3 else (*key, 0)): value for key, value in found.items()}
    return results_of(
        {
            job: whole[job.label, job.fold, job.seed]
            for job in plan.jobs
            if job.data == plan.jobs[0].data and (job.label, job.fold, job.seed) in whole
        }
    )


def to_csv_of(sections):
    return to_csv(tidy(sections))


def cells(table):
    """(row, heading) → (text, mark)."""
    return {(line[0][0], name): cell for line in table.body for name, cell in zip(table.head, line, strict=True)}


TWO_FOLDS = {("pce", 0): result({"a": (0.5, 0.7), "b": (0.7, 0.9)}), ("pce", 1): result({"c": (0.8, 0.4)})}


def test_over_folds_takes_the_mean_over_cases_first_and_over_cases_pools():
    plan = bench_plan(["pce"], [0, 1])
    over_folds, over_cases, _ = tables(aggregate(plan, of(plan, TWO_FOLDS))[0])
    assert (over_folds.title, over_cases.title) == (
        "Mean over folds (sd over folds)",
        "Mean over cases (sd over cases) [95 % interval over patients]",
    )
    # A: folds .6 and .8, mean .7, sd √.02; cases .5 .7 .8, mean 2/3, sd √(.14/6)
    folds, cases = cells(over_folds), cells(over_cases)
    assert folds["pce", "Dice A"][0] == "70.00 (14.14)"
    assert cases["pce", "Dice A"][0].startswith("66.67 (15.28) [")
    # mean of the classes: folds (.6 + .8)/2 = .7 and .6; cases .6 .8 .6
    assert folds["pce", "Dice mean"][0] == "65.00 (7.07)"
    assert cases["pce", "Dice mean"][0].startswith("66.67 (11.55) [")
    assert cases["pce", "folds"][0] == "0-1" and cases["pce", "seeds"][0] == "0" and cases["pce", "cases"][0] == "3"


def test_of_one_fold_there_is_no_table_over_folds():
    plan = bench_plan(["pce"], [0, 1])
    shown = tables(aggregate(plan, of(plan, {("pce", 0): TWO_FOLDS["pce", 0]}))[0])
    assert [table.title for table in shown] == ["Mean over cases (sd over cases) [95 % interval over patients]", "Cost"]


def test_seeds_are_averaged_per_case_and_missing_structures_counted():
    nan = math.nan
    plan = bench_plan(["pce"], [0], [0, 1])
    found = {
        ("pce", 0, 0): result({"a": ((0.0, nan), 0.5), "b": (0.4, 0.5)}),
        ("pce", 0, 1): result({"a": ((0.2, 6.0), 0.5), "b": ((0.8, nan), 0.5)}),
    }
    table = cells(tables(aggregate(plan, of(plan, found))[0])[0])
    # A: case a (0 + .2)/2 = .1, case b .6; HD95 is of the seed that found it, 6 in a, 2 in b; HD95* (100 + 6)/2 =
    # 53 and (2 + 100)/2 = 51; B 2 always
    assert (
        table["pce", "Dice A"][0].startswith("35.00 (35.36) [")
        and table["pce", "cases"][0] == "2"
        and table["pce", "seeds"][0] == "0-1"
    )
    assert table["pce", "HD95 A (mm)"][0].startswith("4.00 (2.83) [")
    assert table["pce", "HD95* mean (mm)"][0] == "27.00 (0.71)"  # cases (53 + 2)/2 and (51 + 2)/2
    assert table["pce", "missing"][0] == "2"
    # seed 0: A (0 + .4)/2, B .5; seed 1: A (.2 + .8)/2, B .5
    assert (
        "Mean Dice of each seed (seeds), over the folds that all of them have; sd and tests do not include the "
        "difference between seeds: pce 35.00, 50.00 (0-1)." in tables(aggregate(plan, of(plan, found))[0])[0].notes
    )
    lines = list(csv.DictReader(io.StringIO(to_csv_of(aggregate(plan, of(plan, found))))))
    assert [[float(value) for value in line["dice_by_seed"].split(" / ") if value] for line in lines] == [
        [],
        [],
        [pytest.approx(35), pytest.approx(50)],
    ]
    assert not any(
        "of each seed" in note
        for note in tables(aggregate(plan, of(plan, {("pce", 0, 0): found["pce", 0, 0]}))[0])[0].notes
    )
    other_fold = {("pce", 1, 0): result({"c": (0.9, 0.9)})}
    more = bench_plan(["pce"], [0, 1], [0, 1])
    uneven = seed_means(of(more, found | other_fold).scores)
    assert uneven.to_dict() == {0: pytest.approx(35), 1: pytest.approx(50)}, "of the fold that both seeds have"
    apart = {("pce", 0, 1): found["pce", 0, 1]} | other_fold
    assert seed_means(of(more, apart).scores).empty


def test_the_same_case_in_two_folds_is_two_cases():
    plan = bench_plan(["pce"], [0, 1])
    found = {("pce", 0): result({"a": (0.2, 0.2)}), ("pce", 1): result({"a": (0.6, 0.6)})}
    assert cells(tables(aggregate(plan, of(plan, found))[0])[1])["pce", "cases"][0] == "2"


def test_holm_by_hand():
    # sorted .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 (running maximum) .06
    assert holm(pd.Series([0.04, 0.01, 0.03, 0.02])).tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(pd.Series([0.4, 0.7])).tolist() == pytest.approx([0.8, 0.8])
    assert holm(pd.Series([0.9, 0.6])).tolist() == [1.0, 1.0]
    corrected = holm(pd.Series([0.02, math.nan]))
    assert corrected[0] == 0.02 and math.isnan(corrected[1]), "what was not tested does not count"


def test_wilcoxon_by_hand():
    better = np.arange(1, 7) / 100
    assert paired_p(better) == pytest.approx(2 / 2**6), "all six of one sign, exact, two-sided"
    better[0] = -0.005  # the smallest difference turned: W = 1, and 2 of the 64 signs are as extreme, on either side
    assert paired_p(better) == pytest.approx(4 / 2**6)
    assert paired_p(np.full(6, 0.3) - (0.1 + 0.2)) == 1.0, "equal but for the last bit"
    assert math.isnan(paired_p(better[:5]))


def test_an_interval_is_that_of_the_mean_and_repeats():
    values = pd.Series([0.0, 1.0] * 50 + [math.nan])
    low, high = interval(values)
    # a mean of 100 coins: sd .05, so about .5 ± 1.96 · .05
    assert (low, high) == (pytest.approx(0.402, abs=0.02), pytest.approx(0.598, abs=0.02))
    assert interval(values) == (low, high)
    assert interval(pd.Series([3.0, 3.0])) == (3.0, 3.0) and np.isnan(interval(pd.Series([3.0, math.nan]))).all()


def test_intervals_and_tests_take_a_patient_once():
    """Two frames of each of six patients: the patients' means count, so there are six pairs and not twelve."""
    plan = bench_plan(["pce", "scn"], [0])
    runs = {}
    for label, gain in (("pce", 0.0), ("scn", 0.1)):
        frames = {f"p{i}-{j}": (0.1 * i + gain + 0.01 * j,) * 2 for i in range(6) for j in (0, 1)}
        runs[label, 0] = result(frames)
        for row in runs[label, 0].rows:
            row["patient"] = row["case"][:2]
    section = aggregate(plan, of(plan, runs))[0]
    test = section.tests.set_index(["metric", "class"]).loc["dice", "A"]
    assert (test["patients"], test["p"], test["p_holm"]) == (6, pytest.approx(2 / 2**6), pytest.approx(2 / 2**6))
    assert test["difference"] == pytest.approx(-10), "row less other, in percent"
    means = pd.Series([10 * i + 0.5 for i in range(6)])
    found = section.summary.loc[("pce", "A"), ["dice_low", "dice_high"]]
    assert tuple(found) == pytest.approx(interval(means))


def test_ranks_share_a_place_and_know_the_direction():
    def places(higher, **values):
        return rank(pd.Series(values), higher).to_dict()

    nan = math.nan
    assert places(True, a=3.0, b=5.0, c=5.0, d=nan, e=1.0) == {
        "a": "second",
        "b": "best",
        "c": "best",
        "d": "",
        "e": "",
    }
    assert places(False, a=3.0, b=5.0, e=1.0) == {"a": "second", "b": "", "e": "best"}
    assert set(places(True, a=3.0, b=nan).values()) == {""}
    assert set(places(True, a=3.0, b=3.0, c=nan).values()) == {""}, "all the same: none is best"


def test_ranks_leave_out_incomplete_rows_and_the_upper_bound():
    plan = bench_plan(["pce", "scn", "tv", "part", "fullsup"], [0, 1])

    def run(dice, hd95, names="ab"):
        return result(dict.fromkeys(names, ((dice, hd95), (dice, hd95))))

    found = {
        ("pce", 0): run(0.61, 3.0),
        ("pce", 1): run(0.61, 3.0, "cd"),
        ("scn", 0): run(0.7, 4.0),
        ("scn", 1): run(0.7, 4.0, "cd"),
    }
    found |= {("tv", 0): run(0.7 + 1e-6, 5.0), ("tv", 1): run(0.7, 5.0, "cd"), ("part", 1): run(0.9, 1.0, "cd")}
    found |= {("fullsup", 0): run(0.95, 0.5), ("fullsup", 1): run(0.95, 0.5, "cd")}
    section = aggregate(plan, of(plan, found))[0]
    for table in tables(section)[:2]:
        marks = {
            row: [
                mark for _, mark in (cells(table)[row, name] for name in ("Dice A", "HD95 A (mm)", "HD95* mean (mm)"))
            ]
            for row in ("pce", "scn", "tv")
        }
        assert marks == {
            "pce": ["second", "best", "best"],
            "scn": ["best", "second", "second"],
            "tv": ["best", "", ""],
        }, "what prints alike ranks alike"
        assert not any(mark for line in table.body[3:] for _, mark in line)
        assert table.body[3][0][0] == "part †" and table.body[3][1][0] == "1"
        notes = " ".join(table.notes)
        assert "part (fold 0)" in notes and "† has other folds" in notes and "trains on dense masks" in notes
    assert set(section.tests["row"]) | set(section.tests["other"]) == {"pce", "scn", "tv"} == set(section.ranked)


def test_nothing_is_ranked_when_no_row_has_every_fold():
    plan = bench_plan(["pce", "scn"], [0, 1])
    section = aggregate(plan, of(plan, {("pce", 0): result({"a": (0.5, 0.5)}), ("scn", 1): result({"b": (0.6, 0.6)})}))[
        0
    ]
    table = tables(section)[0]
    assert section.ranked == [] and section.tests.empty and not section.tested
    assert [line[0][0] for line in table.body] == ["pce †", "scn †"]
    assert not any(mark for line in table.body for _, mark in line)


def test_a_fold_is_named_where_its_name_says_more_than_its_number():
    plan = bench_plan(["pce"], [0, 1])
    found = of(plan, TWO_FOLDS)
    record = found.records[plan.jobs[1]]
    found.records[plan.jobs[1]] = record | {"plan": record["plan"] | {"fold": record["plan"]["fold"] | {"name": "1"}}}
    lines = fold_lines(aggregate(plan, found)[0])
    assert lines == [f"fold {name}: trained on 2 cases, scored on 2 test cases" for name in ("0 (some)", "1")]


def test_every_two_ranked_rows_are_tested_for_each_class_and_metric():
    plan = bench_plan(["pce", "scn", "tv", "part", "fullsup"], [0, 1])

    def run(fold, low, step, hd95=2.0, count=4):
        cases = {f"{fold}{i}": low + step * (i + 4 * fold) for i in range(count)}
        return result({case: ((dice, hd95), (0.5, 2.0)) for case, dice in cases.items()})

    rows = {"pce": (0.3, 0.0, 5.0), "scn": (0.6, 0.01), "tv": (0.3, 0.001, 9.0), "fullsup": (0.9, 0.0)}
    found = {(label, fold): run(fold, *numbers) for label, numbers in rows.items() for fold in (0, 1)}
    found["part", 0] = run(0, 0.5, 0.0)
    found["tv", 1].rows[0]["missing"] = True
    section = aggregate(plan, of(plan, found))[0]
    tests = section.tests.set_index(["metric", "class", "row", "other"])
    pairs = [("pce", "scn"), ("pce", "tv"), ("scn", "tv")]
    assert [key[2:] for key in tests.index if key[:2] == ("dice", "A")] == pairs
    # 8 pairs, all of one sign: 2/2⁸; three tests: times 3. pCE and TV are alike in one case of eight: 2/2⁷
    assert tests.loc[("dice", "A", "pce", "scn"), "p"] == pytest.approx(2 / 2**8)
    assert tests.loc[("dice", "A", "pce", "scn"), "p_holm"] == pytest.approx(6 / 2**8)
    assert tests.loc[("dice", "A", "pce", "tv"), "p"] == pytest.approx(2 / 2**7)
    assert (tests.loc[("dice", "B"), "p"] == 1).all()
    assert [key[2:] for key in tests.index if key[:2] == ("hd95", "A")] == pairs[:1], "tv misses a structure"
    assert tests.loc[("hd95", "A", "pce", "scn"), "p_holm"] == pytest.approx(2 / 2**8), "the only test of its column"
    table = tables(section)[2]
    shown = {line[0][0]: [text for text, _ in line[1:]] for line in table.body}
    assert table.title == "Significant differences" and table.head[1:] == [
        *("Dice A", "Dice B", "Dice mean", "HD95 A (mm)", "HD95 B (mm)", "HD95 mean (mm)")
    ]
    assert shown == {
        "1 pce": ["–", "–", "–", "–", "–", "–"],
        "2 scn": ["1, 3", "–", "1, 3", "1", "–", "1"],
        "3 tv": ["1", "–", "1", "–", "–", "–"],
    }


def test_with_few_patients_a_note_stands_in_the_place_of_the_tests():
    plan = bench_plan(["pce", "scn"], [0])
    found = {(label, 0): result(dict.fromkeys("abcde", (dice, dice))) for label, dice in (("pce", 0.5), ("scn", 0.6))}
    scores, last = tables(aggregate(plan, of(plan, found))[0])
    assert last.title == "Cost"
    assert "No tests: with fewer than 6 patients no difference can reach p < 0.05." in scores.notes


PAPER = Published(
    "Somebody, Table 1",
    "heart",
    "5 folds",
    "cv",
    {"pce": {"A": {"dice": 11.11, "dice_sd": 2.22, "better": True}, "mean": {"hd95": 3.33}}},
)


def test_published_numbers_have_their_own_columns_once_and_only_for_their_data_set():
    plan = bench_plan(["pce", "scn"], [0, 1], data=("heart", "lung"), published=PAPER)
    results = results_of({job: TWO_FOLDS["pce", job.fold] for job in plan.jobs if job.label == "pce"})
    heart, lung = aggregate(plan, results)
    first, second, _ = tables(heart)
    assert first.head[-2:] == ["published Dice A", "published HD95 mean"], "columns without a number are left out"
    shown = cells(first)
    assert [shown["pce", name][0] for name in first.head[-2:]] == ["11.11 (2.22)*", "3.33"]
    assert [shown["scn", name][0] for name in first.head[-2:]] == ["", ""]
    for table in (first, second):
        ours = [
            text for line in table.body for name, (text, _) in zip(table.head, line) if not name.startswith("published")
        ]
        assert not any(number in text for text in ours for number in ("11.11", "2.22", "3.33"))
    assert not any(name.startswith("published") for table in (second, *tables(lung)) for name in table.head)
    assert first.notes[-1].startswith("* after a published number") and not second.notes[-1].startswith("*")
    assert "Somebody, Table 1 (5 folds)" in " ".join(first.notes) and "is of the kind of" not in " ".join(first.notes)
    elsewhere = tables(
        aggregate(dataclasses.replace(plan, published=msgspec.structs.replace(PAPER, ours="622")), results)[0]
    )[0]
    assert "at budget quick. Its split is of the kind of `622`, not of `cv`." in " ".join(elsewhere.notes)
    lines = [line for line in csv.DictReader(io.StringIO(to_csv_of([heart, lung]))) if line["published_dice"]]
    keys = ("data", "row", "class", "published_dice", "published_dice_sd", "published_better")
    assert [tuple(line[key] for key in keys) for line in lines] == [("heart", "pce", "A", "11.11", "2.22", "True")]
    assert float(lines[0]["dice_over_folds"]) == pytest.approx(70)


def test_a_star_is_where_the_row_of_the_papers_own_method_is_significantly_better():
    """p = 2/2⁶ of six patients; with Holm's correction for three pairs it would be .09. A smaller HD95 is better."""
    paper = msgspec.structs.replace(PAPER, rows={}, own="scn")
    plan = bench_plan(["pce", "scn", "tv", "rw"], [0], published=paper)

    def run(low, step, hd95):
        return result({f"{i}": ((low + step * i, hd95), (0.5, 2.0)) for i in range(6)})

    unlike = (0.01, -0.02, 0.03, -0.04, 0.05, -0.08)  # worse on average, and far from significant
    unclear = result({f"{i}": ((0.6 + 0.01 * i + gain, 4.0), (0.5, 2.0)) for i, gain in enumerate(unlike)})

    found = {("pce", 0): run(0.3, 0.0, 5.0), ("scn", 0): run(0.6, 0.01, 4.0), ("tv", 0): run(0.7, 0.01, 4.5)}
    found["rw", 0] = unclear
    scores, *_ = tables(aggregate(plan, of(plan, found))[0])
    starred = {key for key, (text, _) in cells(scores).items() if text.endswith("*")}
    assert starred == {
        *(("pce", name) for name in ("Dice A", "Dice mean", "HD95 A (mm)", "HD95 mean (mm)")),
        *(("tv", name) for name in ("HD95 A (mm)", "HD95 mean (mm)")),
    }
    assert any(note.startswith("* after a number of ours: scn is significantly better") for note in scores.notes)
    other = dataclasses.replace(plan, published=msgspec.structs.replace(paper, own=""))
    scores, *_ = tables(aggregate(other, of(other, found))[0])
    assert not any(text.endswith("*") for text, _ in cells(scores).values())


def test_a_star_of_a_row_that_lacks_folds_is_of_the_folds_that_both_rows_have():
    plan = bench_plan(["pce", "scn"], [0, 1], published=msgspec.structs.replace(PAPER, rows={}, own="scn"))

    def run(fold, low):
        return result({f"{fold}{i}": ((low + 0.01 * i, 1.0),) for i in range(6)})

    found = {("pce", 0): run(0, 0.5), ("scn", 0): run(0, 0.6), ("scn", 1): run(1, 0.1)}
    scores, *_ = tables(aggregate(plan, of(plan, found))[0])
    lacking, own = (cells(scores)[label, "Dice A"][0] for label in ("pce †", "scn"))
    assert lacking.endswith("*") and float(own.split()[0]) < float(lacking.strip("*"))
    assert any(note.endswith("A row with † is tested on the folds and seeds that both have.") for note in scores.notes)
    found["scn", 0] = run(0, 0.4)
    scores, *_ = tables(aggregate(plan, of(plan, found | {("scn", 1): run(1, 0.9)}))[0])
    assert not cells(scores)["pce †", "Dice A"][0].endswith("*"), "the fold that it lacks does not count"
    seeds = bench_plan(["pce", "scn"], [0], (0, 1), published=plan.published)
    found = {("pce", 0, 0): run(0, 0.5), ("scn", 0, 0): run(0, 0.4), ("scn", 0, 1): run(0, 0.9)}
    scores, *_ = tables(aggregate(seeds, of(seeds, found))[0])
    assert not cells(scores)["pce †", "Dice A"][0].endswith("*"), "nor does the seed"


def test_a_papers_hd95_is_not_set_beside_voxels():
    plan = bench_plan(["pce"], [0, 1], published=PAPER)
    runs = {key: Run(run.record, [row | {"unit": "voxel"} for row in run.rows]) for key, run in TWO_FOLDS.items()}
    (section,) = aggregate(plan, of(plan, runs))
    assert tables(section)[0].head[-1] == "published Dice A"
    assert all(not line["published_hd95"] for line in csv.DictReader(io.StringIO(to_csv_of([section]))))


def test_rows_that_were_not_run_say_so_and_nothing_is_filled_in():
    plan = bench_plan(["pce", "scn"], [0, 1, 2], data=("heart", "lung"))
    results = of(plan, TWO_FOLDS)
    page = markdown(plan, aggregate(plan, results), Path("benchmarks/results"))
    line = next(line for line in page.splitlines() if line.startswith("| scn"))
    assert set(re.split(r" *\| *", line)[2:]) == {"not run", ""}
    assert "Not run: pce (fold 2); scn (folds 0-2)." in page
    assert page.endswith("## lung, cv\n\nnot run\n")
    lines = list(csv.DictReader(io.StringIO(to_csv_of(aggregate(plan, results)))))
    assert {line["status"] for line in lines if line["data"] == "heart" and line["row"] == "pce"} == {"incomplete"}
    found = [(line["data"], line["class"], line["status"]) for line in lines if line["row"] == "scn"]
    assert found == [(*place, "not run") for place in (("heart", "A"), ("heart", "B"), ("heart", "mean"), ("lung", ""))]
    names = ("data", "split", "budget", "row", "class", "status")
    assert not any(value for line in lines if line["row"] == "scn" for key, value in line.items() if key not in names)


def test_csv_has_ten_digits():
    plan = bench_plan(["pce"], [0, 1])
    line = next(csv.DictReader(io.StringIO(to_csv_of(aggregate(plan, of(plan, TWO_FOLDS))))))
    assert float(line["dice_over_cases"]) == pytest.approx(200 / 3, rel=1e-9)
    assert float(line["dice_sd_over_cases"]) == pytest.approx(100 * math.sqrt(0.14 / 6), rel=1e-9)
    assert float(line["dice_sd_over_folds"]) == pytest.approx(100 * math.sqrt(0.02), rel=1e-9)
    assert (line["status"], line["folds"], line["cases"], line["unit"], line["parameters"]) == (
        "complete",
        "0-1",
        "3",
        "mm",
        "1000",
    )


def test_cost_is_of_the_records_and_a_missing_peak_is_a_dash():
    plan = bench_plan(["pce", "scn"], [0, 1])
    found = {
        ("pce", 0): result({"a": (0.5, 0.5)}, seconds_per_iteration=1.0, minutes=10.0),
        ("pce", 1): result({"b": (0.5, 0.5)}, peak_memory_mib=900.4),
    }
    old = result({"a": (0.5, 0.5)})
    del old.record["peak_memory_mib"]
    found |= {("scn", 0): old, ("scn", 1): result({"b": (0.5, 0.5)}, peak_memory_mib=None)}
    table = tables(aggregate(plan, of(plan, found))[0])[-1]
    shown = cells(table)
    assert [shown["pce", name][0] for name in table.head[1:5]] == ["1000", "0.750", "900", "7.5"]
    assert shown["scn", "peak memory (MiB)"][0] == "–" and shown["pce", "optimiser"][0] == "sgd 0.01 poly"
    assert (
        table.notes[0] == "Runs on: some CPU, 1 threads, float32."
        and "other work on the machine is included" in table.notes[-1]
    )


def test_markdown_marks_and_escapes():
    plan = bench_plan(["a|b", "scn"], [0])
    page = markdown(
        plan,
        aggregate(plan, of(plan, {("a|b", 0): result({"a": (0.5, 0.5)}), ("scn", 0): result({"a": (0.6, 0.6)})})),
        Path("elsewhere"),
    )
    assert "| a\\|b |" in page and "| **60.00** |" in page and "| <u>50.00</u> |" in page
    for block in page.split("\n\n"):
        if block.startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_what_a_data_set_says_of_itself_is_beside_its_machine():
    plan = bench_plan(["pce"], [0])
    section = aggregate(plan, of(plan, {("pce", 0): result({"a": (0.5, 0.5)}, data_note="images in 8 bits")}))[0]
    assert tables(section)[-1].notes[0] == "Runs on: some CPU, 1 threads, float32, images in 8 bits."


def test_latex_escapes_and_balances(tmp_path):
    label = r"50%_of {a}&b \cmd ~^ #1 $x$ <|>"
    plan = bench_plan([label, "scn"], [0, 1])
    found = {(label, 0): result({"a": (0.5, 0.5)}, ("A_1", "B")), ("scn", 0): result({"a": (0.6, 0.6)}, ("A_1", "B"))}
    found["scn", 1] = result({"b": (0.6, 0.6)}, ("A_1", "B"))
    text = latex(plan, aggregate(plan, of(plan, found)))
    assert (
        escape(label) == r"50\%\_of \{a\}\&b \textbackslash{}cmd \textasciitilde{}\textasciicircum{} \#1 \$x\$ "
        r"\textless{}|\textgreater{}"
    )
    assert escape(label) + r" \textdagger{} & 0 &" in text
    assert not re.search(r"\\(documentclass|begin\{document\}|usepackage)", re.sub("(?m)^%.*$", "", text)), (
        "for \\input"
    )
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert labels == [f"tab:table-{plan.jobs[0].data}-{plan.jobs[0].split}-{number}" for number in (1, 2, 3)]
    bare = re.sub(r"\\[&%$#_{}]", "", re.sub("(?m)^%.*$", "", text))
    depth = 0
    for char in bare:
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"[%$#_^~]", bare), "specials outside of commands"
    assert set(re.findall(r"[^\x00-\x7f]", text)) == set(), "pdflatex prints all of it"
    begun, ended = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    assert sorted(begun) == sorted(ended) and begun.count("tabular") == 3
    for columns, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        assert r"\toprule" in body and r"\midrule" in body and r"\bottomrule" in body
        for line in (line for line in body.splitlines() if line.endswith(r"\\")):
            assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
    assert r"\textbf" not in text, "a single complete row has no rival"
    assert all(escape(char) != char for char in LATEX)
    assert write_tables(plan, of(plan, found), tmp_path).name == "table-quick.md"
    assert (tmp_path / "table-quick.tex").read_text(encoding="utf-8") == text


def test_hd95_of_a_row_that_misses_a_structure_is_not_ranked_where_it_does():
    plan = bench_plan(["pce", "scn", "tv"], [0])
    found = {
        (label, 0): result({"a": ((0.5, hd95), (0.5, hd95))})
        for label, hd95 in (("pce", 2.0), ("scn", 3.0), ("tv", 4.0))
    }
    found["pce", 0].rows[0]["missing"] = True
    shown = cells(tables(aggregate(plan, of(plan, found))[0])[0])
    marks = {
        label: [shown[label, f"HD95 {name} (mm)"][1] for name in ("A", "B", "mean")] for label in ("pce", "scn", "tv")
    }
    assert marks == {"pce": ["", "best", ""], "scn": ["best", "second", "best"], "tv": ["second", "", "second"]}


def test_the_command_of_a_page_names_its_folder():
    plan = bench_plan(["pce"], [0])
    pages = [
        markdown(plan, aggregate(plan, of(plan, {("pce", 0): result({"a": (0.5, 0.5)})})), Path(folder))
        for folder in ("benchmarks/results", "my results")
    ]
    assert (
        "table.toml --budget quick --table-only`" in pages[0]
        and "--budget quick --results 'my results' --table-only`" in pages[1]
    )


def test_spans():
    assert spans([4, 0, 1, 1, 2]) == "0-2, 4" and spans([3]) == "3" and spans([]) == ""


def resolved(row):
    """Method and all of its options, defaults included; hashable."""
    return row.method, tuple(sorted((hyperparameters(row.method) | parse_options(row.method, row.set)).items()))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_committed_plan_is_read_and_its_rows_resolve(path):
    plan = read_bench_plan(Bench(path))
    assert plan.jobs and all(resolved(job) for job in plan.jobs)
    if plan.published:
        assert plan.published.rows.keys() <= set(plan.labels) and plan.published.data in {job.data for job in plan.jobs}


def test_a_label_is_one_setting_in_all_plans_and_a_setting_has_one_label():
    settings = {(job.label, resolved(job)) for path in PLANS for job in read_bench_plan(Bench(path)).jobs}
    labels, kinds = [label for label, _ in settings], [kind for _, kind in settings]
    assert len(set(labels)) == len(labels) and len(set(kinds)) == len(kinds)
    assert all(label == method for label, (method, options) in settings if dict(options) == hyperparameters(method))


def test_published_numbers_are_used_and_well_formed():
    published = tomllib.loads((ROOT / "benchmarks" / "published.toml").read_text(encoding="utf-8"))
    used = {tomllib.loads(path.read_text(encoding="utf-8")).get("published") for path in PLANS}
    assert used - {None} == published.keys()
    for entry in published.values():
        assert entry["own"] in entry["rows"]
        for classes in entry["rows"].values():
            assert classes.keys() <= {"RV", "Myo", "LV", "PZ", "CG", "mean"}
            known = {"dice", "dice_sd", "hd95", "better"}
            assert all(numbers and numbers.keys() <= known for numbers in classes.values())
            assert all(1.5 < numbers.get("dice", 50) <= 100 for numbers in classes.values()), "percent"
    rows = {key: entry["rows"] for key, entry in published.items()}
    assert rows["effdnet-table1"]["effdnet"]["LV"] == {"dice": 92.48, "dice_sd": 2.43}
    assert rows["effdnet-table1"]["pce"] == {
        "RV": {"dice": 56.44, "dice_sd": 11.51, "better": True},
        "Myo": {"dice": 56.63, "dice_sd": 3.6, "better": True},
    }, "LV is not legible"
    assert "better" not in rows["effdnet-table1"]["s2l"]["LV"] and "PZ" not in rows["effdnet-table1-nci-isbi"]["pce"]
    cells = [numbers for table in rows.values() for row in table.values() for numbers in row.values()]
    assert sum(len(numbers.keys() - {"better"}) for numbers in cells) == 300
    assert sum(numbers.get("better", False) for numbers in cells) == 31


def test_misprints_of_the_papers_are_kept_and_named():
    published = tomllib.loads((ROOT / "benchmarks" / "published.toml").read_text(encoding="utf-8"))
    rows = {key: entry["rows"] for key, entry in published.items()}
    note = {key: entry["note"] for key, entry in published.items()}
    hd95 = {
        (key, label): [round(row[name]["hd95"], 2) for name in ("RV", "Myo", "LV", "mean")]
        for key in ("scn-table1", "scn-table2", "scn-table3")
        for label, row in rows[key].items()
    }
    assert rows["scn-table1"]["rloss"] == rows["scn-table2"]["rloss"]
    assert all("rloss is the same" in note[key] for key in ("scn-table1", "scn-table2"))
    assert hd95["scn-table1", "scn"][:2] == [1.33, 3.53] and hd95["scn-table3", "scn"][:2] == [1.38, 3.48]
    assert all("1.33 and 3.53" in note[key] and "1.38 and 3.48" in note[key] for key in ("scn-table1", "scn-table3"))
    wrong = {key: numbers for key, numbers in hd95.items() if abs(np.mean(numbers[:3]) - numbers[3]) > 0.02}
    assert wrong == {
        ("scn-table2", "s2l"): [169.33, 24.59, 88.37, 94.29],
        ("scn-table2", "ustm"): [186.37, 186.29, 171.72, 180.46],
        ("scn-table2", "dmpls"): [3.11, 2.51, 2.3, 6.15],
    }
    assert "94.10" in note["scn-table2"] and "181.46" in note["scn-table2"] and "2.64" in note["scn-table2"]
    both = [rows[f"effdnet-table{number}"]["effdnet"]["RV"]["dice"] for number in (1, 2)]
    assert both == [86.98, 86.54] and "differs" in note["effdnet-table1"] and "differs" in note["effdnet-table2"]


def test_the_documented_plan_is_one(tmp_path):
    page = (ROOT / "docs" / "bench.md").read_text(encoding="utf-8")
    (tmp_path / "plans").mkdir()
    (tmp_path / "published.toml").write_bytes((ROOT / "benchmarks" / "published.toml").read_bytes())
    path = tmp_path / "plans" / "mine.toml"
    path.write_text(re.search(r"```toml\n(.*?)```", page, re.DOTALL)[1], encoding="utf-8")
    plan = read_bench_plan(Bench(path))
    assert plan.labels == ("pce", "effdnet-no-fadc") and len(plan.jobs) == 4 and not plan.published
    assert all(f"`{path.name}`" in page for path in PLANS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_committed_tables_are_those_of_the_committed_scores(page, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    given = []
    monkeypatch.setattr(cli, "_run", lambda target, settings: given.append(settings) or 0)
    made = re.search(r"`scribbleseg (bench .*?)`", page.read_text(encoding="utf-8"))[1]
    assert cli.main(shlex.split(made)) == 0
    plan = read_bench_plan(given[0])
    write_tables(plan, read_results(plan, given[0]), tmp_path)
    written = (tmp_path / page.name).read_text(encoding="utf-8").replace(f" --results {tmp_path}", "", 1)
    assert written == page.read_text(encoding="utf-8"), f"run: scribbleseg {made}"
    for name in (f"{page.stem}.csv", f"{page.stem}-tests.csv"):
        assert (tmp_path / name).read_text(encoding="utf-8") == page.with_name(name).read_text(encoding="utf-8")
