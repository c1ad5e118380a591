"""train --init: a run starts from the weights of another."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from small import small_dataset

from scribbleseg.config import Train
from scribbleseg.core.errors import InputError
from scribbleseg.training.checkpoint import write_weights
from scribbleseg.training.plan import read_plan
from scribbleseg.training.train import train

TINY = {"size": 32, "batch": 4, "precision": "float32", "device": "cpu"}


def test_a_warm_start_begins_at_the_other_runs_weights(small, trained, tmp_path, monkeypatch):
    kept = {}
    monkeypatch.setattr(
        "scribbleseg.training.run_folder.write_weights",
        lambda run, name, network, notes: (
            kept.setdefault(notes["iteration"], {key: value.clone() for key, value in network.state_dict().items()}),
            write_weights(run, name, network, notes),
        ),
    )
    train(Train(small, tmp_path / "run", method="pce", iterations=2, init=str(trained), **TINY))
    theirs = load_file(trained / "last.safetensors")
    assert all(torch.equal(kept["0"][name], value) for name, value in theirs.items())
    assert not all(torch.equal(kept["2"][name], value) for name, value in theirs.items())
    assert json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["train"]["init"] == str(trained)
    assert read_plan(tmp_path / "run")[0].init == trained
    assert read_plan(trained)[0].init is None


def test_a_teacher_starts_from_the_weights_too(small, trained, tmp_path):
    train(Train(small, tmp_path / "run", method="ustm", iterations=1, init=trained, lr=1e-30, **TINY))
    stored = torch.load(tmp_path / "run" / "resume.pt", weights_only=True)["method"]
    theirs = load_file(trained / "last.safetensors")
    name = next(key for key in theirs if key.endswith("weight"))
    copies = [value for key, value in stored.items() if key.endswith("." + name)]
    assert len(copies) == 2 and all(torch.allclose(copy, theirs[name]) for copy in copies)


@pytest.mark.parametrize(
    "what, words",
    [
        ("channels", "has channels MR0; this training has MR0, MR1"),
        ("classes", "has classes background, square, core; this training has background, square, edge"),
        ("network", "has network unet; this training has monai:BasicUNet"),
        ("untrained", "stands at iteration 0"),
        ("missing", "has no last.safetensors"),
        ("no run", "not a run folder"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_written(small, trained, tmp_path, what, words):
    dataset, run = small, shutil.copytree(trained, tmp_path / "other")
    if what == "channels":
        dataset = small_dataset(tmp_path / "data", channels=2)
    if what == "classes":
        dataset = small_dataset(tmp_path / "data")
        text = (dataset / "dataset.json").read_text(encoding="utf-8")
        (dataset / "dataset.json").write_text(text.replace("core", "edge"), encoding="utf-8")
    if what == "untrained":
        write_weights(run, "last", torch.nn.Linear(1, 1), {"iteration": "0"})
    if what == "missing":
        (run / "last.safetensors").unlink()
    if what == "no run":
        (run / "config.json").unlink()
    network = "monai:BasicUNet" if what == "network" else None
    with pytest.raises(InputError, match=words):
        train(Train(dataset, tmp_path / "run", method="pce", iterations=2, init=run, network=network, **TINY))
    assert not (tmp_path / "run").exists()
