"""benchmarks/studies/annotator.py: what is drawn in each order, that held-out patients stay unseen, and carrying on."""

import annotator
import numpy as np
import pytest
from common import read_csv
from small import small_dataset

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import read_scribble
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.volume import read_label
from scribbleseg.draw.suggest import next_slice
from scribbleseg.training.plan import read_plan
from scribbleseg.training.recipe import PRESETS

ENTROPY = {"a": [0.1, 0.9, 0.8], "b": [0.2, 0.3, 0.7], "c": [0.6, 0.5, 0.4]}
PLACES = [(name, index) for index in (1, 0, 2) for name in "bca"]


def test_the_least_sure_slice_without_strokes_comes_next():
    least_sure = annotator.least_sure
    assert least_sure(ENTROPY, {}) == least_sure(ENTROPY, {}, spread=True) == ("a", 1)
    assert least_sure(ENTROPY, {"a": {1}}) == ("a", 2) and least_sure(ENTROPY, {"a": {1}}, spread=True) == ("b", 2)
    assert least_sure({"a": [0.5]}, {"a": {0}}, spread=True) is None and least_sure({}, {}) is None
    full = {"a": {0, 1, 2}, "b": {2}, "c": {0}}  # a case that is drawn throughout does not hold up the others
    assert least_sure(ENTROPY, full, spread=True)[0] == "c"


def test_the_page_suggests_random_slices_and_takes_cases_in_turn():
    """Until every slice is drawn, each once; no case is ever two slices ahead of one that has slices left."""
    depth = {"a": 3, "b": 5, "c": 2}
    drawn = {name: set() for name in depth}
    first = []
    while (found := next_slice(drawn, depth.__getitem__)) is not None:
        assert found == next_slice(drawn, depth.__getitem__), "it stays until something is drawn"
        name, index = found
        assert index not in drawn[name]
        assert len(drawn[name]) == min(len(drawn[other]) for other in depth if len(drawn[other]) < depth[other])
        drawn[name].add(index)
        first.append(found)
    assert {name: len(slices) for name, slices in drawn.items()} == depth and next_slice({}, len) is None
    many = [next_slice({"a": range(count), "b": range(count)}, lambda _: 80) for count in range(40)]
    assert len({index for _, index in many}) > 20 and {name for name, _ in many} == {"a", "b"}


def test_the_middle_of_the_longest_gap_comes_next():
    sure = {"a": [0.2] * 9, "b": [0.1] * 8 + [0.9], "c": [0.15] * 3}
    found = [annotator.in_gaps(sure, {"a": drawn}) for drawn in ({0}, {4}, range(9))]
    assert found == [("b", 4)] * 3  # the least sure of the undrawn ones
    all_drawn = {"b": {0}, "c": {1}}
    assert annotator.in_gaps(sure, {"a": {4, 7}, **all_drawn})[0] == "b"
    for drawn, expected in (({2}, 5), ({4, 6}, 1), ({1, 4}, 6)):
        assert annotator.in_gaps({"a": sure["a"]}, {"a": drawn}) == ("a", expected)
    assert annotator.in_gaps({"b": sure["b"]}, {"b": {2, 5}}) == ("b", 7)
    assert annotator.in_gaps({"a": [0.5]}, {"a": {0}}) is None and annotator.in_gaps({}, {}) is None


def test_an_order_is_held_against_the_random_one_seed_by_seed(monkeypatch):
    monkeypatch.setattr(annotator, "ROUNDS", (8, 16, 32))
    dice = {"random": [(50, 60, 70), (50, 62, 70)], "turns": [(50, 62, 70), (50, 62, 73)], "gaps": [(50, 80, 80)]}
    lines = [
        {"order": order, "seed": seed, "slices": slices, "dice": value}
        for order, seeds in dice.items()
        for seed, values in enumerate(seeds)
        for slices, value in zip((8, 16, 32), values)
    ]
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in annotator.gains(lines).splitlines()]
    assert table[2:] == [["turns − random", "+1.0", "+1.5", "+1.2 (+1.0 / +1.5)", "± 3.2"]]


