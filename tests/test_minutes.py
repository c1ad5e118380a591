"""benchmarks/timing/minutes.py: a recipe is trained as a user trains it, timed, and not trained again."""

import minutes
from common import read_csv
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
    words = ["minutes.py", "--only", "pce", "--data", str(data), "--runs", str(tmp_path), "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    minutes.main()
    minutes.main()
    [line] = read_csv(tmp_path / "minutes.csv")
    assert (line["recipe"], line["minutes"], line["iterations"], line["size"]) == ("pce", "1.5", "2", "32")
    assert len(trained) == 1 and trained[0][3:] == [
        *("--method", "pce", "--budget", "quick", "--split", "cv5", "--fold", "0")
    ]
    assert not (tmp_path / "pce").exists()
