"""benchmarks/studies/preparations.py: each row and seed is trained once, and its mean stands on the page."""

import preparations
import pytest
from common import read_csv
from small import small_dataset

from scribbleseg.training.plan import read_plan


def line(row: str, seed: int, dice: str, data: str = "mscmr") -> dict:
    return {"data": data, "row": row, "seed": seed, "cases": 5, "dice": dice, "minutes": "2.0"}


def test_the_page_has_the_mean_of_the_seeds_and_each_of_them():
    lines = [line("papers", 0, "80.00"), line("papers", 1, "81.00"), line("patches, 3-D", 0, "70.00", "cubes")]
    assert preparations.summary(lines) == [
        ["mscmr", "papers", "0, 1", 5, "80.5 (80.0 / 81.0)", "2"],
        ["cubes", "patches, 3-D", "0", 5, "70.0", "2"],
    ]


@pytest.mark.slow
def test_a_study_carries_on(tmp_path, monkeypatch):
    """The small data set stands in for MSCMR, with its two rows at few iterations."""
    small_dataset(tmp_path / "data" / "mscmr", cases=8)
    short = {"size": 32, "iterations": 2, "batch": 2, "device": "cpu", "enclosure": "off"}
    rows = {name: settings | short for name, settings in preparations.HEARTS.items()}
    monkeypatch.setitem(preparations.ROWS, "mscmr", rows)
    monkeypatch.setitem(preparations.SPLITS, "mscmr", "final")
    words = ["--only", "mscmr", "--datasets", tmp_path / "data", "--runs", tmp_path / "runs", "--results", tmp_path]
    monkeypatch.setattr("sys.argv", ["preparations.py", *map(str, words)])
    preparations.main()
    made = read_csv(tmp_path / "preparations.csv")
    assert [(one["row"], one["seed"]) for one in made] == [(row, seed) for row in rows for seed in "01"]
    papers, fast = (read_plan(tmp_path / "runs" / f"mscmr-{row}-s0")[1] for row in rows)
    assert not papers.fitted.intensity and fast.fitted.intensity
    assert papers.recipe.augmentation == "papers" and papers.method == fast.method == "corral"
    before = (tmp_path / "preparations.md").read_text(encoding="utf-8")
    monkeypatch.setattr(preparations.ss, "train", lambda *_, **__: pytest.fail("was done before"))
    monkeypatch.setattr(preparations, "score", lambda *_: pytest.fail("was scored before"))
    preparations.main()
    assert (tmp_path / "preparations.md").read_text(encoding="utf-8") == before
