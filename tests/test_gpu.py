"""benchmarks/gpu.sh, with a Python that only writes down what it was asked: every part ends well and asks for scripts,
verbs and options that there are.
"""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from scribbleseg.cli import VERBS

ROOT = Path(__file__).parents[1]
STUB = """#!/bin/bash
printf '%q ' "$@" >> {asked}; echo >> {asked}
case "$*" in
*" train "*) mkdir -p runs/check/run; touch runs/check/run/log.jsonl runs/check/run/environment.json ;;
*folds.py*) mkdir -p runs/folds/acdc-cv5-0-effdnet-auto-paper-paper-x1-s0 ;;
esac
"""


@pytest.mark.parametrize(
    "part, scripts",
    [("check", 0), ("speed", 2), ("fold", 2), ("together", 2), ("mps", 1), ("precision", 1), ("results", 1)],
)
def test_a_part_asks_for_what_there_is(tmp_path, part, scripts):
    asked, stub = tmp_path / "asked", tmp_path / "python"
    stub.write_text(STUB.format(asked=asked), encoding="utf-8")
    stub.chmod(0o755)
    for name in ("sleep", "nvidia-smi", "nvidia-cuda-mps-control"):
        (tmp_path / name).symlink_to("/bin/true")
    environment = os.environ | {"PYTHON": str(stub), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "gpu.sh"), str(tmp_path / "out"), part],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    lines = [shlex.split(line) for line in asked.read_text(encoding="utf-8").splitlines()]
    assert sum(line[0].startswith("benchmarks/") for line in lines) == scripts
    for line in lines:
        if line[0].startswith("benchmarks/"):
            text = (ROOT / line[0]).read_text(encoding="utf-8")
            assert [word for word in line if word.startswith("--") and f'"{word}"' not in text] == []
        elif line[1] == "scribbleseg":
            assert line[2] in VERBS
        elif line[1] == "pytest":
            assert (ROOT / line[3]).is_file()


def test_a_failure_of_the_queue_is_one(tmp_path):
    for name, text in (("python", "exit 3"), ("sleep", ""), ("nvidia-smi", "")):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PYTHON": str(tmp_path / "python"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert (
        subprocess.run(
            ["bash", str(ROOT / "benchmarks" / "gpu.sh"), str(tmp_path / "out"), "results"],
            cwd=tmp_path,
            env=environment,
        ).returncode
        == 3
    )


def test_an_unknown_part_is_refused(tmp_path):
    ended = subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "gpu.sh"), str(tmp_path), "all"], capture_output=True, text=True
    )
    assert ended.returncode == 1 and "all: expected check, speed" in ended.stderr
