"""benchmarks/timing/speed.py: every kind of network is measured, and what was measured stays when other methods come
later or fail."""

import json
import subprocess
import sys

import pytest
import speed
import torch
from speed import COLUMNS, PARTS


@pytest.mark.parametrize(
    "name, parts",
    [
        ("scn", ["correlation map", "PAP", "RSR", "CGTM", "CACL"]),
        ("effdnet", ["FBSL", "FADC"]),
        pytest.param("scribformer", [], marks=pytest.mark.slow),
        pytest.param("fddseg", [], marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_network_is_measured(small, name, parts):
    line = speed.measure(name, small, 32, torch.device("cpu"), 3, False)
    assert list(line["single_parts"]) == parts
    assert all(line[part] > 0 for part in PARTS)


def test_kernels_add_up_to_the_step(small):
    *parts, clock = speed.measure("pce", small, 32, torch.device("cpu"), 3, False, True)["kernels"]
    assert (
        clock["name"] == "by the clock"
        and 0.3 * clock["seconds"] < sum(part["seconds"] for part in parts) < 1.5 * clock["seconds"]
    )
    convolution = next(part for part in parts if part["name"] == "aten::convolution")
    assert convolution["calls"] == 23 and {part["step"] for part in parts} == {"eager"}, (
        "18 of the blocks, 4 of 1 × 1 and the head"
    )
    assert [part["seconds"] for part in parts] == sorted((part["seconds"] for part in parts), reverse=True)


def test_parts_are_shares_of_the_step_that_they_are_of():
    line = {
        "method": "effdnet",
        "commit": None,
        "batch": 12,
        "kind": "recorded",
        "single_parts": {"FBSL": 0.25},
        "eager_seconds": 1.0,
    }
    line |= dict.fromkeys(
        ("seconds", "p95", "slowest", "images_per_second", "peak_memory_mib", "reference_seconds", *PARTS), 0.5
    )
    assert "| effdnet | FBSL | 0.2500 | 25.0 |" in speed.table([line])
    del line["eager_seconds"]
    assert "| effdnet | FBSL | 0.2500 | 50.0 |" in speed.table([line])


def test_a_method_that_fails_does_not_end_the_table(tmp_path, monkeypatch):
    def worker(command, **more):
        if command[command.index("--methods") + 1] == "pce":
            raise subprocess.CalledProcessError(1, command)
        ours = {"method": "effdnet", "batch": 12, "kind": "eager", "single_parts": {}}
        ours |= dict.fromkeys(("seconds", "p95", "slowest", "images_per_second", "peak_memory_mib", *PARTS), 1.0)
        return subprocess.CompletedProcess(command, 0, json.dumps(4.0 if "--plain" in command else ours))

    monkeypatch.setattr(
        sys, "argv", ["speed.py", "--results", str(tmp_path), "--device", "cpu", "--methods", "pce", "effdnet"]
    )
    monkeypatch.setattr(speed, "phantom", lambda settings: None)
    monkeypatch.setattr(speed.subprocess, "run", worker)
    monkeypatch.setattr(
        speed,
        "environment",
        lambda *given: {"device": "Some CPU", "precision": "bfloat16", "torch": "2", "commit": None},
    )
    with pytest.raises(SystemExit, match=r"not measured: pce \(exit code 1\)"):
        speed.main()
    table = (tmp_path / "speed-some-cpu-256.md").read_text(encoding="utf-8")
    assert "| effdnet |" in table and "| pce |" not in table


def test_rows_of_other_methods_stay(tmp_path, monkeypatch):
    seconds = {"pce": 1.0}

    def worker(command, **more):
        method = command[command.index("--methods") + 1]
        ours = {
            "method": method,
            "batch": 12,
            "kind": "eager",
            "single_parts": {"FBSL": 0.25} if method == "effdnet" else {},
        }
        ours |= dict.fromkeys(
            ("seconds", "p95", "slowest", "images_per_second", "peak_memory_mib", *PARTS), seconds[method]
        )
        return subprocess.CompletedProcess(command, 0, json.dumps(4.0 if "--plain" in command else ours))

    def measure(*methods, commit):
        machine = {"device": "Some CPU", "precision": "bfloat16", "torch": "2", "commit": commit}
        monkeypatch.setattr(speed, "environment", lambda *given: machine)
        monkeypatch.setattr(
            sys, "argv", ["speed.py", "--results", str(tmp_path), "--device", "cpu", "--methods", *methods]
        )
        with monkeypatch.context() as patch:
            patch.setattr(speed, "phantom", lambda settings: None)
            patch.setattr(speed.subprocess, "run", worker)
            speed.main()
        return [
            line.split(" | ")
            for line in (tmp_path / "speed-some-cpu-256.md").read_text(encoding="utf-8").splitlines()
            if line.startswith(("| pce", "| effdnet"))
        ]

    (pce,) = measure("pce", commit="one")
    seconds |= {"effdnet": 2.0}
    again, effdnet, single = measure("effdnet", commit=None)  # no git there
    assert (
        again == pce and pce[1] == "one" and effdnet[1] == "–" and single == ["| effdnet", "FBSL", "0.2500", "12.5 |"]
    )
    seconds["pce"] = 0.5
    newer, kept, _ = measure("pce", commit="three")
    assert (newer[1], newer[4]) == ("three", "0.5") and kept == effdnet
    assert (tmp_path / "speed-some-cpu-256.csv").read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
