"""benchmarks/studies/preset_choice.py: it trains what is missing, skips what is done, and says what the runs' own files
say."""

import csv
import json
import sys

import numpy as np
import preset_choice
import pytest
from small import plan_of, small_dataset

from scribbleseg.config import Train
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.volume import read_label
from scribbleseg.training import loop
from scribbleseg.training.plan import read_plan
from scribbleseg.training.train import train


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name, dense in (("acdc", True), ("mscmr", False)):
        data = small_dataset(tmp_path / "datasets" / name, dense=dense)
        (data / "splits").mkdir()
        for split in ("tuning", "25-5-15"):
            rows = [
                {
                    "name": split,
                    "train": [f"case.{index} a" for index in range(4)],
                    "val": ["case.4 a", "case.5 a"],
                    "test": [],
                }
            ]
            (data / "splits" / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    short = {"method": "pce", "size": 32, "batch": 4, "iterations": 2}
    monkeypatch.setattr(
        preset_choice,
        "CANDIDATES",
        {"short": short, "longer": {**short, "iterations": 3, "optimizer": "adam", "lr": 0.002}},
    )
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
    assert [(row["data"], row["split"], row["iterations"], row["optimizer"]) for row in rows] == [
        (*where, "2", "sgd") for where in preset_choice.PLACES
    ]
    assert [bool(row["mean"]) for row in rows] == [True, True, False], "what the held-out subjects say is not shown"
    weights = place / "runs" / "preset-choice" / "acdc-tuning-short-s0" / "last.safetensors"
    made = weights.stat().st_mtime_ns
    monkeypatch.setattr(preset_choice, "PLACES", preset_choice.PLACES[:1])
    with monkeypatch.context() as patch:
        patch.setattr(preset_choice, "scribbleseg", lambda *_: pytest.fail("a finished run was started again"))
        choose(monkeypatch, place, "--candidates", "short")
    rows = choose(monkeypatch, place)
    assert [row["candidate"] for row in rows] == ["short", "longer"] and weights.stat().st_mtime_ns == made
    assert "| longer | 32 | 3 × 4 | adam 0.002 |" in (place / "results" / "preset-choice.md").read_text(
        encoding="utf-8"
    )
    run = place / "runs" / "preset-choice" / "acdc-tuning-longer-s0"
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert float(rows[1]["mean"]) == pytest.approx(100 * log[-1]["val_mean_dice"], abs=0.051)
    (run / "log.jsonl").write_text(
        "".join(json.dumps({**log[-1], "iteration": at, "seconds_per_iteration": 60.0 * at}) + "\n" for at in (1, 3)),
        encoding="utf-8",
    )
    assert choose(monkeypatch, place)[1]["minutes"] == "7.0", "1 iteration of 1 minute, 2 of 3"


def test_an_interrupted_run_is_not_shown_and_then_carried_on(place, monkeypatch):
    monkeypatch.setattr(preset_choice, "PLACES", preset_choice.PLACES[:1])
    run = place / "runs" / "preset-choice" / "acdc-tuning-longer-s0"
    steps = []
    validate = loop.validate

    def interrupted(state, *rest):
        steps.append(state.iteration)
        if state.iteration == 2:
            raise KeyboardInterrupt
        return validate(state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(
                Train(
                    place / "datasets" / "acdc",
                    run,
                    split="tuning",
                    checkpoint_every=0,
                    **preset_choice.CANDIDATES["longer"],
                )
            )
    with pytest.raises(SystemExit, match="no finished run"):
        choose(monkeypatch, place, "--table-only", "--candidates", "longer")
    (row,) = choose(monkeypatch, place, "--candidates", "longer")
    assert steps == [1, 2] and row["iterations"] == "3"
    log = [json.loads(line)["iteration"] for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert log == [1, 2, 3]


def test_a_run_with_other_settings_is_refused(place, monkeypatch):
    monkeypatch.setattr(preset_choice, "PLACES", preset_choice.PLACES[:1])
    choose(monkeypatch, place, "--candidates", "short")
    monkeypatch.setitem(preset_choice.CANDIDATES["short"], "lr", 0.5)
    with pytest.raises(SystemExit, match="has other settings"):
        choose(monkeypatch, place, "--candidates", "short")


def test_foreground_is_far_outside_the_boxes_round_the_scribbles(trained, small, monkeypatch):
    """A network that says `square` everywhere: what is far is what lies outside the box of the scribbles, counted by
    hand."""
    monkeypatch.setattr(preset_choice, "MARGIN", 3)

    def everywhere(network, image, *rest):
        found = np.zeros((3, *image.shape[1:]), np.float32)
        found[1] = 1
        return found

    monkeypatch.setattr(preset_choice, "predict_volume", everywhere)
    monkeypatch.setattr(preset_choice, "EVERY", 2)
    dataset, shares = read_dataset(small), []
    names = read_plan(trained)[1].fold.train[::2]
    for name in names:
        label, _ = read_label(dataset.case(name).scribble)
        drawn = np.argwhere((label == 1) | (label == 2))
        sides = [
            min(high + 3, size - 1) - max(low - 3, 0) + 1
            for low, high, size in zip(drawn.min(0), drawn.max(0), label.shape)
        ][1:]
        shares.append(1 - np.prod(sides) / np.prod(label.shape[1:]))
    assert len(shares) > 1 and preset_choice.far_away(trained, dataset) == pytest.approx(np.mean(shares))
    monkeypatch.setattr(preset_choice, "predict_volume", lambda network, image, *rest: 1 - everywhere(network, image))
    assert preset_choice.far_away(trained, dataset) == 1, "nothing but background: no better than all of it far away"


def test_the_preset_is_the_chosen_candidate(small):
    chosen = plan_of(Train(small, "run", **preset_choice.CANDIDATES["onecycle-1e-3"]))
    assert plan_of(Train(small, "run", preset="fast")) == chosen
