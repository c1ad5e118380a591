"""benchmarks/studies/rsr.py: a row per tenth of a run, and what the table had of other runs stays."""

import json

import numpy as np
import pytest
import rsr
from common import read_csv
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


def test_a_run_of_another_method_is_no_row(tmp_path):
    data = small_dataset(tmp_path / "small")
    ss.train(data, tmp_path / "run", method="pce", size=32, batch=2, iterations=1, device="cpu")
    with pytest.raises(SystemExit, match="trained pce with {}; expected scn with its defaults"):
        rsr.write_full([tmp_path / "run"], tmp_path)
