"""benchmarks/studies/ablation.py: the means of the seeds stand on the page, and a study carries on."""

import ablation
import pytest
from common import read_csv
from small import ringed

from scribbleseg.training.plan import read_plan


def line(method: str, enclosure: str, seed: int, dice: str, near: str) -> dict:
    numbers = {"dice": dice, "near": near, "far": "4.04", "empty": "1.00", "minutes": "20.0"}
    return {"method": method, "enclosure": enclosure, "seed": seed, "cases": 40} | numbers


def test_the_page_has_the_mean_of_the_seeds_and_each_of_them():
    lines = [line("pce", "off", 0, "60.00", "80.0"), line("pce", "off", 1, "61.00", "81.0")]
    assert ablation.summary([*lines, line("scn", "on", 0, "82.00", "83.0")]) == [
        ["pce", "off", "0, 1", "60.5 (60.0 / 61.0)", "80.5", "4.0 %", "1.0 %", "20"],
        ["scn", "on", "0", "82.0", "83.0", "4.0 %", "1.0 %", "20"],
    ]


@pytest.mark.slow
def test_a_study_carries_on(tmp_path, monkeypatch):
    data = ringed(tmp_path / "data")
    run = ablation.scribbleseg

    def short(words):
        words = [str(word) for word in words]
        run(words + ["--iterations", "2", "--size", "32", "--batch", "2"] * (words[0] == "train" and len(words) > 3))

    monkeypatch.setattr(ablation, "scribbleseg", short)
    monkeypatch.setattr(ablation, "SPLIT", "final")
    monkeypatch.setattr(ablation, "ROWS", [("pce", "off"), ("pce", "on")])
    words = ["--data", data, "--runs", tmp_path / "runs", "--results", tmp_path]
    monkeypatch.setattr("sys.argv", ["ablation.py", *map(str, words)])
    ablation.main()
    made = read_csv(tmp_path / "ablation.csv")
    assert [(one["method"], one["enclosure"]) for one in made] == [("pce", "off"), ("pce", "on")]
    plans = [read_plan(tmp_path / "runs" / f"pce-{enclosure}-s0")[1] for enclosure in ("off", "on")]
    assert [plan.fitted.enclosure for plan in plans] == ["off", "hull"]
    before = (tmp_path / "ablation.md").read_text(encoding="utf-8")
    ablation.main()
    assert (tmp_path / "ablation.md").read_text(encoding="utf-8") == before


def test_a_prediction_that_was_cut_off_is_made_again(tmp_path, monkeypatch):
    done = []

    def cut_off(words):
        done.append(words[0])
        if words[0] == "predict":
            (words[3] / "case.nii.gz").write_bytes(b"")
            raise KeyboardInterrupt

    monkeypatch.setattr(ablation, "scribbleseg", cut_off)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            ablation.make(tmp_path / "data", "pce", "off", 0, tmp_path)
    assert done == ["train", "predict"] * 2 and not (tmp_path / "pce-off-s0" / "predictions").exists()
