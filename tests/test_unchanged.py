"""Nothing that works changes its numbers: weights and losses after a short training of all methods; old run folders.

The record in unchanged.json was made with the code before the rooms were built (commit e04c8cc, files moved and nothing
else). On the machine of a record, with the same torch, the weights are equal bit for bit; elsewhere sums are rounded in
another order, and the losses are compared. To record a new method, or one whose numbers are meant to move:
`OMP_NUM_THREADS=1 PYTHONPATH=src:tests python tests/test_unchanged.py METHOD ...`, and say in the commit why.
"""

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from scribbleseg import cli
from scribbleseg.core.device import device_name
from scribbleseg.methods import METHODS

pytestmark = pytest.mark.slow

RECORD = Path(__file__).with_name("unchanged.json")
OLD_RUN = Path(__file__).parent / "data" / "old_run"
ITERATIONS = {"scribformer": 2, "ustm": 8, "fddseg": 8}  # fewer where a step takes long


def machine() -> dict[str, str]:
    return {"cpu": device_name(torch.device("cpu")), "torch": torch.__version__}


def verb(*words: object) -> None:
    assert cli.main([str(word) for word in words]) == 0, words


def make_phantom(folder: Path) -> Path:
    verb("phantom", folder, "--cases", 4)
    return folder


def short_training(name: str, data: Path, run: Path) -> dict:
    """SHA-256 of the weights that are shipped, and the total loss in the first and last line of the log."""
    length = ["--iterations", ITERATIONS.get(name, 12), "--size", 64, "--batch", 4]
    alike = ["--precision", "float32", "--device", "cpu", "--deterministic"]
    verb("train", data, run, "--method", name, *length, *alike)
    weights = load_file(run / "last.safetensors")
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(key.encode() + np.ascontiguousarray(weights[key]).tobytes())
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {"sha256": digest.hexdigest(), "first_loss": lines[0]["loss"], "last_loss": lines[-1]["loss"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_phantom(tmp_path_factory.mktemp("unchanged") / "phantom")


@pytest.mark.parametrize("name", METHODS)
def test_a_short_training_ends_where_it_did(name, data, tmp_path):
    expected = json.loads(RECORD.read_text(encoding="utf-8"))[name]
    found = short_training(name, data, tmp_path / name)
    assert found["first_loss"] == pytest.approx(expected["first_loss"], rel=1e-4)
    assert found["last_loss"] == pytest.approx(expected["last_loss"], rel=0.05)
    if expected["machine"] == machine():
        assert found | {"machine": machine()} == expected


def test_a_run_folder_from_before_resumes_predicts_and_reports(data, tmp_path, monkeypatch):
    """config.json was written by the code of 2026-11-26; the weights are made here, by `train --resume`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(data, tmp_path / "phantom")
    shutil.copytree(OLD_RUN, tmp_path / "run")
    verb("train", "run", "--resume")
    verb("predict", "run", "phantom", "found")
    verb("report", "run")
    lines = [json.loads(line) for line in Path("run/log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[-1]["iteration"] == 3 and {"pce", "pseudo", "pce_fadc"} <= lines[-1]["losses"].keys()
    assert "fbsl" not in lines[-1]["losses"], "the options of the old config.json are used"
    assert {path.name for path in Path("found").glob("*.nii.gz")} == {"heart001_ed.nii.gz", "heart001_es.nii.gz"}
    assert "fbsl = False" in Path("run/report.html").read_text(encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        phantom = make_phantom(Path(folder) / "phantom")
        for name in sys.argv[1:]:
            record[name] = short_training(name, phantom, Path(folder) / name) | {"machine": machine()}
            print(name, record[name], file=sys.stderr)
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
