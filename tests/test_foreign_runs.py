"""Run folders that were edited, damaged or made by somebody else: refused in words, and no code in them runs."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec import Struct
from safetensors.torch import load_file, save_file

from scribbleseg import __version__ as VERSION
from scribbleseg.cli import main
from scribbleseg.config import Evaluate, Train
from scribbleseg.core.errors import InputError
from scribbleseg.core.json_file import read_json
from scribbleseg.evaluation.scores import evaluate
from scribbleseg.evaluation.tables import COLUMNS, read_rows, write_rows
from scribbleseg.inference.provenance import MADE_BY
from scribbleseg.methods import method_class
from scribbleseg.reporting.report import write_report
from scribbleseg.training.plan import read_plan
from scribbleseg.training.train import resume, train

CODE = """
from pathlib import Path
from scribbleseg.methods.pce import PCE
Path(__file__).with_suffix(".ran").touch()
class Mine(PCE):
    pass
"""


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def edit(run: Path, value: object, *keys: str) -> None:
    """Change a value in config.json."""
    path = run / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    place = stored
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(stored), encoding="utf-8")


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("train", "dataset"), 5, "'train.dataset' is 5: "),
        (("train", "set"), [1], "'train.set.0.' is 1: expected text; got a whole number"),
        (("train", "lr"), "fast", "'train.lr' is 'fast': expected a number; got text"),
        (("train", "seed"), 2**63, "--seed 9223372036854775808: expected a whole number from 0 to 4294967295"),
        (("plan", "recipe", "iterations"), "<b>9</b>", "'plan.recipe.iterations' is '<b>9</b>': expected a whole"),
        (("plan", "size"), "<img>", "'plan.size' is '<img>': expected a whole number"),
        (("plan", "size"), 0, "size 0: expected pixels, 16384 at most"),
        (("plan", "recipe", "lr"), float("nan"), "--lr nan: expected a positive number"),
        (("plan", "recipe", "schedule"), "soon", "schedule soon: expected one of poly"),
        (("plan", "recipe", "ema"), 7, "the recipe's ema is 7.0; expected a number from 0 to below 1"),
        (("plan", "classes"), ["background"], "expected their names"),
        (("plan", "classes"), {"a": 1}, "'plan.classes' is .*: expected a list; got an object"),
        (("plan", "fold", "test"), [None], "'plan.fold.test.0.' is None: expected text; got null"),
        (("plan", "fold", "test"), ["../../x"], "'../../x' in its fold is not the name of a case"),
        (("traen",), {}, "'traen' is not a known key. Did you mean 'train'"),
        (("train", "itterations"), 5, "'train.itterations' is not a known key. Did you mean 'iterations'"),
        (("plan", "recipe", "lrr"), 5, "'plan.recipe.lrr' is not a known key. Did you mean 'lr'"),
        (
            ("plan", "fitted", "intensity"),
            [{"kind": "papers", "lo": 5}],
            "'plan.fitted.intensity.0.lo' is not a known key",
        ),
        (("plan", "options"), [1], "'plan.options' is .1.: expected an object; got a list"),
    ],
)
def test_settings_of_other_types_are_refused_by_every_verb(run, small, tmp_path, capsys, keys, value, words):
    edit(run, value, *keys)
    with pytest.raises(InputError, match=words):
        read_plan(run)
    for command in (["train", run, "--resume"], ["predict", run, small, tmp_path / "out"], ["report", run]):
        assert main([str(word) for word in command]) == 2
        assert f"{run / 'config.json'}: not a run's settings" in capsys.readouterr().err


def test_the_version_that_wrote_settings_which_this_one_does_not_know_is_named(run):
    edit(run, 5, "train", "later")
    with pytest.raises(InputError, match="'train.later' is not a known key.* Was it edited"):
        read_plan(run)
    edit(run, "", "version")
    with pytest.raises(InputError, match=f"Was it edited, or written by another version .this is {VERSION}."):
        read_plan(run)
    edit(run, "9.1", "version")
    with pytest.raises(InputError, match=f"'train.later' is not a known key.* Version 9.1 wrote it; this is {VERSION}"):
        read_plan(run)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pixel", float("nan")),
        ("pixel", -1),
        ("pixel", 1e300),
        ("unit", "furlong"),
        ("enclosure", "circle"),
        ("closed", float("nan")),
        ("closed", 7),
        ("plane", "<b>"),
        ("intensity", [{"kind": "ct", "low": 5, "high": 5}]),
        ("intensity", [{"kind": "ct", "low": float("nan"), "high": 5}]),
        ("intensity", [{"kind": "papers"}] * 3),
        ("crop", "no"),
        ("bare", float("nan")),
        ("bare", 1),
    ],
)
def test_what_was_fitted_is_held_to_what_can_be(run, key, value):
    edit(run, value, "plan", "fitted", key)
    with pytest.raises(InputError, match="config.json: not a run's settings"):
        read_plan(run)


@pytest.mark.parametrize("lr", ["nan", "inf", "1e30", "-1"])
def test_rates_that_no_training_can_have_leave_no_folder(small, tmp_path, capsys, lr):
    assert main(["train", str(small), str(tmp_path / "new"), "--method", "pce", "--lr", lr]) == 2
    assert "--lr" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_options_and_seeds_that_no_training_can_have(small, tmp_path, capsys):
    for words in (["--set", "delta=inf"], ["--set", "delta=nan"], ["--seed", str(2**63)], ["--seed", "-1"]):
        assert main(["train", str(small), str(tmp_path / "new"), "--method", "effdnet", *words]) == 2
        assert words[0] in capsys.readouterr().err and not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", [":", "..x:y", "x:", ":y", "a b:c", "os:path", "os:getcwd", "a.b.c:E", "..", "x:y:z"])
def test_names_that_are_no_method(name):
    with pytest.raises(InputError, match=r"method"):
        method_class(name)


# --- code of others


@pytest.fixture
def foreign(small, tmp_path, monkeypatch) -> Path:
    """A run of a method that is not ours, whose module lies where Python finds it."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text(CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    sys.modules.pop("mine", None)
    run = train(Train(small, tmp_path / "run", method="mine:Mine", iterations=2, size=32, batch=4, device="cpu"))
    (tmp_path / "code" / "mine.ran").unlink()
    del sys.modules["mine"]
    stored = torch.load(run / "resume.pt", weights_only=True)
    torch.save(stored | {"iteration": 1}, run / "resume.pt")
    return run


