"""benchmarks/preset_choice.py: it trains what is missing, skips what is done, and says what the runs' own files say."""

import csv
import json
import sys
from itertools import pairwise

import numpy as np
import preset_choice
import pytest
import torch
from small import small_dataset

from scribbleseg.config import Train
from scribbleseg.data.dataset import read_dataset
from scribbleseg.data.volume import read_label
from scribbleseg.plan import make_plan


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name, dense in (("acdc", True), ("mscmr", False)):
        data = small_dataset(tmp_path / "datasets" / name, dense=dense)
        (data / "splits").mkdir()
        for split in ("tuning", "25-5-15"):
            rows = [{"name": split, "train": [f"case.{index} a" for index in range(4)], "val": ["case.4 a", "case.5 a"], "test": []}]
            (data / "splits" / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    short = ["--method", "pce", "--size", "32", "--batch", "4", "--iterations"]
    monkeypatch.setattr(preset_choice, "CANDIDATES", {"short": [*short, "2"], "longer": [*short, "3", "--optimizer", "adam", "--lr", "0.002"]})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def choose(monkeypatch, place, *words):
    monkeypatch.setattr(sys, "argv", ["preset_choice.py", "--results", str(place / "results"), "--seeds", "0", *words])
    (place / "results").mkdir(exist_ok=True)
    preset_choice.main()
    with open(place / "results" / "preset-choice.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_missing_runs_are_trained_and_finished_ones_skipped(place, monkeypatch):
    rows = choose(monkeypatch, place, "--candidates", "short")
    assert [(row["data"], row["split"], row["iterations"], row["optimizer"]) for row in rows] == [(*where, "2", "sgd") for where in preset_choice.PLACES]
    assert [bool(row["mean"]) for row in rows] == [True, True, False], "what the held-out subjects say is not shown"
    weights = place / "runs" / "preset-choice" / "acdc-tuning-short-s0" / "last.safetensors"
    made = weights.stat().st_mtime_ns
    monkeypatch.setattr(preset_choice, "PLACES", preset_choice.PLACES[:1])
    rows = choose(monkeypatch, place)
    assert [row["candidate"] for row in rows] == ["short", "longer"] and weights.stat().st_mtime_ns == made
    assert "| longer | 3 × 4 | adam 0.002 |" in (place / "results" / "preset-choice.md").read_text(encoding="utf-8")
    log = [json.loads(line) for line in (place / "runs" / "preset-choice" / "acdc-tuning-longer-s0" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert float(rows[1]["mean"]) == pytest.approx(100 * log[-1]["val_mean_dice"], abs=0.051)
    assert float(rows[1]["minutes"]) == pytest.approx(sum(entry["seconds_per_iteration"] for entry in log) / 60, abs=0.051)


def test_a_run_that_is_not_at_its_end_is_not_shown(place, monkeypatch):
    choose(monkeypatch, place, "--candidates", "short")
    for log in (place / "runs" / "preset-choice").glob("*/log.jsonl"):
        log.write_text(log.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="no finished run"):
        choose(monkeypatch, place, "--table-only")


def test_foreground_is_far_outside_the_boxes_round_the_scribbles(trained, small, monkeypatch):
    """A network that says `square` everywhere: what is far is what lies outside the box of the scribbles, counted by hand."""
    monkeypatch.setattr(preset_choice, "MARGIN", 3)

    def everywhere(network, image, *rest):
        found = np.zeros((3, *image.shape[1:]), np.float32)
        found[1] = 1
        return found

    monkeypatch.setattr(preset_choice, "predict_volume", everywhere)
    dataset = read_dataset(small)
    label, _ = read_label(dataset.case("case.0 a").scribble)
    drawn = np.argwhere((label == 1) | (label == 2))
    sides = [min(high + 3, size - 1) - max(low - 3, 0) + 1 for low, high, size in zip(drawn.min(0), drawn.max(0), label.shape)][1:]
    assert preset_choice.far_away(trained, dataset) == pytest.approx(1 - np.prod(sides) / np.prod(label.shape[1:]))
    monkeypatch.setattr(preset_choice, "predict_volume", lambda network, image, *rest: torch.eye(3)[0].numpy()[:, None, None, None] * np.ones((1, *image.shape[1:])))
    assert preset_choice.far_away(trained, dataset) == 0, "nothing is predicted"


def test_the_preset_is_one_of_the_candidates(small):
    kinds, recipes = {"lr": float, "batch": int, "iterations": int}, []
    for words in preset_choice.CANDIDATES.values():
        settings = {key[2:]: value for key, value in list(pairwise(words))[::2]}
        recipes.append(make_plan(Train(small, "run", **{key: kinds.get(key, str)(value) for key, value in settings.items()})).recipe)
    assert make_plan(Train(small, "run", preset="fast")).recipe in recipes
