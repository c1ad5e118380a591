"""Each file in examples/ runs, at a small size."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small import small_dataset

from scribbleseg.config import Train
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.voxels import Batch
from scribbleseg.networks.unet import UNet
from scribbleseg.training.plan import read_plan
from scribbleseg.training.train import train

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def root_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def test_plain_pytorch_learns():
    losses = importlib.import_module("examples.plain_pytorch").main(steps=12, size=24, patients=1)
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])


def test_monai_backbone_scores_the_held_out_cases(tmp_path, capsys):
    pytest.importorskip("monai")
    rows = importlib.import_module("examples.monai_backbone").main(
        tmp_path, "monai:AttentionUnet", cases=3, size=32, iterations=2
    )
    assert {row["class"] for row in rows} == {"RV", "Myo", "LV"}
    assert {row["case"] for row in rows} == {"heart001_ed", "heart001_es"}
    assert read_plan(tmp_path / "run")[1].network == "monai:AttentionUnet"
    assert "features of monai:AttentionUnet: " in capsys.readouterr().err, "it says which map FBSL uses"


def test_new_method_trains_by_its_name(tmp_path):
    data = small_dataset(tmp_path / "data", cases=3)
    train(
        Train(
            data,
            tmp_path / "run",
            method="examples.new_method:FlipConsistency",
            set=("weight=0.5",),
            iterations=2,
            size=32,
            batch=2,
        )
    )
    assert read_plan(tmp_path / "run")[1].options == {"weight": 0.5}
    log = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8")
    assert '"pce"' in log and '"flip"' in log


def test_new_method_is_right():
    """A network that mirrors with its input has no flip term. Another has w · mean square of the difference."""

    class Ramp(torch.nn.Module):
        def forward(self, image):
            ramp = torch.linspace(-1, 1, image.shape[3]).expand(len(image), image.shape[2], -1)
            return torch.stack([ramp, -ramp], 1) * self.slope

    kind = importlib.import_module("examples.new_method").FlipConsistency
    network = Ramp()
    batch = Batch(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
    network.slope = 0.0
    assert kind(network).losses(batch, torch.tensor(0.0))["flip"] == 0
    network.slope = 1.0
    flip = kind(network, weight=3.0).losses(batch, torch.tensor(0.0))["flip"]
    # p of class 0 is sigmoid(∓2) at the two columns; mirrored they change places
    assert flip.item() == pytest.approx(3 * (torch.tensor(2.0).sigmoid() - torch.tensor(-2.0).sigmoid()).item() ** 2)
    network = UNet(1, 2, (4, 4), (0.0, 0.0))
    kind(network).losses(Batch(torch.rand(2, 1, 16, 16), torch.zeros(2, 16, 16, dtype=torch.long)), torch.tensor(0.0))[
        "flip"
    ].backward()
    assert any(p.grad is not None and p.grad.any() for p in network.parameters())


def test_the_notebook_runs_from_scans_to_scores(tmp_path, monkeypatch, capsys):
    """Its code cells in order, in one namespace, at a tiny size."""
    notebook = json.loads((ROOT / "examples" / "first_model.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    sizes = "cases, iterations, size = 12, 300, 96"
    assert sizes in cells[0]
    cells[0] = cells[0].replace(sizes, "cases, iterations, size = 3, 2, 32")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for cell in cells:
        exec(compile(cell, "first_model.ipynb", "exec"), names)
    assert {row["class"] for row in names["rows"]} == {"RV", "Myo", "LV"}
    assert {int(value) for value in np.unique(names["scribble"])} <= {0, 1, 2, 3, UNLABELED}
    assert (tmp_path / "first_model" / "first_model.png").stat().st_size > 10_000
    assert (tmp_path / "first_model" / "run" / "report.html").is_file()
    assert "usable" in capsys.readouterr().out


def test_the_notebook_is_small():
    assert (ROOT / "examples" / "first_model.ipynb").stat().st_size < 300_000
