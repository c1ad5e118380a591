"""`predict --largest`: by hand, and from the verb to the file."""

import json

import nibabel
import numpy as np
from small import small_dataset

import scribbleseg as ss
from scribbleseg.inference import probabilities
from scribbleseg.inference.pieces import keep_largest


def test_only_the_largest_piece_of_each_class_stays():
    mask = np.array(
        [
            [1, 1, 0, 2, 0, 1],
            [0, 0, 1, 0, 0, 1],
            [3, 0, 0, 0, 2, 2],
        ],
        np.uint8,
    )
    keep_largest(mask)
    assert mask.tolist() == [
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [3, 0, 0, 0, 2, 2],
    ]


def test_pieces_of_a_volume_hang_together_across_slices():
    mask = np.zeros((3, 4, 4), np.int16)
    mask[:, 1, 1], mask[0, 3, 2:] = 1, 1
    keep_largest(mask)
    assert mask[:, 1, 1].tolist() == [1, 1, 1] and mask.sum() == 3
    empty = np.zeros((2, 3, 3), np.uint8)
    keep_largest(empty)
    assert not empty.any()


def test_predict_writes_the_largest_pieces_if_asked(tmp_path, monkeypatch):
    data = small_dataset(tmp_path / "data", cases=3)
    run = ss.train(data, tmp_path / "run", method="pce", iterations=1, size=32, batch=2)
    plain = probabilities.segment

    def two_pieces(*args, **kwargs):
        found = plain(*args, **kwargs)
        found.label[:] = 0
        found.label[0, :2, :2], found.label[0, 8, 8] = 1, 1
        return found

    monkeypatch.setattr("scribbleseg.inference.predict.segment", two_pieces)
    counts = {}
    for largest in (False, True):
        [file] = ss.predict(run, data, tmp_path / f"out{largest}", largest=largest)
        counts[largest] = int((np.asarray(nibabel.load(file).dataobj) == 1).sum())
        assert json.loads((file.parent / "made_by.json").read_text())["largest"] is largest
    assert counts == {False: 5, True: 4}