@pytest.mark.parametrize(
    "order, expected",
    [
        ("random", PLACES[:4]),
        ("turns", [("b", 1), ("a", 0), ("c", 1), ("a", 2)]),
        ("unsure", [("b", 1), ("a", 1), ("a", 2), ("b", 2)]),
        ("spread", [("b", 1), ("a", 1), ("c", 0), ("a", 2)]),
        ("gaps", [("b", 1), ("a", 1), ("c", 1), ("a", 2)]),
    ],
)
def test_an_order_keeps_what_was_drawn_and_adds(order, expected):
    assert annotator.choose(order, PLACES, [("b", 1)], ENTROPY, 4) == expected
    assert sorted(annotator.choose(order, PLACES, [("b", 1)], ENTROPY, 99)) == sorted(PLACES)


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Eight cases, of which six may be seen; two of these are held out."""
    small_dataset(tmp_path / "data" / "squares", cases=8)
    for name, value in {
        "ROUNDS": (2, 4),
        "HELD_OUT": 2,
        "POOL": 3,
        "FIRST_ITERATIONS": 3,
        "NEXT_ITERATIONS": 2,
    }.items():
        monkeypatch.setattr(annotator, name, value)
    monkeypatch.setitem(PRESETS["fast"].whole, "size", 32)
    monkeypatch.setitem(PRESETS["fast"].recipe, "batch", 2)
    words = [
        "annotator.py",
        "--data",
        "squares",
        "--split",
        "final",
        "--seeds",
        "1",
        "--datasets",
        str(tmp_path / "data"),
    ]
    monkeypatch.setattr(
        "sys.argv",
        [*words, "--runs", str(tmp_path / "runs"), "--results", str(tmp_path), "--orders", "random", "spread"],
    )
    return tmp_path


@pytest.mark.slow
def test_rounds_are_drawn_trained_scored_and_not_done_twice(study, monkeypatch):
    annotator.main()
    dataset = read_dataset(study / "data" / "squares")
    pool, held = annotator.divide(dataset, "final", 1)
    fold = dataset.fold("final", 0)
    assert len(pool) == 3 and len(held) == 2 and not set(pool) & set(held)
    assert not (set(pool) | set(held)) & {*fold.val, *fold.test}
    lines = read_csv(study / "squares.csv")
    assert [(row["order"], row["slices"]) for row in lines] == [
        (order, count) for order in ("random", "spread") for count in ("2", "4")
    ]
    assert (study / "squares.png").stat().st_size > 1000
    places = annotator.shuffled(dataset, pool, 1)
    runs = study / "runs" / "squares" / "s1"
    for folder, before in (
        (runs / "first", None),
        (runs / "random-4", runs / "first"),
        (runs / "spread-4", runs / "first"),
    ):
        config, plan = read_plan(folder / "run")
        assert config.init == (before / "run" if before else None) and plan.recipe.iterations == (2 if before else 3)
        assert set(plan.fold.train) <= set(pool) and not plan.fold.val
    drawn = read_dataset(runs / "random-4" / "data")
    for name in drawn.cases:
        label, _ = read_scribble(drawn, drawn.case(name))
        whole, _ = read_scribble(dataset, dataset.case(name))
        for index in range(len(whole)):
            expected = whole[index] if (name, index) in places[:4] else np.full_like(whole[index], UNLABELED)
            assert np.array_equal(label[index], expected)

    def refuse(*_, **__):
        raise AssertionError("was done before")

    for name in ("score", "mean_entropy", "draw"):
        monkeypatch.setattr(annotator, name, refuse)
    monkeypatch.setattr(annotator.ss, "train", refuse)
    annotator.main()
    assert read_csv(study / "squares.csv") == lines


def test_the_truth_scores_full(study, monkeypatch):
    dataset = read_dataset(study / "data" / "squares")
    _, held = annotator.divide(dataset, "final", 1)

    def truths(*_, **__):
        for case in map(dataset.case, held):
            label, grid = read_label(case.truth)
            yield case, annotator.Segmented(label.astype(np.uint8), None, None), grid

    monkeypatch.setattr(annotator, "look", truths)
    assert annotator.score(dataset, held, study) == 1
