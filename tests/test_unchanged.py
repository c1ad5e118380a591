"""Nothing that works changes its numbers: a short training of every method, and a run folder that old code wrote.

unchanged.json has what was found on each machine. That of the older one was made with the code before the rooms were
built (commit e04c8cc, files moved and nothing else). On a machine of the record, with the same torch, weights, masks
and scores are equal bit for bit. Elsewhere sums are rounded in another order, and TOLERANCE says what may differ.
Under `ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2` the newer machine makes the older one's weights.

To record a machine, a new method, or one whose numbers are meant to move:
`OMP_NUM_THREADS=1 PYTHONPATH=src:tests python tests/test_unchanged.py METHOD ... old_run`, and say in the commit why.
"""

import contextlib
import csv
import functools
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
from scribbleseg.data.volume import read_label
from scribbleseg.methods import METHODS
from scribbleseg.networks.unet import UNet

RECORD = Path(__file__).with_name("unchanged.json")
OLD_RUN = Path(__file__).parent / "data" / "old_run"
QUICK = ("pce", "effdnet", "corral")  # these run in `make test`
ITERATIONS = {"scribformer": 2, "ustm": 8, "fddseg": 8}  # fewer where a step takes long
# three to ten times what the instruction sets SSE4.1, AVX2 and AVX-512 differ by; masks of the old run were equal
TOLERANCE = {"first_loss": {"rel": 1e-5}, "last_loss": {"rel": 0.02}, "dice": {"abs": 0.001}}


def machine() -> str:
    return f"{device_name(torch.device('cpu'))}, torch {torch.__version__}"


def verb(*words: object) -> None:
    assert cli.main([str(word) for word in words]) == 0, words


def make_phantom(folder: Path) -> Path:
    verb("phantom", folder, "--cases", 4)
    return folder


def digest(arrays: dict[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for key in sorted(arrays):
        found.update(key.encode() + np.ascontiguousarray(arrays[key]).tobytes())
    return found.hexdigest()


def ends(run: Path, first: int = 0) -> dict:
    """SHA-256 of the weights that are shipped, and the total loss in the line `first` of the log and in its last."""
    losses = [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    weights = digest(load_file(run / "last.safetensors"))
    return {"sha256": weights, "first_loss": losses[first], "last_loss": losses[-1]}


def short_training(name: str, data: Path, run: Path) -> dict:
    length = ["--iterations", ITERATIONS.get(name, 12), "--size", 64, "--batch", 4]
    alike = ["--precision", "float32", "--device", "cpu", "--deterministic"]
    verb("train", data, run, "--method", name, *length, *alike)
    return ends(run)


def old_run(data: Path, folder: Path) -> dict:
    """Predict with the weights of the old run, carry it on and report it, in `folder`, as it was begun there.

    Its code of 2026-11-26 (e04c8cc) trained a narrow U-Net for 23 of 30 iterations.
    """
    shutil.copytree(data, folder / "phantom")
    shutil.copytree(OLD_RUN, folder / "run")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("scribbleseg.networks.unet.UNet", functools.partial(UNet, widths=(4, 4)))
        verb("predict", "run", "phantom", "found")
        verb("evaluate", "found", "phantom/labelsTr_dense", "--out", "scores.csv")
        verb("train", "run", "--resume")
        verb("report", "run")
    masks = {path.name: read_label(path)[0] for path in sorted((folder / "found").glob("*.nii.gz"))}
    tables = [(folder / name).read_text(encoding="utf-8") for name in ("scores.csv", "run/metrics.csv")]
    dice = [float(row["dice"]) for table in tables for row in csv.DictReader(table.splitlines())]
    return ends(folder / "run", first=23) | {"masks": digest(masks), "dice": dice}


def compare(name: str, found: dict) -> None:
    records = json.loads(RECORD.read_text(encoding="utf-8"))
    made = {where: record[name] for where, record in records.items() if name in record}
    assert made, f"{name} is not in {RECORD.name}"
    assert found == made.get(machine(), found)
    for expected in made.values():
        for key in TOLERANCE.keys() & expected.keys():
            assert found[key] == pytest.approx(expected[key], **TOLERANCE[key]), key


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_phantom(tmp_path_factory.mktemp("unchanged") / "phantom")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in METHODS]
)
def test_a_short_training_ends_where_it_did(name, data, tmp_path):
    compare(name, short_training(name, data, tmp_path / name))


def test_a_run_folder_from_before_predicts_resumes_and_reports(data, tmp_path):
    compare("old_run", old_run(data, tmp_path))
    log = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert log[:23] == (OLD_RUN / "log.jsonl").read_text(encoding="utf-8").splitlines()
    line = json.loads(log[-1])
    assert line["iteration"] == 30 and {"pce", "pseudo", "pce_fadc"} <= line["losses"].keys()
    assert "fbsl" not in line["losses"], "the options of the old config.json are used"
    assert "fbsl = False" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        phantom = make_phantom(Path(folder) / "phantom")
        for name in sys.argv[1:]:
            place = Path(folder) / name
            found = old_run(phantom, place) if name == "old_run" else short_training(name, phantom, place)
            record.setdefault(machine(), {})[name] = found
            print(name, found, file=sys.stderr)
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
