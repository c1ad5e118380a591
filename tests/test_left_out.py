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
    monkeypatch.setattr(left_out, "VARIANTS", {"papers": "upright"})
    tiny = {"preparation": "slices", "iterations": 1, "batch": 2, "size": 32}
    whole = left_out.ss.train
    monkeypatch.setattr(left_out.ss, "train", lambda *where, **recipe: whole(*where, **recipe | tiny))
    words = ["--data", data, "--runs", tmp_path / "runs", "--results", tmp_path]
    monkeypatch.setattr("sys.argv", ["left_out.py", *map(str, words)])
    left_out.main()
    assert {plan.recipe.augmentation for _, plan in judged} == {"upright"}
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
        for judge, entropy, walker in ((0, "0.1000", "70.00"), (1, "0.3000", "71.00"), (3, "0.5000", "75.00"))
    ]
    assert left_out.means(lines) == [["papers", "0, 1, 3", "0.300", "90.0", "72.0", "80.0"]]


def moved(name):
    """A square of 20 pixels in a slice of 64, 400 times under an augmentation: its sides along the axes of its cloud,
    mirrored or not."""
    image = torch.zeros(400, 1, 64, 64)
    image[:, :, 22:42, 22:42] = 1
    image[:, :, 22:32, 22:27] = 2  # a corner, to see flips
    labels = (image > 0.5).long().expand(-1, 2, -1, -1)
    torch.manual_seed(0)
    image, labels = own_augmentation(name)(image, labels)
    assert set(labels.unique().tolist()) <= {0, 1, UNLABELED}
    return image, labels[:, 0] == 1


def sides(inside):
    """The standard deviations along the two axes of each cloud of pixels, as shares of those of the square: [N, 2]."""
    found = []
    for part in inside:
        points = part.nonzero().float()
        found.append(torch.linalg.eigvalsh(torch.cov(points.T)).clamp(min=0).sqrt())
    return torch.stack(found) / (20 / 12**0.5)


@pytest.mark.parametrize("name", ["scaled", "turned", "grey", "stretched"])
def test_the_augmentations_of_the_study_do_what_they_say(name):
    image, inside = moved(f"left_out:{name}")
    small, large = sides(inside).unbind(1)
    assert 0.65 < small.min() < 0.78 and 1.25 < large.max() < 1.5, "1 / 1.4 to 1.4 times"
    assert ((large / small).max() > 1.5) == (name != "scaled"), "one scale keeps a square a square"
    area = (small * large).log()
    assert area.std() > 0.15, "larger and smaller, not only another shape"
    brightest = image.flatten(1).max(1).values
    assert (abs(brightest - 2) < 0.01).float().mean() > 0.5 if name != "grey" else brightest.std() > 0.1


def test_bulges_change_sizes_inside_of_a_slice():
    _, inside = moved("left_out:bulged")
    small, large = sides(inside).unbind(1)
    assert (large / small).max() > 1.2, "scales alone keep a square a square"


def test_half_of_the_slices_are_turned_or_flipped_where_it_says_so():
    image = torch.zeros(400, 1, 65, 65)
    image[:, :, 12, 32] = 1  # above the middle
    shares = {}
    for name in ("scaled", "turned", "stretched"):
        torch.manual_seed(0)
        found, _ = own_augmentation(f"left_out:{name}")(image, torch.zeros(400, 1, 65, 65, dtype=torch.long))
        shares[name] = (found[:, 0, 34:].flatten(1).sum(1) > found[:, 0, :32].flatten(1).sum(1)).float().mean()
    assert 0.1 < shares["scaled"] and 0.1 < shares["turned"] and shares["stretched"] < 0.02, shares
