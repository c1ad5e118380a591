"""scribbleseg demo: to the report, also in two goes; other people's folders stay."""

import pytest
from small import small_dataset

from scribbleseg import demo as module
from scribbleseg.config import Demo, Train
from scribbleseg.core.errors import InputError
from scribbleseg.demo import demo


def test_a_demo_that_was_stopped_carries_on_and_a_finished_one_is_kept(tmp_path, monkeypatch):
    folder, trained = tmp_path / "demo", []
    monkeypatch.setattr(module, "phantom", lambda config: small_dataset(config.dst, cases=3))
    monkeypatch.setattr(module, "BUDGET", {"iterations": 2, "size": 32, "batch": 2})
    train = module.train

    def stopped(config: Train):
        trained.append(config.method)
        if trained == ["pce", "effdnet"]:
            raise KeyboardInterrupt
        train(config)

    monkeypatch.setattr(module, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        demo(Demo(folder, device="cpu"))
    weights = (folder / "pce" / "last.safetensors").stat().st_mtime_ns
    assert demo(Demo(folder, device="cpu")) == folder / "report.html" and (folder / "report.html").is_file()
    assert (
        trained == ["pce", "effdnet", "effdnet"] and (folder / "pce" / "last.safetensors").stat().st_mtime_ns == weights
    )
    with pytest.raises(InputError, match="exists and is not empty. Remove it"):
        demo(Demo(folder, device="cpu"))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="exists and is not empty"):
        demo(Demo(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
