"""benchmarks/timing/scoring.py: its table over a small set."""

import sys

import nibabel
import numpy as np
import pytest
from common import read_csv
from small import AFFINE, save, small_dataset


def test_values_and_times_of_a_small_set(tmp_path, monkeypatch, capsys):
    pytest.importorskip("medpy")
    import scoring

    truth = small_dataset(tmp_path / "data", cases=3, shape=(40, 36, 4)) / "labelsTr_dense"
    for path in truth.iterdir():
        mask = np.asarray(nibabel.load(path).dataobj)
        save(
            tmp_path / "found" / path.name,
            np.roll(mask, 2, 0) if "1" not in path.name else np.where(mask == 2, 0, mask).astype(np.uint8),
            AFFINE,
        )
    words = ["scoring.py", "small", str(tmp_path / "found"), str(truth), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    scoring.main()
    (stem,) = tmp_path.glob("scoring-*.csv")
    (line,) = read_csv(stem)
    assert (line["set"], line["volumes"], line["structures"]) == ("small", "3", "5")
    assert float(line["largest_difference"]) < 1e-12
    assert float(line["times_faster"]) == pytest.approx(float(line["medpy_seconds"]) / float(line["ours_seconds"]))
    assert "| small | 3 | 5 |" in capsys.readouterr().out

    for wrong, seen in ((0.0, lambda difference: difference > 0.1), (float("nan"), np.isnan)):
        monkeypatch.setattr(scoring, "theirs", lambda *given, wrong=wrong: (wrong,) * 3)
        scoring.main()
        (line,) = read_csv(stem)
        assert seen(float(line["largest_difference"])), "scores that differ are seen"
    monkeypatch.setattr(sys, "argv", [words[0], "other", *words[1:]])
    with pytest.raises(SystemExit):
        scoring.main()
    assert "expected three per set" in capsys.readouterr().err
