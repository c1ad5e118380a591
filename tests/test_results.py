"""benchmarks/studies/results.py: the queue, the page that is made of committed scores, and the small run folders."""

import csv
import shutil
import time
from pathlib import Path

import msgspec
import nibabel
import numpy as np
import pandas as pd
import pytest
import results
from finished import results_of
from small import small_dataset
from test_bench_tables import TWO_FOLDS, bench_plan, of, result

from scribbleseg.bench.plan import BenchPlan, Job, Published
from scribbleseg.bench.tables import aggregate
from scribbleseg.config import Bench, Predict, Train
from scribbleseg.inference.predict import predict
from scribbleseg.training.train import train

ROOT = Path(__file__).parents[1]


def test_the_page_shows_the_committed_scores(monkeypatch):
    monkeypatch.chdir(ROOT)
    page = Path("docs/results.md").read_text(encoding="utf-8")
    config = Bench(results.PLANS, results=Path("benchmarks/results"))
    folds, orders = set(), results.orders
    monkeypatch.setattr(results, "orders", lambda section, paper: folds.update(jobs(section)) or orders(section, paper))
    assert results.fill(page, results.blocks(config)) == page, "run: python benchmarks/studies/results.py --table-only"
    assert folds == {("acdc", "cv5", 0), ("acdc", "strat5", 0), ("mscmr", "25-5-15", 0)}, "rows have the same folds"


def jobs(section) -> set[tuple[str, str, int]]:
    return {(job.data, job.split, job.fold) for job in section.jobs}


def test_the_queue_has_every_run_once_and_effdnet_first(monkeypatch):
    monkeypatch.chdir(ROOT)
    plans = results.read_plans(Bench(results.PLANS), "paper")
    jobs = results.queue(plans)
    assert len(jobs) == len(set(jobs)) and set(jobs) == {job for plan in plans.values() for job in plan.jobs}
    assert [(job.label, job.data, job.fold) for job in jobs[:7]] == [
        *(("effdnet", "acdc", fold) for fold in range(5)),
        ("scn", "acdc", 0),
        ("scn", "mscmr", 0),
    ]


