"""benchmarks/studies/dense.py: the preset's recipe on dense masks, scored once and put beside the strokes."""

import dense
import numpy as np
import presets
import pytest
import torch
from common import read_csv, write_csv
from small import briefly, ringed, small_dataset

from scribbleseg.data.case import load_volume
from scribbleseg.data.layout import read_dataset
from scribbleseg.training.plan import read_plan


@pytest.mark.slow
def test_a_place_is_trained_on_masks_and_put_beside_the_strokes(tmp_path, monkeypatch):
    ringed(tmp_path / "acdc")
    done = []
    monkeypatch.setattr(presets, "scribbleseg", briefly(presets.scribbleseg, done))
    monkeypatch.setitem(dense.PLACES, "acdc-final-0", ("acdc", "final", 0))
    words = ["--only", "acdc-final-0", "--datasets", tmp_path, "--runs", tmp_path / "runs", "--results", tmp_path]
    monkeypatch.setattr("sys.argv", ["dense.py", *map(str, words)])
    (tmp_path / "best").mkdir()
    dense.main()
    dense.main()
    assert done == ["train", "predict", "evaluate"]
    _, plan = read_plan(tmp_path / "runs" / "acdc-final-0-s0")
    assert (plan.method, plan.recipe.augmentation) == ("dense:Dense", "papers")
    assert len(read_csv(tmp_path / "best" / "dense.csv")) == 1
    page = (tmp_path / "best" / "dense.md").read_text(encoding="utf-8")
    assert page.count("| acdc-final-0 |") == 1 and "| – | – | – |" in page


def test_the_labels_are_the_masks(tmp_path):
    dataset = read_dataset(small_dataset(tmp_path / "data", cases=1))
    volume = load_volume(dataset, dataset.case(next(iter(dataset.cases))))
    method = dense.Dense(torch.nn.Identity())
    assert set(method.targets(volume)) == {"label"}
    assert np.array_equal(method.targets(volume)["label"], volume.truth)


def test_the_cells_are_means_in_percent(tmp_path):
    scores = [["a", "core", 0.5, 2.0], ["b", "core", 0.7, 4.0]]
    rows = [[*row, 1.0, "voxel", 0, 0, 2.0] for row in scores]
    head = ["case", "class", "dice", "hd95", "assd", "unit", "missing", "spurious", "penalised_hd95"]
    write_csv(tmp_path / "scores.csv", [dict(zip(head, row)) for row in rows], head)
    assert dense.cells(tmp_path / "scores.csv") == ["60.0", "60.0", "3.0"]
    assert dense.cells(tmp_path / "none.csv") == ["–", "–", "–"]
