"""benchmarks/gpu.sh, with a Python that only pretends to train: it ends in time, asks for scripts, verbs and options
that there are, and its second call carries on.
"""

import os
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from scribbleseg.cli import VERBS

ROOT = Path(__file__).parents[1]
STUB = """#!/bin/bash
printf '%q ' "$@" >> {asked}; echo >> {asked}
case "$*" in
*unpack*mscmr*) mkdir -p datasets/mscmr; touch datasets/mscmr/dataset.json ;;
*unpack*acdc*) mkdir -p datasets/acdc; touch datasets/acdc/dataset.json ;;
*" train "*)
    case "$*" in *scn-s0*) run=runs/paper/mscmr/25-5-15-0/scn-s0 ;; *) run=runs/paper/acdc/cv5-0/effdnet-s0 ;; esac
    mkdir -p $run
    touch $run/config.json $run/last.safetensors
    echo "{{}}" >> $run/log.jsonl
    echo "compiled in 1 s"
    trap 'echo stopped; exit 0' INT
    for _ in {{1..{steps}}}; do /bin/sleep 0.1; done ;;
esac
"""


def call(folder: Path, steps: int, seconds: int) -> tuple[list[list[str]], float]:
    """The commands that gpu.sh asked for, and the seconds that it took."""
    asked, stub = folder / "asked", folder / "python"
    asked.write_text("")
    stub.write_text(STUB.format(asked=asked, steps=steps), encoding="utf-8")
    stub.chmod(0o755)
    start = time.monotonic()
    ended = subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "gpu.sh"), "out", str(seconds)],
        cwd=folder,
        env=os.environ | {"PYTHON": str(stub)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return [shlex.split(line) for line in asked.read_text(encoding="utf-8").splitlines()], time.monotonic() - start


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "packed").mkdir()
    for name in ("mscmr.zip", "acdc1.zip", "acdc2.zip"):
        (tmp_path / "packed" / name).touch()
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    return tmp_path


def test_it_asks_for_what_there_is_and_carries_on(folder):
    first, _ = call(folder, steps=1, seconds=60)
    for line in first:
        if line[0].startswith("benchmarks/"):
            text = (ROOT / line[0]).read_text(encoding="utf-8")
            assert [word for word in line if word.startswith("--") and f'"{word}"' not in text] == []
        else:
            assert line[1] == "scribbleseg" and line[2] in VERBS
    assert [line[0] for line in first].count("benchmarks/timing/speed.py") == 1
    assert ["packed/acdc1.zip", "packed/acdc2.zip", "datasets/acdc"] in [line[2:] for line in first]
    trained = [line for line in first if "train" in line]
    assert len(trained) == 2 and all("--method" in line for line in trained)
    second, _ = call(folder, steps=1, seconds=60)
    assert [line[3:] for line in second] == [
        ["runs/paper/mscmr/25-5-15-0/scn-s0", "--resume"],
        ["runs/paper/acdc/cv5-0/effdnet-s0", "--resume"],
    ]
    packed = subprocess.run("cat out/runs.tar.gz.* | tar tz", shell=True, cwd=folder, capture_output=True, text=True)
    assert "runs/paper/acdc/cv5-0/effdnet-s0/last.safetensors" in packed.stdout.splitlines()


def test_it_ends_in_time_and_leaves_checkpoints(folder):
    _, seconds = call(folder, steps=600, seconds=28)
    assert seconds < 15
    for name in ("scn-s0", "effdnet-s0"):
        assert (folder / "runs" / "gpu" / f"{name}.log").read_text().splitlines() == ["compiled in 1 s", "stopped"]


def test_a_data_set_that_is_not_there_is_passed_over(folder):
    (folder / "packed" / "mscmr.zip").unlink()
    asked, _ = call(folder, steps=1, seconds=60)
    assert [line[3] for line in asked if "train" in line] == ["datasets/acdc"]
