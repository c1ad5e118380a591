"""benchmarks/timing/minutes.py: a recipe is trained as a user trains it, timed, and not trained again."""

from pathlib import Path

import minutes
from common import read_csv, write_csv
from small import small_dataset

from scribbleseg.cli import main


def test_the_whole_command_is_timed_once(tmp_path, monkeypatch):
    data, trained = small_dataset(tmp_path / "data"), []

    def short(words):
        words = [str(word) for word in words]
        trained.append(words)
        at = words.index("--split")
        assert main([*words[:at], "--iterations", "2", "--size", "32", "--batch", "2"]) == 0

    clock = iter([100.0, 190.0])
    monkeypatch.setattr(minutes, "scribbleseg", short)
    monkeypatch.setattr(minutes, "monotonic", lambda: next(clock))
    words = ["minutes.py", "--only", "pce", "--data", str(data), "--results", str(tmp_path)]
    elsewhere = dict.fromkeys(minutes.COLUMNS, "1") | {"recipe": "pce", "device": "another machine"}
    write_csv(tmp_path / "minutes.csv", [elsewhere], minutes.COLUMNS)
    monkeypatch.setattr("sys.argv", words)
    minutes.main()
    minutes.main()
    [_, line] = sorted(read_csv(tmp_path / "minutes.csv"), key=lambda line: line["device"] != "another machine")
    assert (line["recipe"], line["minutes"], line["iterations"], line["size"]) == ("pce", "1.5", "2", "32")
    assert len(trained) == 1 and trained[0][3:] == [
        *("--method", "pce", "--budget", "quick", "--split", "cv5", "--fold", "0")
    ]
    assert not Path(trained[0][2]).exists()
