"""benchmarks/studies/ablation.py: the means of the seeds stand on the page, and a study carries on."""

from types import SimpleNamespace

import ablation
import numpy as np
import pytest
import torch
from common import read_csv
from small import ringed

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import read_scribble
from scribbleseg.data.layout import read_dataset
from scribbleseg.training.plan import read_plan


def line(method: str, enclosure: str, seed: int, dice: str, near: str) -> dict:
    numbers = {"dice": dice, "near": near, "far": "4.04", "empty": "1.00", "minutes": "20.0"}
    return {"method": method, "enclosure": enclosure, "deleted": "none", "seed": seed, "cases": 40} | numbers


def test_the_page_has_the_mean_of_the_seeds_and_each_of_them():
    lines = [line("pce", "off", 0, "60.00", "80.0"), line("pce", "off", 1, "61.00", "81.0")]
    assert ablation.summary([*lines, line("scn", "on", 0, "82.00", "83.0")]) == [
        ["pce", "off", "none", "0, 1", "60.5 (60.0 / 61.0)", "80.5", "4.0 %", "1.0 %", "20"],
        ["scn", "on", "none", "0", "82.0", "83.0", "4.0 %", "1.0 %", "20"],
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
    monkeypatch.setattr(ablation, "ROWS", [("pce", kind, "none") for kind in ("off", "on", "ring")])
    words = ["--data", data, "--runs", tmp_path / "runs", "--results", tmp_path]
    monkeypatch.setattr("sys.argv", ["ablation.py", *map(str, words)])
    ablation.main()
    made = read_csv(tmp_path / "ablation.csv")
    assert [(one["method"], one["enclosure"]) for one in made] == [("pce", "off"), ("pce", "on"), ("pce", "ring")]
    plans = [read_plan(tmp_path / "runs" / f"pce-{enclosure}-s0")[1] for enclosure in ("off", "on", "ring")]
    assert [plan.fitted.enclosure for plan in plans] == ["off", "hull", "off"]
    assert [plan.method for plan in plans] == ["pce", "pce", "ablation:Ring"]
    assert ablation.RULES == {"ring": "ablation:Ring", "box": "ablation:Box"}
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
            ablation.make(tmp_path / "data", "pce", "off", "none", 0, tmp_path)
    assert done == ["train", "predict"] * 2 and not (tmp_path / "pce-off-s0" / "predictions").exists()


@pytest.mark.parametrize("method, labels", [("corral", True), ("pce", False)])
def test_our_method_is_trained_with_its_labels_of_half_time(tmp_path, monkeypatch, method, labels):
    asked: list[list] = []

    def stop(words):
        asked.append(words)
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation, "scribbleseg", stop)
    with pytest.raises(KeyboardInterrupt):
        ablation.make(tmp_path / "data", method, "on", "none", 0, tmp_path)
    assert ("taught=1" in asked[0]) == labels and method in asked[0]


def test_ring_and_box_say_what_is_background():
    """A ring of 24 by 24 pixels with a gap, a closed one, a slice with background strokes alone, and none."""
    drawn = np.full((4, 40, 40), UNLABELED, np.uint8)
    drawn[:2, 6:30, 6:30] = 0
    drawn[:2, 7:29, 7:29] = UNLABELED
    drawn[0, 6:30, 6] = UNLABELED  # the gap
    drawn[:2, 18, 18] = 1
    drawn[2, 3, 3], drawn[2, 30, 30] = 0, 0
    drawn[3] = UNLABELED
    volume = SimpleNamespace(scribble=drawn)
    ring, box = (kind(torch.nn.Identity()).targets(volume) for kind in (ablation.Ring, ablation.Box))
    assert np.array_equal(ring["label"], drawn) and np.array_equal(box["label"], drawn)
    assert (ring["enclosure"][0] == UNLABELED).all(), "5 pixels do not close a gap of 24"
    outside = np.ones((40, 40), bool)
    outside[6:30, 6:30] = False
    assert np.array_equal(box["enclosure"][1] == 0, outside)
    outside[:, 6] = True  # the box of what is left of the open ring
    assert np.array_equal(box["enclosure"][0] == 0, outside)
    assert not (ring["enclosure"][1] == 0)[6:30, 6:30].any() and (ring["enclosure"][1] == 0)[0].all()
    for found in (ring, box):
        assert np.array_equal(found["enclosure"][2] == 0, drawn[2] == UNLABELED)
        assert (found["enclosure"][3] == UNLABELED).all(), "nothing was drawn"


def test_half_of_the_rings_strokes_are_deleted_and_nothing_else(tmp_path):
    data = ringed(tmp_path / "data")
    before = {path.name: path.read_bytes() for path in (data / "labelsTr").iterdir()}
    made = ablation.with_deleted(data, 0.5, "pieces", tmp_path / "made")
    assert ablation.with_deleted(data, 0.5, "pieces", made) == made
    assert {path.name: path.read_bytes() for path in (data / "labelsTr").iterdir()} == before
    old, new = read_dataset(data), read_dataset(made)
    left = []
    for name in old.cases:
        (was, grid), (now, same) = read_scribble(old, old.case(name)), read_scribble(new, new.case(name))
        assert (grid.affine == same.affine).all() and set(np.unique(now[now != was])) <= {UNLABELED}
        assert (was[now != was] == 0).all()
        left.append((now == 0).sum() / (was == 0).sum())
    assert 0.3 < np.mean(left) < 0.7
    assert list(ablation.DELETED.values()) == [(0.25, "sector"), (0.25, "pieces"), (0.5, "sector"), (0.5, "pieces")]
