"""benchmarks/studies/narrow.py: every value on every data set once, and the page that shows their means."""

import narrow
import pytest
from common import read_csv
from small import briefly, ringed


def line(data: str, least: float, seed: int, dice: float) -> dict:
    classes = f"{dice - 1:.1f} / {dice + 1:.1f}"
    return {"data": data, "narrow": f"{least:g}", "seed": seed, "by_class": classes, "dice": f"{dice:.1f}"}


def test_the_page_has_the_mean_of_the_seeds_where_both_data_sets_have_them():
    lines = [line("hearts", 0.25, 0, 80), line("hearts", 0.25, 1, 82), line("abdomens", 0.25, 0, 60)]
    assert narrow.summary(lines) == [], "hearts have a seed more"
    lines += [line("abdomens", 0.25, 1, 64), line("hearts", 1.0, 0, 70)]
    assert narrow.summary(lines) == [["0.25", "80.0 / 82.0", "81.0", "61.0 / 63.0", "62.0", "71.5", "0, 1"]]


@pytest.mark.slow
def test_every_value_is_trained_and_scored_once(tmp_path, monkeypatch):
    for name in narrow.DATA:
        ringed(tmp_path / "runs" / name)
    done = []
    monkeypatch.setattr(narrow, "scribbleseg", briefly(narrow.scribbleseg, done))
    words = ["--runs", tmp_path / "runs", "--results", tmp_path]
    monkeypatch.setattr("sys.argv", ["narrow.py", *map(str, words)])
    narrow.main()
    narrow.main()
    assert done == ["train", "predict", "evaluate"] * len(narrow.DATA) * len(narrow.NARROW)
    lines = read_csv(tmp_path / "best" / "narrow.csv")
    assert [(row["data"], row["narrow"]) for row in lines] == [
        (name, f"{least:g}") for name in narrow.DATA for least in narrow.NARROW
    ]
    assert (tmp_path / "best" / "narrow.md").read_text(encoding="utf-8").count("\n| 0.5 ") == 1