def test_a_method_that_is_not_ours_is_only_resumed_by_name(foreign, tmp_path, capsys):
    assert main(["train", str(foreign), "--resume"]) == 2
    said = capsys.readouterr().err
    assert f"scribbleseg train {foreign} --resume --method mine:Mine" in said
    assert not (tmp_path / "code" / "mine.ran").exists()
    assert main(["train", str(foreign), "--resume", "--method", "other:Mine"]) == 2
    assert "is a run of mine:Mine, not of other:Mine" in capsys.readouterr().err
    assert main(["train", str(foreign), "--resume", "--method", "mine:Mine"]) == 0
    assert (tmp_path / "code" / "mine.ran").exists()


def test_reading_a_foreign_run_imports_nothing(foreign, small, tmp_path):
    assert main(["predict", str(foreign), str(small), str(tmp_path / "out")]) == 0
    write_report(foreign, tmp_path / "page.html")
    assert not (tmp_path / "code" / "mine.ran").exists()


def test_the_run_folder_is_not_on_the_import_path(run):
    (run / "evil.py").write_text(CODE, encoding="utf-8")
    edit(run, "evil:Mine", "plan", "method")
    torch.save(torch.load(run / "resume.pt", weights_only=True) | {"iteration": 1}, run / "resume.pt")
    words = [sys.executable, "-m", "scribbleseg", "train", ".", "--resume", "--method", "evil:Mine"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(run)])}
    done = subprocess.run(words, cwd=run, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "method 'evil:Mine' cannot be imported" in done.stderr, done.stderr
    assert not (run / "evil.ran").exists()


# --- weights, checkpoint, log


@pytest.mark.parametrize("text", ["many", "-3", "1e9", "９", "9" * 5000])
def test_weights_of_no_iteration(run, small, tmp_path, text):
    save_file(load_file(run / "last.safetensors"), run / "last.safetensors", {"iteration": text})
    assert main(["predict", str(run), str(small), str(tmp_path / "out")]) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iteration", "1"),
        ("iteration", -1),
        ("iteration", None),
        ("best", []),
        ("method", None),
        ("optimizer", {}),
        ("optimizer", {"param_groups": 3}),
        ("unlogged", None),
        ("unlogged", (1, 2)),
        ("rng", torch.zeros(3)),
        ("rng", [1]),
    ],
)
def test_checkpoints_of_other_types(run, name, value):
    stored = torch.load(run / "resume.pt", weights_only=True)
    torch.save(stored | {"iteration": 1, name: value}, run / "resume.pt")
    before = (run / "last.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"resume.pt: (not a checkpoint|this checkpoint belongs to another)"):
        resume(run)
    assert (run / "last.safetensors").read_bytes() == before


@pytest.mark.parametrize("line", ["[1]", "{}", '{"iteration": "1"}', "nothing", '{"iteration": 1}', "[" * 100_000])
def test_lines_that_are_no_log(run, tmp_path, line):
    with open(run / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match="log.jsonl: (not the log of a run|its iterations do not rise)"):
        write_report(run, tmp_path / "page.html")


@pytest.mark.parametrize("verb", ["report", "pack", "export", "resume"])
def test_a_log_that_is_no_text(run, tmp_path, capsys, verb):
    torch.save(torch.load(run / "resume.pt", weights_only=True) | {"iteration": 1}, run / "resume.pt")
    (run / "log.jsonl").write_bytes(b'{"iteration": 1}\xff\n')
    words = {"report": ["report", run], "pack": ["pack", run, tmp_path / "a.zip"], "resume": ["train", run, "--resume"]}
    words |= {"export": ["export", run, tmp_path / "out", "--format", "monai"]}
    assert main([str(word) for word in words[verb]]) == 2
    assert "log.jsonl: byte 17 is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("config", ["[" * 100_000, '{"plan": {"recipe": {"iterations": "many"}}}', "{}", "\udcff"])
@pytest.mark.parametrize("line", ["[" * 100_000, '{"iteration": "x", "seconds_per_iteration": NaN}', "\udcff", "{}"])
def test_the_progress_of_a_broken_run_is_none(tmp_path, config, line):
    pytest.importorskip("pandas")
    from scribbleseg.bench.view import read_reached

    good = ('{"plan": {"recipe": {"iterations": 9}}}', '{"iteration": 3, "seconds_per_iteration": 1}')
    for settings, log in ((config, good[1]), (good[0], line), (config, line)):
        (tmp_path / "config.json").write_text(settings, encoding="utf-8", errors="surrogateescape")
        (tmp_path / "log.jsonl").write_text(log + "\n", encoding="utf-8", errors="surrogateescape")
        assert read_reached(tmp_path) is None


@pytest.mark.parametrize("option", ["method", "network"])
@pytest.mark.parametrize("name", ["os:system", "os:environ", "math:pi", "os:path"])
def test_names_of_what_is_no_code_of_a_python_file(small, tmp_path, capsys, option, name):
    words = ["train", str(small), str(tmp_path / "new"), "--size", "32", "--iterations", "1", "--batch", "2"]
    words += ["--method", "pce"] if option == "network" else []
    assert main([*words, f"--{option}", name]) == 2 and not (tmp_path / "new").exists()
    assert capsys.readouterr().err.splitlines()[-1].startswith("scribbleseg: ")


def test_a_checkpoint_that_would_unpack_to_more_is_refused(run):
    with zipfile.ZipFile(run / "resume.pt") as file:
        contents = {entry.filename: file.read(entry) for entry in file.infolist()}
    with zipfile.ZipFile(run / "resume.pt", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in contents.items():
            file.writestr(name, content)
    torch.load(run / "resume.pt", weights_only=True)
    with pytest.raises(InputError, match="resume.pt: not a checkpoint"):
        resume(run)


def test_markup_in_a_run_is_shown_as_text(run, small, tmp_path):
    tag = "<script>alert(1)</script>"
    edit(run, tag, "plan", "split")
    edit(run, ["background", tag, r"$\frac{$"], "plan", "classes")
    edit(run, [tag], "plan", "channels")
    edit(run, {tag: tag}, "plan", "options")
    edit(run, tag, "train", "split")
    (run / "environment.json").write_text(json.dumps({tag: tag, "continued": [{"torch": tag}]}), encoding="utf-8")
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line["losses"][tag] = line["monitor"][r"$\frac{$"] = 1.0
        line |= {"val_dice": {tag: 0.5}, "val_mean_dice": 0.5}
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    shutil.rmtree(run / "pictures")
    row = {"case": tag, "class": tag, "dice": 1.0, "hd95": 1.0, "assd": 1.0, "unit": "mm"}
    write_rows(run / "metrics.csv", [row | {"missing": False, "spurious": False, "penalised_hd95": 1.0}])
    os.utime(run / "metrics.csv", (2**31, 2**31))
    (run / "predictions").mkdir()
    (run / "predictions" / MADE_BY).write_text(json.dumps({"runs": [tag, "b"], "weights": tag}), encoding="utf-8")
    edit(run, "nowhere", "train", "dataset")
    page = write_report(run, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page


# --- tables of scores


def test_scores_only_replace_a_table_of_scores(small, tmp_path):
    masks = small / "labelsTr_dense"
    mask = tmp_path / "mask.nii.gz"
    shutil.copy(next(masks.iterdir()), mask)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "table.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    kept = {path: path.read_bytes() for path in (mask, tmp_path / "table.csv", small / "dataset.json")}
    for path in (*kept, tmp_path / "pipe", tmp_path / "folder", Path(os.devnull)):
        with pytest.raises(InputError, match="exists already and is no table of scores"):
            evaluate(Evaluate(masks, masks, path))
    assert {path: path.read_bytes() for path in kept} == kept
    for _ in range(2):
        evaluate(Evaluate(masks, masks, tmp_path / "scores.csv"))
    assert (tmp_path / "scores.csv").read_text(encoding="utf-8").startswith(",".join(COLUMNS))


@pytest.mark.parametrize("name", ["=cmd|'/c calc'!A0", "+1", "-1", "@x", "'=x", "'x", "plain", "caf\udce9"])
def test_names_that_a_spreadsheet_would_run(tmp_path, name):
    row = {"case": name, "class": name, "dice": 0.5, "hd95": np.nan, "assd": 1.0, "unit": "mm"}
    row |= {"missing": True, "spurious": False, "penalised_hd95": 3.0}
    write_rows(tmp_path / "a.csv", [row])
    line = (tmp_path / "a.csv").read_bytes().splitlines()[1]
    assert not line.startswith((b"=", b"+", b"-", b"@", b'"='))
    (found,) = read_rows(tmp_path / "a.csv")
    assert found["case"] == found["class"] == name and found["missing"] is True


# --- the words of the schema


class Inner(Struct):
    b: list[int]


class Outer(Struct):
    a: Inner


def test_a_schema_names_place_value_and_type(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": {"b": [1, "x"]}}', encoding="utf-8")
    with pytest.raises(InputError, match=r"a.json: 'a.b\[1\]' is 'x': expected a whole number; got text. Correct"):
        read_json(path, Outer)
