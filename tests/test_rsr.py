"""benchmarks/studies/rsr.py: a row per tenth of a run, and what the table had of other runs stays."""

import json

import numpy as np
import pytest
import rsr
from common import put_line, read_csv
from small import small_dataset

import scribbleseg as ss


def test_a_whole_run_has_a_row_per_tenth_with_the_means_of_its_log(tmp_path):
    data = small_dataset(tmp_path / "small")
    for seed in (1, 0):
        run = tmp_path / f"run{seed}"
        ss.train(data, run, method="scn", size=32, batch=2, iterations=40, val_share=0.3, seed=seed, device="cpu")
        rsr.write_full([run], tmp_path)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = read_csv(tmp_path / "scn-rsr-full.csv")
    assert [row["seed"] for row in rows] == ["0"] * 10 + ["1"] * 10
    assert [int(row["iteration"]) for row in rows[:10]] == list(range(4, 44, 4))
    for row, until in zip(rows, range(4, 44, 4), strict=False):
        entries = [entry["monitor"] for entry in log if until - 4 < entry["iteration"] <= until]
        for name in rsr.MONITORED:
            assert float(row[name]) == round(float(np.mean([entry[name] for entry in entries])), 5)
        assert row["dice"] == f"{100 * next(e['val_mean_dice'] for e in log if e['iteration'] == until):.2f}"
        assert (row["split"], row["size"], row["batch"]) == ("final", "32", "2") and "thread" in row["device"]
    rsr.write_full([run], tmp_path)
    assert read_csv(tmp_path / "scn-rsr-full.csv") == rows, "a run that is read again replaces its rows"
    assert "| small | " in (tmp_path / "scn-rsr-full.md").read_text(encoding="utf-8")


def test_in_the_committed_runs_rsr_changes_pixels_to_the_end():
    rows = read_csv(rsr.RESULTS / "scn-rsr-full.csv")
    assert len(rows) == 20 and max(int(row["iteration"]) for row in rows) == 30_000
    assert min(float(row["changed"]) for row in rows) > 1e-4


def test_a_run_of_another_method_is_no_row(tmp_path):
    data = small_dataset(tmp_path / "small")
    ss.train(data, tmp_path / "run", method="pce", size=32, batch=2, iterations=1, device="cpu")
    with pytest.raises(SystemExit, match="trained pce with {}; expected scn with its defaults"):
        rsr.write_full([tmp_path / "run"], tmp_path)


def test_the_page_has_means_over_the_seeds_at_the_end_of_the_runs(tmp_path):
    rows = [
        {"variant": variant, "seed": seed, "iteration": iteration, "dice": dice, "command": f"train {seed}"}
        | dict.fromkeys(rsr.MONITORED, changed)
        for variant, seed, iteration, dice, changed in (
            ("class mean", 0, 2000, 88.0, 0.25),
            ("as printed", 1, 2000, 87.0, 0.25),
            ("as printed", 0, 200, 10.0, 1.0),
            ("as printed", 0, 2000, 85.5, 0.75),
        )
    ]
    for row in rows:
        put_line(tmp_path / "scn-rsr.csv", row, rsr.row_place, rsr.COLUMNS)
    rsr.write_variants(tmp_path)
    page = (tmp_path / "scn-rsr.md").read_text(encoding="utf-8")
    assert "| as printed | 0, 1 | 0.500 | 50.00 | 50.00 | 50.00 | 50.00 | 85.5 / 87.0 | 86.2 |" in page
    assert "| class mean | 0 | 0.250 | 25.00 | 25.00 | 25.00 | 25.00 | 88.0 | 88.0 |" in page
    assert page.index("| as printed | 0 | 200 |") < page.index("| as printed | 1 | 2000 |")
    assert "- `train 0`\n- `train 1`" in page


def test_a_variant_is_trained_once_and_its_rows_are_kept(tmp_path, monkeypatch):
    data = small_dataset(tmp_path / "small")
    budget = {"method": "scn", "size": 32, "batch": 2, "iterations": 10, "val-share": 0.3, "set": "momentum=0.985"}
    monkeypatch.setattr(rsr, "BUDGET", budget)
    rows = rsr.train_variant("as printed", 1, data, tmp_path / "runs")
    assert [row["iteration"] for row in rows] == list(range(1, 11)) and {row["seed"] for row in rows} == {1}
    assert rows[0]["command"].endswith("--set momentum=0.985 --seed 1 --set region_threshold=0")
    before = (tmp_path / "runs" / "as-printed-s1" / "log.jsonl").read_bytes()
    assert rsr.train_variant("as printed", 1, data, tmp_path / "runs") == rows
    assert (tmp_path / "runs" / "as-printed-s1" / "log.jsonl").read_bytes() == before
