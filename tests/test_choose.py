"""benchmarks/studies/choose.py: the line of a trained variant, and what it makes of a known answer."""

import choose
import numpy as np
import pytest
from common import read_csv
from small import small_dataset

from scribbleseg.data.case import load_volume
from scribbleseg.data.layout import read_dataset
from scribbleseg.inference.probabilities import Segmented
from scribbleseg.training.plan import read_plan
from scribbleseg.training.recipe import PRESETS

TINY = {"iterations": 2, "batch": 2, "augmentation": "papers"}


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """A data set without splits, and the study with one variant that takes seconds."""
    small_dataset(tmp_path / "data" / "squares", cases=4)
    monkeypatch.setattr(choose, "VARIANTS", {"papers": TINY})
    monkeypatch.setitem(PRESETS["fast"].whole, "size", 32)
    words = ["choose.py", "--data", "squares", "--split", "auto", "--datasets", str(tmp_path / "data")]
    words += ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    return tmp_path


def test_a_variant_is_trained_once_and_measured_on_the_patients_that_were_held_out(chosen):
    choose.main()
    run = chosen / "runs" / "squares-papers-s0"
    config, plan = read_plan(run)
    assert (config.preset, plan.method) == ("fast", "corral")
    assert (plan.recipe.iterations, plan.recipe.augmentation) == (2, "papers") and plan.fold.val
    weights = (run / "last.safetensors").read_bytes()
    choose.main()
    assert (run / "last.safetensors").read_bytes() == weights
    [line] = read_csv(chosen / "choose.csv")
    assert (line["variant"], line["data"], line["cases"]) == ("papers", "squares", str(len(plan.fold.val)))
    assert (chosen / "choose.md").read_text(encoding="utf-8").count("| papers |") == 1


def test_the_truth_scores_full_and_a_wrong_label_costs_what_is_drawn(chosen, monkeypatch):
    choose.main()
    run, data = chosen / "runs" / "squares-papers-s0", chosen / "data" / "squares"
    dataset = read_dataset(data)
    [case] = read_plan(run)[1].fold.val
    volume = load_volume(dataset, dataset.case(case))
    classes = np.arange(len(dataset.classes))[:, None, None, None]

    def answer(label):
        probs = np.where(classes == label, 0.9, 0.1 / (len(classes) - 1)).astype(np.float32)
        monkeypatch.setattr(choose, "segment", lambda *_, **__: Segmented(label, probs, None))
        return choose.measure("papers", data, run)

    right = answer(volume.truth)
    assert (right["dice_dense"], right["dice_labelled"]) == ("100.00", "100.00")
    assert float(right["dice_walker"]) > 80, "a walker from the strokes finds the squares"
    assert float(right["cross_entropy"]) == pytest.approx(-np.log(0.9), abs=1e-4)
    nothing = answer(np.zeros_like(volume.truth))
    assert (nothing["dice_dense"], nothing["dice_labelled"]) == ("0.00", "0.00")
    assert nothing["dice_walker"] == "0.00"
    other = next(name for name in dataset.cases if name != case)
    truth = load_volume(dataset, dataset.case(other)).truth
    monkeypatch.setattr(
        choose,
        "segment",
        lambda *_, **__: Segmented(truth, np.moveaxis(np.eye(len(classes), dtype=np.float32)[truth], -1, 0), None),
    )
    of_others = choose.measure("papers", data, run, [other, other])
    assert (of_others["cases"], of_others["dice_dense"]) == (2, "100.00")
    assert float(nothing["background"]) == pytest.approx(-np.log(0.9), abs=1e-4)
    assert float(nothing["foreground"]) == pytest.approx(-np.log(0.1 / (len(classes) - 1)), abs=1e-4)
