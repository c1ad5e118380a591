"""benchmarks/studies/synthetic.py: every setting on every data set once, and the page that shows their means."""

import pytest
import synthetic
from common import read_csv
from small import briefly, ringed


def line(data: str, setting: str, seed: int, dice: float) -> dict:
    classes = f"{dice - 1:.1f} / {dice + 1:.1f}"
    return {"data": data, "setting": setting, "seed": seed, "by_class": classes, "dice": f"{dice:.1f}"}


def test_the_page_has_the_mean_of_the_seeds_where_both_data_sets_have_them():
    lines = [line("hearts", "gamma=0", 0, 80), line("hearts", "gamma=0", 1, 82), line("abdomens", "gamma=0", 0, 60)]
    assert synthetic.summary(lines) == [], "hearts have a seed more"
    lines += [line("abdomens", "gamma=0", 1, 64), line("hearts", "narrow=1", 0, 70)]
    assert synthetic.summary(lines) == [["gamma=0", "80.0 / 82.0", "81.0", "61.0 / 63.0", "62.0", "71.50", "0, 1"]]


@pytest.mark.slow
def test_every_setting_is_trained_and_scored_once(tmp_path, monkeypatch):
    for name in synthetic.DATA:
        ringed(tmp_path / "runs" / name)
    done = []
    monkeypatch.setattr(synthetic, "SETTINGS", ("as it is", "narrow=1"))
    monkeypatch.setattr(synthetic, "scribbleseg", briefly(synthetic.scribbleseg, done))
    words = ["--runs", tmp_path / "runs", "--results", tmp_path]
    monkeypatch.setattr("sys.argv", ["synthetic.py", *map(str, words)])
    synthetic.main()
    synthetic.main()
    assert done == ["train", "predict", "evaluate"] * 4
    lines = read_csv(tmp_path / "best" / "synthetic.csv")
    assert [(row["data"], row["setting"]) for row in lines] == [
        (name, setting) for name in synthetic.DATA for setting in synthetic.SETTINGS
    ]
    assert (tmp_path / "best" / "synthetic.md").read_text(encoding="utf-8").count("\n| narrow=1 ") == 1
