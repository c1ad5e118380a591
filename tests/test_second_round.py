"""benchmarks/studies/second_round.py: two halves of the patients, and soft labels from the one that did not see."""

import json
from types import SimpleNamespace

import numpy as np
import presets
import pytest
import second_round
import torch
from common import read_csv
from small import briefly, ringed

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.voxels import Batch
from scribbleseg.training.plan import read_plan


@pytest.mark.slow
def test_a_place_is_trained_in_two_rounds_and_put_beside_one(tmp_path, monkeypatch):
    ringed(tmp_path / "acdc")
    done = []
    monkeypatch.setattr(presets, "scribbleseg", briefly(presets.scribbleseg, done))
    monkeypatch.setattr(second_round, "scribbleseg", presets.scribbleseg)
    monkeypatch.setitem(second_round.PLACES, "acdc-final-0", ("acdc", "final", 0))
    words = ["--only", "acdc-final-0", "--datasets", tmp_path, "--runs", tmp_path / "runs", "--results", tmp_path]
    monkeypatch.setattr("sys.argv", ["second_round.py", *map(str, words)])
    (tmp_path / "best").mkdir()
    second_round.main()
    second_round.main()
    assert done == ["train", "train", "train", "predict", "evaluate"]
    plans = [read_plan(tmp_path / "runs" / "acdc-final-0" / f"half-{half}")[1] for half in (0, 1)]
    _, last = read_plan(tmp_path / "runs" / "acdc-final-0-s0")
    first, second = (set(plan.fold.train) for plan in plans)
    assert first and second and not first & second and first | second == set(last.fold.train)
    assert all(plan.method == "corral" for plan in plans) and last.method == "second_round:SecondRound"
    assert len(read_csv(tmp_path / "best" / "second-round.csv")) == 1
    assert (tmp_path / "best" / "second-round.md").read_text(encoding="utf-8").count("| acdc-final-0 |") == 1


def test_soft_labels_come_from_the_half_that_did_not_see_the_case(monkeypatch, tmp_path):
    halves = [SimpleNamespace(plan=SimpleNamespace(fold=SimpleNamespace(train=train))) for train in (["a"], ["b"])]
    monkeypatch.setenv(second_round.HALVES, str(tmp_path))
    monkeypatch.setattr(second_round, "load_models", lambda *_: halves)

    def segment(models, images, *_, **__):
        share = 0.25 if models == halves[1:] else 0.5
        return SimpleNamespace(probs=np.stack([np.full((1, 2, 2), share), np.full((1, 2, 2), 1 - share)]))

    monkeypatch.setattr(second_round, "segment", segment)
    method = second_round.SecondRound(torch.nn.Identity())
    grid, drawn = SimpleNamespace(spacing_mm=(1, 1, 1)), np.full((1, 2, 2), UNLABELED, np.uint8)
    volume = SimpleNamespace(case=SimpleNamespace(id="a"), image=None, grid=grid, scribble=drawn)
    targets = method.targets(volume)
    assert set(targets) == {"label", "q0", "q1"}
    assert (targets["q0"] == 50).all() and (targets["q1"] == 150).all()


def test_the_soft_labels_are_weighted_by_how_sure_they_are_and_count_between_the_strokes_alone(monkeypatch, tmp_path):
    """Four pixels: drawn, enclosed, unknown with q = (1, 0), outside of the slice. Only the third counts, by p[0]."""
    monkeypatch.setenv(second_round.HALVES, str(tmp_path))
    monkeypatch.setattr(second_round, "load_models", lambda *_: [])
    method = second_round.SecondRound(torch.nn.Identity())
    logits = torch.tensor([[[[0.0, 1.0, 2.0, 3.0]], [[1.0, 0.0, 0.0, 0.0]]]], requires_grad=True)
    none = UNLABELED
    maps = {"enclosure": [none, 0, none, none], "q0": [0, 200, 200, none], "q1": [200, 0, 0, none]}
    maps = {name: torch.tensor([[value]]) for name, value in maps.items()}
    terms = method.losses(Batch(logits, torch.tensor([[[1, none, none, none]]]), maps), torch.tensor(0.0))
    wrong = [np.log1p(np.exp(-value)) for value in (1.0, 1.0, 2.0)]
    assert terms["pce"].item() == pytest.approx(wrong[0])
    assert terms["enclosure"].item() == pytest.approx(wrong[1])
    assert terms["second"].item() == pytest.approx(wrong[2] / 2), "a mean over two unknown pixels, one of weight 0"
    terms["second"].backward()
    assert (logits.grad[0, :, 0] != 0).tolist() == [[False, False, True, False]] * 2


def test_patients_are_parted_and_not_frames(tmp_path, monkeypatch):
    folder = ringed(tmp_path / "acdc")
    about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    train = second_round.read_dataset(folder).fold("final", 0).train
    about["groups"] = {case: "first" if number < 2 else f"p{number}" for number, case in enumerate(train)}
    (folder / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    monkeypatch.setitem(second_round.PLACES, "acdc-final-0", ("acdc", "final", 0))
    monkeypatch.setattr(second_round, "scribbleseg", lambda words: None)
    made = second_round.halves(tmp_path, "acdc-final-0", tmp_path / "runs")
    parts = [set(fold.train) for fold in second_round.read_dataset(made / "data").folds("halves")]
    assert parts[0] | parts[1] == set(train) and not parts[0] & parts[1]
    assert any({*train[:2]} <= part for part in parts)
    assert [[case in part for part in parts].index(True) for case in train[1:]] == [0, 1, 0][: len(train) - 1], (
        "in turn, so that both halves have all pathologies of a data set that is sorted by them"
    )


def test_an_old_split_in_the_place_of_a_new_one_is_named(tmp_path):
    folds = [{"name": "half 0", "train": ["a"], "val": [], "test": []}]
    data = ringed(tmp_path / "acdc")
    made = second_round.with_split(data, tmp_path / "made", "halves", folds)
    assert second_round.with_split(data, tmp_path / "made", "halves", folds) == made
    with pytest.raises(SystemExit, match="halves.json: has other folds .* Remove"):
        second_round.with_split(data, tmp_path / "made", "halves", [folds[0] | {"train": ["b"]}])
