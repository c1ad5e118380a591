"""A class in 2 % of the slices is learnt, because every batch shows it (docs/speed.md has the score without that)."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from small import save

from scribbleseg.config import Predict, Train
from scribbleseg.evaluation.metrics import dice
from scribbleseg.inference.predict import predict
from scribbleseg.training.train import train

CASES, SLICES, SIDE = 25, 4, 32
RARE = (3, 17)  # the cases that show a dot, in one slice each: 2 of 100 slices


def write_case(folder: Path, name: str, seed: int, dots: int) -> np.ndarray:
    """A bright square (class 1) in every slice and, in the first `dots`, a dark one (class 2); returns the mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((SIDE, SIDE, SLICES), np.uint8)
    for number in range(SLICES):
        row, column = rng.integers(3, 10, 2)
        mask[row : row + 9, column : column + 9, number] = 1
        if number < dots:
            row, column = rng.integers(18, 24, 2)
            mask[row : row + 7, column : column + 7, number] = 2
    image = rng.normal(100, 12, mask.shape) + np.array([0, 60, -60])[mask]
    save(folder / "imagesTr" / f"{name}_0000.nii.gz", image.astype(np.int16))
    strokes = np.full(mask.shape, 3, np.uint8)
    strokes[1, 2:30], strokes[2:30, 15] = 0, 0
    for number in range(SLICES):
        for value in (1, 2):
            rows, columns = np.nonzero(mask[:, :, number] == value)
            if len(rows):
                middle = int(np.median(rows))
                strokes[middle, columns.min() + 1 : columns.max(), number] = value
                strokes[rows.min() + 1 : rows.max(), int(np.median(columns)), number] = value
    save(folder / "labelsTr" / f"{name}.nii.gz", strokes)
    return mask


@pytest.mark.slow
def test_a_class_in_two_of_a_hundred_slices_is_learnt(tmp_path):
    data = tmp_path / "data"
    for number in range(CASES):
        write_case(data, f"case{number:02d}", number, dots=number in RARE)
    labels = {"background": 0, "square": 1, "dot": 2, "ignore": 3}
    info = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": CASES, "file_ending": ".nii.gz"}
    (data / "dataset.json").write_text(json.dumps(info), encoding="utf-8")
    truth = write_case(tmp_path / "new", "new", 100, dots=SLICES)
    settings = {"preset": "fast", "method": "pce", "size": SIDE, "iterations": 500, "device": "cpu"}
    run = train(Train(data, tmp_path / "run", **settings))
    mask = predict(Predict(run, tmp_path / "new" / "imagesTr", tmp_path / "masks"))[0]
    assert dice(np.asarray(nibabel.load(mask).dataobj) == 2, truth == 2) > 0.5
