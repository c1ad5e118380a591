"""benchmarks/studies/where.py: class by class, third by third, and what the table has of other runs stays."""

import numpy as np
import where
from common import read_csv
from small import small_dataset

import scribbleseg as ss


def test_a_class_has_its_volume_and_the_dice_of_each_third_of_the_slices():
    truth = np.zeros((8, 4, 4), np.uint8)
    truth[1:7, :2] = 1  # six slices of eight pixels
    found = truth.copy()
    found[5:7, 0] = 0  # half of the last third is missed
    found[0, 0] = 1  # and four pixels lie in a slice without foreground
    whole, volume, first, middle, last = where.numbers(found, truth, 1)
    assert (first, middle, last) == (1.0, 1.0, 2 / 3)
    assert volume == 44 / 48 and whole == 2 * 40 / (44 + 48)
    assert np.isnan(where.numbers(found, truth, 2)).all()


def test_the_table_has_a_line_per_class_and_one_for_all(tmp_path, monkeypatch):
    data = small_dataset(tmp_path / "small")
    for seed in (1, 0):
        run = tmp_path / f"run{seed}"
        ss.train(data, run, method="pce", size=32, batch=4, iterations=30, seed=seed, device="cpu")
        ss.predict(run, data, run / "predictions")
        monkeypatch.setattr("sys.argv", ["where.py", str(run), "--datasets", str(tmp_path), "--results", str(tmp_path)])
        where.main()
    lines = read_csv(tmp_path / "where.csv")
    assert [(line["seed"], line["class"]) for line in lines] == [
        (s, c) for s in "01" for c in ("all", "core", "square")
    ]
    every, core, square = lines[:3]
    assert abs(float(every["dice"]) - (float(core["dice"]) + float(square["dice"])) / 2) < 0.11
    assert (
        every["near"] and not core["near"] and "| small | final | 0 | 1 | all |" in (tmp_path / "where.md").read_text()
    )
