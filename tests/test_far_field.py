"""benchmarks/studies/far_field.py: what lies in the boxes and out of them, and lines whose predictions are
elsewhere."""

import csv
from pathlib import Path

import far_field
import numpy as np
import pytest
from common import read_csv
from tiny import save, tiny_set

from scribbleseg.bench.plan import Job
from scribbleseg.bench.store import add_run, read_scores
from scribbleseg.evaluation.scores import COLUMNS


@pytest.fixture
def runs(tmp_path):
    """One case of 80 × 80 pixels, its second slice empty, as a finished run predicted it: half of class 1, one far
    block of 10 pixels, 5 in the empty slice."""
    truth = np.zeros((80, 80, 2), np.uint8)
    truth[10:20, 10:20, 0] = 1
    truth[12:14, 12:14, 0] = 2
    found = truth.copy()
    found[15:20, 10:20, 0] = 0
    found[60:65, 60:62, 0] = 1
    found[:5, 0, 1] = 2
    folder = tiny_set(tmp_path / "datasets" / "hearts", 1)
    for part, array in (("imagesTr/case0_0000", truth), ("labelsTr/case0", truth), ("labelsTr_dense/case0", truth)):
        save(folder / f"{part}.nii.gz", array)
    save(tmp_path / "runs/quick/hearts/cv5-0/pce-s0/predictions/case0.nii.gz", found)
    job = Job("hearts", "cv5", 0, "pce", "pce", (), 0, "quick")
    curve = [{"iteration": "1", "loss": "0.5", "val_mean_dice": "nan"}]
    row = dict.fromkeys(COLUMNS, 0.0) | {"case": "case0", "class": "A", "unit": "mm", "patient": "case0"}
    add_run(tmp_path / "results" / "quick", job, {"plan": {"fold": {}}}, [row], curve)
    return tmp_path / "runs", tmp_path / "datasets", tmp_path / "results"


def lines(results):
    with open(results / "far-field-quick.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_what_a_line_says(runs):
    far_field.main(*runs)
    (line,) = lines(runs[2])
    outer, inner = 46, 4  # found in the box; the truth has 96 and 4
    assert line["cases"] == "1"
    assert float(line["dice_in_box"]) == pytest.approx((2 * outer / (96 + outer) + 1) / 2, abs=1e-5)
    assert float(line["dice"]) == pytest.approx(
        (2 * outer / (96 + outer + 10) + 2 * inner / (4 + inner + 5)) / 2, abs=1e-5
    )
    assert float(line["foreground_outside"]) == pytest.approx(10 / 65, abs=1e-5)
    assert float(line["foreground_in_empty_slices"]) == pytest.approx(5 / 65, abs=1e-5)


def test_lines_of_runs_that_are_elsewhere_stay(runs):
    far_field.main(*runs)
    with open(runs[2] / "far-field-quick.csv", "a", newline="", encoding="utf-8") as file:
        file.write("acdc,cv5-0,scn,0,40,0.81887,0.83135,0.01279,0.01710\nhearts,cv5-0,pce,0,9,0.1,0.1,0.1,0.1\n")
    far_field.main(*runs)
    other, again = lines(runs[2])
    assert (other["data"], other["row"], other["dice"]) == ("acdc", "scn", "0.81887")
    assert (again["row"], again["cases"]) == ("pce", "1"), "a run that is here is measured anew"
    assert "| acdc | cv5-0 | scn | 0 | 40 | 81.9 | 83.1 | 1 % | 2 % |" in (runs[2] / "far-field-quick.md").read_text(
        encoding="utf-8"
    )


def test_a_run_without_committed_scores_has_no_line(runs):
    (runs[2] / "quick" / "scores.csv").unlink()
    far_field.main(*runs)
    assert not lines(runs[2])


def test_a_line_of_an_earlier_run_is_named():
    lines = [{"data": "acdc", "split": "cv5-0", "row": row, "seed": "0", "dice": "0.5"} for row in ("scn", "pce", "rw")]
    row = dict.fromkeys(COLUMNS, 0.0) | {"case": "case0", "class": "A", "unit": "mm", "patient": "case0"}
    scored = {f"acdc/cv5-0/{name}-s0": [row | {"dice": dice}] for name, dice in (("scn", 0.49), ("pce", 0.5004))}
    (note,) = far_field.earlier(lines, scored)
    assert note.endswith(": acdc/cv5-0/scn-s0.") and far_field.earlier(lines[1:], scored) == []


def test_the_committed_page_names_the_lines_of_earlier_runs():
    committed = Path(__file__).parents[1] / "benchmarks" / "results"
    notes = far_field.earlier(read_csv(committed / "far-field-quick.csv"), read_scores(committed / "quick"))
    page = (committed / "far-field-quick.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in page if line.startswith("These lines are of earlier runs")] == notes
