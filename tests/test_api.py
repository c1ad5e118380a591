"""import scribbleseg as ss: quick, typed, described; the verbs by keyword, with paths as text."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small import small_dataset

import scribbleseg as ss

VERBS = ("import_dataset", "phantom", "simulate", "check", "train", "predict", "evaluate", "report", "pack", "export")


def test_the_import_is_quick_and_brings_nothing_heavy():
    code = """
import sys, time
start = time.process_time()
import scribbleseg
seconds = time.process_time() - start
print([name for name in ("torch", "numpy", "click", "matplotlib") if name in sys.modules], seconds)
"""
    loaded, seconds = [], []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        loaded.append(done.stdout.rpartition(" ")[0])
        seconds.append(float(done.stdout.rpartition(" ")[2]))
    assert loaded == ["[]"] * 3 and min(seconds) < 0.05


@pytest.mark.usefixtures("no_step_is_timed")
def test_from_a_data_set_to_a_report_with_paths_as_text(tmp_path, monkeypatch, capsys):
    small_dataset(tmp_path / "data", cases=3)
    monkeypatch.chdir(tmp_path)
    assert ss.check("data") is True
    assert ss.train("data", "runs/a", method="pce", iterations=1, size=32, batch=2) == Path("runs/a")
    assert "too short to label slices anew" not in capsys.readouterr().err
    assert ss.resume("runs/a") == Path("runs/a")
    assert "runs/a: is finished (1 iterations)" in capsys.readouterr().err
    files = ss.predict("runs/a", "data", "out")
    assert [path.name for path in files] == ["case.2 a.nii.gz"] and all(path.is_file() for path in files)
    rows = ss.evaluate("out", "data/labelsTr_dense", out="scores.csv")
    assert [row["class"] for row in rows] == ["square", "core"] and Path("scores.csv").is_file()
    assert ss.report("runs/a") == Path("runs/a/report.html")
    assert ss.report(run=Path("runs/a")).is_file()
    capsys.readouterr()
    with pytest.raises(ss.InputError, match="nowhere"):
        ss.report("nowhere")


def test_no_run_is_named():
    with pytest.raises(ss.InputError, match="no run is named; expected a run folder"):
        ss.load([])


@pytest.mark.parametrize(
    "name, given, found",
    [
        ("train", {"dataset": "d", "run": "r", "iterations": "5"}, "'iterations' is '5': expected a whole number"),
        ("train", {"dataset": "d", "run": "r", "set": "a=1"}, "'set' is 'a=1': expected"),
        ("train", {"dataset": "d", "run": "r", "budget": 3}, "'budget' is 3: expected"),
        ("predict", {"runs": "r", "input": "i", "output": "o", "tta": "no"}, "'tta' is 'no': expected true or false"),
    ],
)
def test_values_of_another_type_are_named(name, given, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ss.InputError, match=re.escape(f"{name}(...): {found}")):
        getattr(ss, name)(**given)
    assert not any(tmp_path.iterdir())


def test_settings_turn_text_into_paths():
    assert ss.Train("data", "run") == ss.Train(Path("data"), Path("run"))
    assert ss.Predict("a", "b", "c").runs == (Path("a"),) == ss.Predict(["a"], "b", "c").runs
    assert ss.Evaluate("a", "b", out="c").out == Path("c") and ss.Evaluate("a", "b").out is None


@pytest.mark.parametrize("name", VERBS)
def test_help_names_every_argument(name):
    function = getattr(ss, name)
    text = inspect.getdoc(function)
    kind = {"import_dataset": ss.Import}.get(name) or getattr(ss, name.capitalize())
    parameters = inspect.signature(function).parameters
    assert list(parameters) == list(inspect.signature(kind).parameters)
    assert text.startswith(kind.__doc__.splitlines()[0])
    for parameter in parameters.values():
        assert f"\n{parameter.name}: " in text
        assert "Argument(" not in str(parameter) and "Option(" not in str(parameter)


def test_every_public_name_exists_and_others_do_not():
    assert all(getattr(ss, name) is not None for name in ss.__all__) and set(VERBS) <= set(dir(ss))
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        ss.trian  # noqa: B018


@pytest.mark.slow  # mypy reads everything that scribbleseg imports
def test_a_type_checker_sees_the_arguments(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "use.py").write_text(
        """
from pathlib import Path
import scribbleseg as ss
run: Path = ss.train("data", Path("runs/a"), method="scn", set=("stride=4",))
files: list[Path] = ss.predict([run, "runs/b"], "data", "out", tta=True)
page: Path = ss.report("runs/a")
ss.train("data", "run", iterations="many")
ss.predict("run", "data")
ss.check("data").bit_length().nothing
""",
        encoding="utf-8",
    )
    words = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--follow-imports=silent", "use.py"]
    cache = f"--cache-dir={tmp_path / 'cache'}"
    env = os.environ | {"MYPYPATH": str(Path(ss.__file__).parents[1])}
    done = subprocess.run([*words, cache], capture_output=True, text=True, cwd=tmp_path, env=env)
    lines = [line.split(":")[1] for line in done.stdout.splitlines() if ": error:" in line]
    assert lines == ["7", "8", "9"], done.stdout


def test_a_misspelt_argument_is_told_the_nearest_one(tmp_path):
    with pytest.raises(
        ss.InputError, match=r"train\(\.\.\.\): no argument 'itterations'\. Did you mean 'iterations'\?"
    ):
        ss.train("data", tmp_path / "run", itterations=3)
    with pytest.raises(TypeError):
        ss.train()