def test_a_row_has_its_own_numbers_and_the_distance_to_the_papers():
    known = {
        "pce": {"A": {"dice": 80.0}, "mean": {"dice": 86.0}},
        "scn": {name: {"dice": dice} for name, dice in zip("ABC", (90.0, 80.0, 85.0))},
    }
    paper = Published("Somebody", "heart", "5 folds", "cv", {**known, "ustm": {"A": {"dice": 79.0}}})
    plan = bench_plan(["pce", "scn", "ustm"], [0, 1, 2], published=paper)
    (section,) = aggregate(plan, of(plan, TWO_FOLDS))  # pCE alone: fold means .7 and .6
    text = results.section_text(section)
    lines = {
        line.split(" | ")[0].removeprefix("| "): [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    }
    shown = dict(zip(lines["method"], lines["pce"]))
    assert (
        shown["folds"],
        shown["cases"],
        shown["Dice mean"],
        shown["paper"],
        shown["short by"],
        shown["min / run"],
    ) == ("0-1 (2 not run)", "3", "65.00 (7.07)", "86.00", "", "5.0")
    assert (dict(zip(lines["method"], lines["scn"]))["paper"], lines["scn"][1]) == ("85.00", "not run")
    assert [cell for cell in lines["ustm"] if cell] == ["ustm", "not run"], "two of three classes are no mean"
    for split, expected in (("cv", "21.00"), ("622", "")):
        whole = bench_plan(["pce"], [0, 1], published=msgspec.structs.replace(paper, ours=split))
        (section,) = aggregate(whole, of(whole, TWO_FOLDS))
        cells = [
            line.strip("| ").split(" | ")
            for line in results.section_text(section).splitlines()
            if line.startswith("| ")
        ]
        assert dict(zip(cells[0], cells[2]))["short by"].strip() == expected, (
            "only with all folds of a split of the paper's kind"
        )


def test_mixed_folds_stand_beside_folds_of_one_pathology():
    plan = bench_plan(["pce", "scn"], [0, 1, 2])
    (section,) = aggregate(plan, of(plan, TWO_FOLDS))
    (mixed,) = aggregate(plan, of(plan, {(label, 1): result({"c": (0.8, 0.4)}) for label in ("pce", "scn")}))
    lines = [line.strip("| ").split(" | ") for line in results.section_text(section, mixed).splitlines() if "|" in line]
    assert [line[-1].strip() for line in (lines[0], *lines[2:])] == [
        "Dice mean on `cv`",
        "60.00, fold 1 (0, 2 not run), seed 0",
        "60.00, fold 1 (0, 2 not run), seed 0",
    ], "also beside a row that was not run"
    alone = results.section_text(section, aggregate(plan, of(plan, {}))[0]).splitlines()
    assert alone[-3].endswith("| not run |") and alone[-1] == "Not run: `scn`."
    assert "HD95 mean (mm)" in lines[0] and "Dice mean on" not in results.section_text(section)


def test_a_row_that_was_not_run_has_a_line_only_beside_the_papers_number():
    known = {"scn": {"mean": {"dice": 90.0}}}
    plan = bench_plan(
        ["pce", "scn", "tv", "rw"], [0, 1, 2], published=Published("Somebody", "heart", "5 folds", "cv", known)
    )
    (section,) = aggregate(plan, of(plan, TWO_FOLDS))
    text = results.section_text(section)
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")][2:] == ["| pce", "| scn"]
    assert text.endswith("\n\nNot run: `tv`, `rw`.")


def test_scores_of_validation_cases_are_no_distance_to_the_papers():
    plan = bench_plan(
        ["pce"], [0], published=Published("Somebody", "heart", "5 folds", "cv", {"pce": {"mean": {"dice": 86.0}}})
    )
    found = of(plan, {("pce", 0): result({"a": (0.5, 0.7), "b": (0.7, 0.9)})})
    (section,) = aggregate(plan, found)
    assert results.row_cells("pce", section)[-3] == "16.00"
    for record in found.records.values():
        record["plan"]["fold"] = {"name": "some", "train": ["x"], "val": ["a", "b"], "test": []}
    assert results.row_cells("pce", section)[-3] == ""


def test_a_tenth_of_the_iterations_stands_beside_the_same_run_at_quick(tmp_path):
    keys = {
        "data": "heart",
        "split": "cv",
        "fold": "0",
        "seed": "0",
        "size": "128",
        "training_s": "90",
        "dice_per_class": "70.0 / 80.0",
        "dice_in_box": "76",
        "outside": "3",
        "device": "a CPU",
        "commit": "abc",
    }
    rows = [
        ("scn", "", "3000", "75"),
        ("scn", "", "300", "11"),
        ("effdnet", "fadc=false", "6000", "74"),
        ("effdnet", "", "6000", "73"),
    ]
    with open(tmp_path / "folds-some.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["method", "set", "iterations", "dice", *keys])
        writer.writeheader()
        writer.writerows(dict(zip(("method", "set", "iterations", "dice"), row)) | keys for row in rows)
    jobs = [
        Job("heart", "cv", 0, label, method, options, 0, "quick")
        for label, method, options in (("scn", "scn", ()), ("effdnet-fbsl", "effdnet", ("fadc=false",)))
    ]
    found = dict(zip(jobs, (50.0, 62.5)))
    lines = [
        line.strip("| ").split(" | ") for line in results.tenth(Bench(tmp_path, results=tmp_path), found).splitlines()
    ]
    shown = [dict(zip(lines[0], line)) for line in lines[2:]]
    assert [(line["row"], line["iterations"], line["Dice mean"], line["at `quick`"]) for line in shown] == [
        ("scn", "3000", "75", "50.00"),
        ("effdnet-fbsl", "6000", "74", "62.50"),
        ("effdnet ", "6000", "73", "not run"),
    ]
    assert (shown[0]["minutes"], shown[0]["near the mask"], shown[0]["foreground elsewhere, %"]) == ("2", "76", "3")


def test_pairs_that_stand_the_other_way_round_are_named():
    plan = bench_plan(["pce", "scn", "rw", "tv"], [0])
    (section,) = aggregate(
        plan,
        of(
            plan,
            {
                (label, 0): result({"a": (dice, dice)})
                for label, dice in (("pce", 0.5), ("scn", 0.4), ("rw", 0.6), ("tv", 0.9))
            },
        ),
    )
    paper = {
        label: {"mean": {"dice": dice}} for label, dice in (("pce", 60.0), ("scn", 90.0), ("rw", 60.0), ("ustm", 99.0))
    }
    said = results.orders(section, Published("Somebody", "heart", "5 folds", "cv", paper))
    assert said == "- heart, cv: 2 of 2 pairs of Somebody: `pce` above `scn`; `rw` above `scn`.", (
        "alike in the paper is no pair, nor is what it does not print"
    )


def test_rows_are_compared_by_the_classes_that_the_paper_prints_for_both():
    plan = bench_plan(["pce", "scn"], [0])
    (section,) = aggregate(
        plan, of(plan, {("pce", 0): result({"a": (0.9, 0.1)}), ("scn", 0): result({"a": (0.8, 0.9)})})
    )
    paper = {"pce": {"A": {"dice": 60.0}}, "scn": {"A": {"dice": 70.0}, "B": {"dice": 50.0}}}
    said = results.orders(section, Published("Somebody", "heart", "5 folds", "cv", paper))
    assert said == "- heart, cv: 1 of 1 pairs of Somebody: `pce` above `scn`."


def test_a_mean_needs_every_class_that_the_paper_has():
    rows = {"pce": {"PZ": {"dice": 60.0}, "CG": {"dice": 70.0}}, "scn": {"PZ": {"dice": 70.0}}, "rw": {}}
    paper = Published("Somebody", "heart", "5 folds", "cv", rows)
    assert [results.paper_mean(label, paper) for label in ("pce", "scn", "rw", "tv")] == [65.0, None, None, None]
    assert results.paper_mean("pce", None) is None


def test_data_that_is_not_public_here_is_named_in_its_rows_and_left_out_of_a_run(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    page = Path("docs/results.md").read_text(encoding="utf-8")
    block = page.partition("<!-- effdnet-table2-nci-isbi -->")[2].partition("<!-- end -->")[0]
    assert block.count("| not run: data not public here |") == 4 and "| 79.15 |" in block
    asked: list[Job] = []
    monkeypatch.setattr(results, "parted", lambda jobs, plans, config: ([], [], jobs))
    monkeypatch.setattr(results, "blocks", lambda config: {})
    monkeypatch.setattr(results, "run_jobs", lambda todo, config, done: asked.extend(todo) or {})
    (tmp_path / "page.md").write_text(page, encoding="utf-8")
    words = ["results.py", "--budget", "quick", "--datasets", str(tmp_path), "--page", str(tmp_path / "page.md")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as raised:
        results.main()
    assert raised.value.code == 0 and {job.data for job in asked} == {"acdc", "mscmr"}
    assert "nci-isbi: not there, so its runs are left out" in capsys.readouterr().err


def test_an_outdated_run_stays_and_stops_no_other(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    shutil.copytree("benchmarks/results/quick", tmp_path / "quick")
    config = Bench(results.PLANS, "quick", results=tmp_path)
    plans = results.read_plans(config, "quick")
    jobs = results.queue(plans)
    done, outdated, others = results.parted(jobs, plans, config)
    table = pd.read_csv(tmp_path / "quick" / "runs.csv", dtype=str, keep_default_na=False)
    table.loc[table.run == done[0].run, "plan.recipe.lr"] = "7"
    table.to_csv(tmp_path / "quick" / "runs.csv", index=False)
    again = results.parted(jobs, plans, config)
    assert again == (done[1:], [job for job in jobs if job in (done[0], *outdated)], others)
    assert sorted(job.run for job in (*done, *outdated, *others)) == sorted(job.run for job in jobs)


def test_the_effect_of_a_choice_is_against_the_same_seed():
    jobs = [
        Job("heart", "cv", 0, *row, seed, "quick")
        for seed in (0, 1)
        for row in (("scn", "scn", ()), ("scn-4", "scn", ("stride=4",)), ("scn-m", "scn", ("overlap=mask",)))
    ]
    dice = {("scn", 0): 0.5, ("scn", 1): 0.7, ("scn-4", 0): 0.6, ("scn-4", 1): 0.65, ("scn-m", 1): 0.7}
    found = results_of(
        {job: result({"a": (dice[job.label, job.seed],) * 2}) for job in jobs if (job.label, job.seed) in dice}
    )
    plan = BenchPlan(
        "table", Path("table.toml"), "quick", ("scn", "scn-4", "scn-m"), tuple(jobs), "A table", (), None, ()
    )
    lines = results.effects(aggregate(plan, found)[0]).splitlines()[2:]
    assert lines == [
        "| scn | stride 4 | stride 8 | +10.0, -5.0 | +2.5 |",
        "| scn | overlap mask | overlap region | +0.0 | +0.0 |",
    ]


def test_a_small_run_folder_predicts_like_the_run(tmp_path):
    data = small_dataset(tmp_path / "small")
    job = Job("small", "final", 0, "pce", "pce", (), 0, "paper")
    config = Bench(Path("plan"), "paper", datasets=tmp_path, runs=tmp_path / "runs")
    run = train(Train(data, config.runs / job.place, method="pce", iterations=30, size=32, batch=4))
    results.keep_small(job, config, tmp_path / "models")
    kept = tmp_path / "models" / job.place
    assert sorted(path.name for path in kept.iterdir()) == [
        "config.json",
        "environment.json",
        "last.safetensors",
        "log.jsonl",
    ]
    assert (kept / "last.safetensors").stat().st_size < 0.55 * (run / "last.safetensors").stat().st_size
    image = next((data / "imagesTr").iterdir())
    found = []
    for name, folder in (("full", run), ("half", kept)):
        predict(Predict(folder, image, tmp_path / f"{name}.nii.gz"))
        found.append(np.asarray(nibabel.load(tmp_path / f"{name}.nii.gz").dataobj))
    assert np.mean(found[0] == found[1]) > 0.99


def test_weights_over_the_limit_stay_behind(tmp_path, monkeypatch):
    data = small_dataset(tmp_path / "small")
    job = Job("small", "final", 0, "pce", "pce", (), 0, "paper")
    config = Bench(Path("plan"), "paper", datasets=tmp_path, runs=tmp_path / "runs")
    train(Train(data, config.runs / job.place, method="pce", iterations=1, size=32, batch=4))
    monkeypatch.setattr(results, "LARGEST", 3_000_000)
    results.keep_small(job, config, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_minutes_stop_like_ctrl_c(capsys):
    start = time.monotonic()
    with results.stopped_after(0.01):
        time.sleep(20)
    assert time.monotonic() - start < 10
    assert "continues" in capsys.readouterr().err


def test_a_page_without_its_marker_is_refused():
    with pytest.raises(SystemExit, match="<!-- x -->"):
        results.fill("# page", {"x": "table"})
    assert results.fill("a <!-- x -->old<!-- end --> b", {"x": "new"}) == "a <!-- x -->\nnew\n<!-- end --> b"
