"""benchmarks/speed.py: what it has measured stays when other methods are measured later."""

import json
import subprocess
import sys

import speed
from speed import COLUMNS, PARTS


def test_rows_of_other_methods_stay(tmp_path, monkeypatch):
    seconds = {"pce": 1.0}

    def worker(command, **more):
        method = command[command.index("--methods") + 1]
        ours = {"method": method, "batch": 12, "kind": "eager", "single_parts": {"FBSL": 0.25} if method == "effdnet" else {}}
        ours |= {key: seconds[method] for key in ("seconds", "p95", "slowest", "images_per_second", "peak_memory_mib", *PARTS)}
        return subprocess.CompletedProcess(command, 0, json.dumps(4.0 if "--plain" in command else ours))

    def measure(*methods, commit):
        machine = {"device": "Some CPU", "precision": "bfloat16", "torch": "2", "commit": commit}
        monkeypatch.setattr(speed, "environment", lambda *given: machine)
        monkeypatch.setattr(sys, "argv", ["speed.py", "--results", str(tmp_path), "--device", "cpu", "--methods", *methods])
        with monkeypatch.context() as patch:
            patch.setattr(speed, "phantom", lambda settings: None)
            patch.setattr(speed.subprocess, "run", worker)
            speed.main()
        return [line.split(" | ") for line in (tmp_path / "speed-some-cpu-256.md").read_text(encoding="utf-8").splitlines() if line.startswith(("| pce", "| effdnet"))]

    (pce,) = measure("pce", commit="one")
    seconds |= {"effdnet": 2.0}
    again, effdnet, single = measure("effdnet", commit=None)  # no git there
    assert again == pce and pce[1] == "one" and effdnet[1] == "–" and single == ["| effdnet", "FBSL", "0.2500", "12.5 |"]
    seconds["pce"] = 0.5
    newer, kept, _ = measure("pce", commit="three")
    assert (newer[1], newer[4]) == ("three", "0.5") and kept == effdnet
    assert (tmp_path / "speed-some-cpu-256.csv").read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
