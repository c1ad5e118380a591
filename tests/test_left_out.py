"""benchmarks/studies/left_out.py: two pathologies are left out of each training, and each of them judges it."""

import json

import left_out
import pytest
import torch
from common import read_csv
from small import small_dataset

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.layout import read_dataset
from scribbleseg.training.augment import own_augmentation
from scribbleseg.training.plan import read_plan


@pytest.fixture
def data(tmp_path):
    """Five cases, each a pathology of its own."""
    folder = small_dataset(tmp_path / "data", cases=5)
    cases = read_dataset(folder).cases
    (folder / "splits").mkdir(exist_ok=True)
    folds = [{"train": [case for case in cases if case != own], "val": [], "test": [own]} for own in cases]
    (folder / "splits" / "cv5.json").write_text(json.dumps(folds), encoding="utf-8")
    return folder


def test_every_training_leaves_out_the_two_that_judge_it(data, tmp_path, monkeypatch):
    judged = []

    def measure(name, folder, run, cases):
        judged.append((set(cases), read_plan(run)[1]))
        return dict.fromkeys(left_out.choose.COLUMNS, "0") | {"variant": name}

    monkeypatch.setattr(left_out.choose, "measure", measure)
    monkeypatch.setattr(left_out, "VARIANTS", {"papers": "papers"})
    tiny = {"preparation": "slices", "iterations": 1, "batch": 2, "size": 32}
    whole = left_out.ss.train
    monkeypatch.setattr(left_out.ss, "train", lambda *where, **recipe: whole(*where, **recipe | tiny))
    words = ["--data", data, "--runs", tmp_path / "runs", "--results", tmp_path]
    monkeypatch.setattr("sys.argv", ["left_out.py", *map(str, words)])
    left_out.main()
    assert {plan.recipe.augmentation for _, plan in judged} == {"papers"}
    everyone = set(read_dataset(data).cases)
    assert len(judged) == 2 * len(left_out.GROUPS)
    for (first, plan), (second, same) in zip(judged[::2], judged[1::2]):
        assert len(first) == len(second) == 1 and plan.fold == same.fold
        assert set(plan.fold.train) == everyone - first - second
    rows = [(row["left_out"], row["judged_by"]) for row in read_csv(tmp_path / "left-out.csv")]
    assert rows == [
        ("0 and 1", "0"),
        ("0 and 1", "1"),
        ("3 and 4", "3"),
        ("3 and 4", "4"),
    ]


def test_the_means_are_those_of_the_pathologies_that_judged():
    lines = [
        {
            "variant": "papers",
            "judged_by": judge,
            "cross_entropy": entropy,
            "dice_labelled": "90",
            "dice_walker": walker,
        }
        | {"dice_dense": "80.00"}
        for judge, entropy, walker in ((0, "0.1000", "70.00"), (1, "0.3000", "71.00"))
    ]
    assert left_out.means(lines) == [["papers", "0, 1", "0.200", "90.0", "70.5", "80.0"]]


def test_every_augmentation_of_the_study_returns_what_came():
    image = torch.rand(3, 1, 24, 20)
    labels = torch.randint(0, 4, (3, 2, 24, 20))
    for name in left_out.VARIANTS.values():
        if ":" in name:
            moved, found = own_augmentation(name)(image, labels)
            assert not torch.equal(moved, image) and set(found.unique().tolist()) <= {0, 1, 2, 3, UNLABELED}, name
