"""One run over two processes: torchrun, gloo, CPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from spread_runs import QUIET, STEPS, settings

from scribbleseg.core import distributed
from scribbleseg.methods import METHODS
from scribbleseg.training.train import train

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5  # relative, of losses in float32 from a network in float64


def log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def spread(small, tmp_path_factory):
    """The runs of spread_runs.py over two processes, and what came out on stderr."""
    here, out = Path(__file__).parent, tmp_path_factory.mktemp("spread")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        here / "spread_runs.py",
        small,
        out,
    ]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, errors="replace", env=environment, timeout=900
    )
    assert (out / "equal.json").is_file(), done.stderr
    return out, done


@pytest.mark.parametrize("name", QUIET)
def test_two_processes_have_the_loss_curve_of_one(spread, small, tmp_path, name):
    one, two = log(train(settings(small, tmp_path / "one", **QUIET[name]))), log(spread[0] / name)
    assert len(one) == STEPS and one[0]["losses"] != one[-1]["losses"]
    for a, b in zip(one, two, strict=True):
        assert b["losses"] == pytest.approx(a["losses"], rel=TOLERANCE)
        assert b.keys() == a.keys()
        for group, key in (("monitor", "threshold"), ("val_dice", "core")):
            if key in a.get(group, {}):
                assert b[group][key] == pytest.approx(a[group][key], rel=TOLERANCE, abs=0.01 * (group == "val_dice"))
    single, both = (load_file(run / "last.safetensors") for run in (tmp_path / "one", spread[0] / name))
    for key, value in single.items():
        torch.testing.assert_close(both[key], value, rtol=1e-4, atol=1e-5)


def test_all_processes_hold_the_same_state(spread):
    assert json.loads((spread[0] / "equal.json").read_text(encoding="utf-8")) == dict.fromkeys(
        [*QUIET, "noisy", "cut"], True
    )


def test_only_losses_sum_over_processes(spread):
    """Sweep, pictures, monitor, validation and resume happen in one process; a sum there would wait forever."""
    sums = json.loads((spread[0] / "sums.json").read_text(encoding="utf-8"))
    assert sums.keys() == METHODS.keys()
    for name, (in_losses, elsewhere) in sums.items():
        assert in_losses > 0 and elsewhere == 0, name


def test_a_run_cut_off_resumes_to_the_same_weights(spread):
    whole, cut = (load_file(spread[0] / name / "last.safetensors") for name in ("noisy", "cut"))
    for name in whole:  # float32 kernels round by where a tensor lies in memory; other noise moves weights by 1e-2
        torch.testing.assert_close(cut[name], whole[name], rtol=1e-3, atol=1e-4)
    assert [entry["iteration"] for entry in log(spread[0] / "cut")] == list(range(1, STEPS + 1))


def test_one_process_writes_and_speaks(spread):
    run = spread[0] / "pce"
    assert json.loads((run / "environment.json").read_text(encoding="utf-8"))["processes"] == 2
    assert [entry["iteration"] for entry in log(run)] == list(range(1, STEPS + 1))
    assert {
        ".lock",
        "config.json",
        "environment.json",
        "log.jsonl",
        "last.safetensors",
        "best.safetensors",
        "resume.pt",
        "pictures",
    } == set(os.listdir(run))
    assert "training" in spread[1].stderr
    said = (spread[0] / "said.txt").read_text(encoding="utf-8")
    assert "training" not in said and "reading" not in said


def test_a_batch_that_cannot_be_shared_is_refused_once(spread):
    assert spread[1].returncode != 0
    assert (
        spread[1].stderr.count(
            "scribbleseg: --batch 3 is the batch of all 2 processes together; expected a multiple of 2. "
            "Choose another --batch."
        )
        == 1
    )
    assert not (spread[0] / "odd").exists()


def test_noise_is_each_processes_own_and_the_shared_generator_goes_on(monkeypatch):
    drawn, after = [], []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "processes", lambda: 2)
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        for iteration in (0, 1, 0):
            torch.manual_seed(3)
            with distributed.own_noise(5, iteration, torch.device("cpu")):
                drawn.append(torch.rand(()).item())
            after.append(torch.rand(()).item())
    torch.manual_seed(3)
    assert set(after) == {torch.rand(()).item()}
    assert drawn[0] == drawn[2] and drawn[3] == drawn[5] and len(set(drawn)) == 4


def test_one_gpu_is_not_for_several_processes(monkeypatch):
    assert distributed.own_device("cuda:1") == "cuda:1"
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    with pytest.raises(distributed.InputError, match="cannot share one GPU"):
        distributed.own_device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert (distributed.own_device("cuda"), distributed.own_device("cpu")) == ("cuda:1", "cpu")
