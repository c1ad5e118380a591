"""The command line: exit codes, one-line messages, a light start."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small import small_dataset

from scribbleseg import __version__, cli
from scribbleseg.core.errors import InputError
from scribbleseg.methods import METHODS


@pytest.fixture
def call(capsys):
    """(exit code, stdout, stderr) of one command, in process."""

    def run(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as exit:  # tyro's own, for --help and values of another type
            code = exit.code
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return code, said.out, said.err

    return run


@pytest.fixture
def refused(call):
    """The one line on stderr of a command that exits with code 2 and prints nothing else."""

    def run(*words):
        code, out, err = call(*words)
        assert (
            code == 2 and out == "" and err.startswith("scribbleseg: ") and err.endswith("\n") and err.count("\n") == 1
        ), (code, out, err)
        return err.strip()

    return run


# --- exit codes


def test_version_and_help_exit_with_0(call):
    assert call("--version") == (0, f"scribbleseg {__version__}\n", "")
    code, out, _ = call("--help")
    assert code == 0 and all(re.search(rf"\W {verb} +[A-Z]", out) for verb in cli.VERBS), out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_each_verb_has_help(call, verb):
    code, out, err = call(verb, "--help")
    assert code == 0 and err == "" and out.startswith(f"usage: scribbleseg {verb} [-h]")
    kind, _ = cli.VERBS[verb]
    assert kind.__doc__.splitlines()[0] in out.replace("\n", " ") or kind.__doc__.splitlines()[0] in out


def test_a_data_set_that_is_not_usable_exits_with_1(call, small, tmp_path):
    code, out, _ = call("check", small)
    assert code == 0 and out.endswith("\nusable\n")
    code, out, _ = call("check", tmp_path)
    assert code == 1 and "problem: " in out and out.endswith("not usable\n")


def test_ctrl_c_exits_with_130_and_says_how_to_carry_on(call, monkeypatch, small, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("scribbleseg.training.train.train", interrupted)
    monkeypatch.setattr("scribbleseg.inference.predict.predict", interrupted)
    assert call("train", small, tmp_path / "run") == (
        130,
        "",
        "scribbleseg: stopped. No run was begun yet: give the same command again.\n",
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").touch()
    assert call("train", small, tmp_path / "run") == (
        130,
        "",
        f"scribbleseg: stopped. Carry on with: scribbleseg train {tmp_path / 'run'} --resume\n",
    )
    assert call("train", "--fold", 0, small, tmp_path / "run")[2].endswith("scribbleseg train RUN --resume\n")
    assert call("predict", "run", "in", "out") == (130, "", "scribbleseg: stopped.\n")
    monkeypatch.setattr("scribbleseg.demo.demo", interrupted)
    assert call("demo") == (130, "", "scribbleseg: stopped. Carry on with the same command.\n")


def test_what_only_the_system_knows_exits_with_2_and_a_bug_does_not_hide(refused, monkeypatch):
    def fail(error):
        monkeypatch.setattr("scribbleseg.data.check.check", lambda _: (_ for _ in ()).throw(error))

    fail(PermissionError(13, "Permission denied", "/there/dataset.json"))
    assert (
        refused("check", "set")
        == "scribbleseg: [Errno 13] Permission denied: '/there/dataset.json'. Choose another place, or change its permissions."
    )
    fail(OSError(5, "Input/output error", "/there/dataset.json"))
    assert refused("check", "set") == "scribbleseg: [Errno 5] Input/output error: '/there/dataset.json'."
    fail(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["check", "set"])


def test_a_reader_that_leaves_is_no_error_message(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", closefd=False) as out:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr("scribbleseg.methods.listing.methods", lambda _: print("x" * 100_000, flush=True))
        assert cli.main(["methods"]) == 1
    os.close(write)


# --- names that do not exist


@pytest.mark.parametrize(
    "words, expected",
    [
        (["trian"], "no verb 'trian'. Did you mean 'train'?"),
        (["--nope"], "no verb '--nope'."),
        ([], "what to do?"),
        (
            ["train", "SET", "RUN", "--itertions", "3"],
            "scribbleseg train has no option '--itertions'. Did you mean '--iterations'?",
        ),
        (["train", "SET", "RUN", "--sede=3"], "has no option '--sede'. Did you mean '--seed'?"),
        (["predict", "RUN", "IN", "OUT", "--uncertainity"], "Did you mean '--uncertainty'?"),
        (["phantom", "DST", "--case", "3"], "Did you mean '--cases'?"),
        (["check", "--nope"], "scribbleseg check has no option '--nope'. Known: --help."),
        (["bench", "plan.toml", "--plan", "x"], "scribbleseg bench has no option '--plan'. Known: --address,"),
        (["train", "SET", "RUN", "--method", "efdnet"], "no method 'efdnet'. Did you mean 'effdnet'?"),
        (["train", "SET", "RUN", "--method", "pce", "--split", "finl"], "no split 'finl'. Did you mean 'final'?"),
        (
            ["train", "SET", "RUN", "--method", "effdnet", "--set", "lamb=1"],
            "effdnet has no option 'lamb'. Did you mean 'lam'?",
        ),
        (["train", "SET", "RUN", "--method", "my_package.mine:Mine"], "cannot be imported"),
        (["train", "SET", "RUN", "--method", "pathlib:Path"], "Path is no method"),
        (["methods", "dmlps"], "no method 'dmlps'. Did you mean 'dmpls'?"),
        (["methods", "nope"], "no method 'nope'. Known: dmpls,"),
    ],
)
def test_the_nearest_name(refused, small, tmp_path, words, expected):
    places = {"SET": small, "RUN": tmp_path / "run", "DST": tmp_path / "dst"}
    assert expected in refused(*(places.get(word, word) for word in words))
    assert not list(tmp_path.iterdir())


def test_options_in_every_spelling_are_known(call, monkeypatch):
    got = []
    monkeypatch.setattr("scribbleseg.training.train.train", got.append)
    words = [
        "--val-share=0.2",
        "--validations",
        "3",
        "--deterministic",
        "--no-tensorboard",
        "--set",
        "a=1",
        "b=2",
        "--batch",
        "7",
    ]
    assert call("train", "data", "run", *words)[:2] == (0, "")
    (settings,) = got
    assert (settings.dataset, settings.run) == (Path("data"), Path("run"))
    assert (settings.val_share, settings.validations, settings.deterministic, settings.tensorboard, settings.batch) == (
        0.2,
        3,
        True,
        False,
        7,
    )
    assert settings.set == ("a=1", "b=2")


@pytest.mark.parametrize(
    "words, said",
    [
        (["train", "a", "b", "--iterations", "many"], "--iterations"),
        (["train", "a"], "RUN"),
        (["import", "acdk", "a", "b"], "'acdc'"),
        (["predict", "a"], "OUTPUT"),
    ],
)
def test_values_of_another_type_and_missing_words_exit_with_2(call, words, said):
    code, out, err = call(*words)
    assert code == 2 and out == "" and said in err and "--help" in err


@pytest.mark.parametrize(
    "line, expected",
    [
        (
            "bench --folds 0 1 plans/ok.toml",
            "scribbleseg: PLAN missing. --folds takes every word after it; put the others first: scribbleseg bench PLAN --folds ...",
        ),
        (
            "train --set delta=0.2 datasets/ph r",
            "scribbleseg: DATASET and RUN missing. --set takes every word after it",
        ),
        ("train datasets/ph --no-tensorboard --lr 1 --set delta=0.2 r", "scribbleseg: RUN missing."),
        ("evaluate --classes RV pred truth --out a.csv", "scribbleseg: PREDICTIONS and TRUTH missing."),
    ],
)
def test_words_that_a_list_option_took(refused, line, expected):
    assert expected in refused(*line.split())


@pytest.mark.parametrize(
    "line",
    [
        "data run --set a=1 b=2",
        "--lr 1 data --tensorboard run --set a=1 b=2",
        "--set a=1 b=2 --lr 1 data run",
        "--set=a=1 data run",
    ],
)
def test_a_list_option_before_another_or_behind_the_words(call, monkeypatch, line):
    got = []
    monkeypatch.setattr("scribbleseg.training.train.train", got.append)
    assert call("train", *line.split())[:2] == (0, "")
    assert (got[0].dataset, got[0].run, got[0].set[0]) == (Path("data"), Path("run"), "a=1")


# --- verbs


def test_an_option_given_twice_is_refused(refused, small, tmp_path):
    assert "--set is given twice" in refused("train", small, tmp_path / "run", "--set", "lam=1", "--set", "delta=1")


@pytest.mark.parametrize(
    "line",
    [
        "a b c in out --weights best --tta",
        "--weights best --tta a b c in out",
        "a b --weights=best c --tta in out",
        "a --tta b c in --weights best out",
    ],
)
def test_several_runs_and_options_in_any_order(call, monkeypatch, line):
    got = []
    monkeypatch.setattr(
        "scribbleseg.inference.predict.predict", lambda settings: got.append(settings) or [Path("out/a.nii.gz")]
    )
    assert call("predict", *line.split()) == (0, "", "predictions: out, 1 file\n")
    assert got[0].runs == (Path("a"), Path("b"), Path("c")) and (got[0].input, got[0].output) == (
        Path("in"),
        Path("out"),
    )
    assert (got[0].weights, got[0].tta, got[0].uncertainty) == ("best", True, False)


def test_help_of_predict_reads_as_it_is_typed(call):
    _, out, _ = call("predict", "--help")
    words = " ".join(re.sub(r"[│╭╮╰╯─]", " ", out).split())
    assert words.startswith("usage: scribbleseg predict [-h] [OPTIONS] RUN [RUN ...] INPUT OUTPUT")
    assert "RUN [RUN ...] Run folders." in words and "may not. (required)" in words and "(default: )" not in words


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_has_a_text_for_every_setting(call, verb):
    _, out, _ = call(verb, "--help")
    words = " ".join(re.sub(r"[│╭╮╰╯─]", " ", out).split())
    assert "None" not in words and "(default: )" not in words
    for text in re.findall(r"(\S+ \S+) \((?:required|default: [^)]*)\)", words):
        assert re.search(r"[.…]\)?$", text), text  # a sentence, no name of a field and no bare metavar


def test_methods_lists_every_method_in_a_line(call):
    code, out, _ = call("methods")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == list(METHODS)
    assert all(len(line.split()) > 2 for line in out.splitlines())
    code, out, _ = call("methods", "effdnet")
    assert code == 0 and out.startswith("effdnet: ") and "--set lam=" in out and "iterations 60000" in out


def test_a_class_without_a_docstring_is_not_described_by_another(call, monkeypatch):
    monkeypatch.setattr("examples.new_method.FlipConsistency.__doc__", None)
    code, out, _ = call("methods", "examples.new_method:FlipConsistency")
    assert code == 0 and "\nThe class has no docstring.\n" in out and "Owns `network`" not in out


def test_resume_takes_the_run_alone(call, refused, trained, small, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    code, out, err = call("train", run, "--resume")
    assert (code, out) == (0, "") and err.splitlines()[0] == f"{run}: is finished (2 iterations)"
    assert call("train", "--resume", run) == (code, out, err)
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before  # it was finished
    for words in (["train", run, "--resume", "--lr", "1"], ["train", small, run, "--resume"], ["train", "--resume"]):
        assert "--resume takes the run folder alone" in refused(*words)
    assert "not a run folder" in refused("train", tmp_path, "--resume")


def test_resume_carries_on_from_the_checkpoint(call, trained, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    stored = json.loads((run / "config.json").read_text(encoding="utf-8"))
    stored["plan"]["recipe"]["iterations"] = 4
    (run / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    code, _, err = call("train", run, "--resume")
    assert code == 0 and "training pce: 4/4 it" in err and "is finished" not in err
    assert err.endswith(f"run: {run}; next: scribbleseg predict {run} INPUT OUTPUT, or scribbleseg report {run}\n")
    assert torch.load(run / "resume.pt", weights_only=True)["iteration"] == 4
    assert [json.loads(line)["iteration"] for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()] == [
        1,
        2,
        3,
        4,
    ]


def test_train_predict_evaluate_in_plain_lines_when_piped(call, small, tmp_path):
    """Each as the one before it says, also where the first predicted case has no dense mask."""
    run, small = tmp_path / "run", shutil.copytree(small, tmp_path / "data")
    (small / "labelsTr_dense" / "case.4 a.nii.gz").unlink()
    said = [call("train", small, run, "--method", "pce", "--iterations", 1, "--size", 32, "--batch", 2)]
    said.append(call("predict", run, small, tmp_path / "out"))
    said.append(call("evaluate", tmp_path / "out", small / "labelsTr_dense", "--out", tmp_path / "scores.csv"))
    assert [code for code, _, _ in said] == [0, 0, 0]
    assert all("\r" not in out + err and "\x1b" not in out + err for _, out, err in said)
    assert [out for _, out, _ in said[:2]] == ["", ""]
    *lines, last = said[0][2].splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "reading cases: 4/4 case",
        "training pce: 1/1 it",
    ] and last.startswith(f"run: {run}; next: ")
    assert said[1][2].endswith(
        f"\npredictions: {tmp_path / 'out'}, 2 files; next: scribbleseg evaluate {tmp_path / 'out'} {small / 'labelsTr_dense'}\n"
    )
    assert said[2][2].endswith(f"\nscores: {tmp_path / 'scores.csv'}\n")
    assert said[1][2].startswith("predicting the 2 test cases of fold 0\npredicting: 2/2 case, ") and said[2][
        1
    ].startswith("| class ")
    assert (tmp_path / "scores.csv").read_text(encoding="utf-8").count("\n") == 3  # a heading, one case × two classes


def test_a_phantom_is_made_with_progress_and_says_what_comes_next(call, tmp_path):
    code, out, err = call("phantom", tmp_path / "my set", "--cases", 3)
    assert (code, out) == (0, "")
    first, last = err.splitlines()
    assert (
        first.startswith("drawing hearts: 2/2 patients, ")
        and last == f"data set: {tmp_path / 'my set'}; next: scribbleseg check '{tmp_path / 'my set'}'"
    )


def test_one_of_torchruns_processes_says_what_comes_next(call, monkeypatch):
    monkeypatch.setattr("scribbleseg.training.train.train", lambda settings: settings.run)
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert call("train", "data", "run")[2].count("\n") == lines


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(capsys, monkeypatch):
    from scribbleseg.core import progress

    with progress.Progress("training", 40, "it", done=10) as bar:
        bar.start -= 10  # seconds
        bar.said -= 16
        bar.note("loss 0.5")
        bar.advance(20)
        bar.advance(10)
    first, last = capsys.readouterr().err.splitlines()
    assert first == "training: 30/40 it, 2.00 it/s, 5 s left, loss 0.5"
    assert last == "training: 40/40 it, 3.00 it/s, loss 0.5"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.Progress("training", 2, "it") as bar:
        bar.advance(2)
    assert "\rtraining: 100%" in capsys.readouterr().err


def test_progress_says_nothing_of_work_that_failed(capsys):
    from scribbleseg.core.progress import Progress

    with pytest.raises(InputError), Progress("reading", 2, "case"):
        raise InputError("bad")
    assert capsys.readouterr().err == ""


# --- a light start


def test_help_is_quick_and_imports_nothing_heavy():
    code = """
import io, sys, time, contextlib
from scribbleseg.cli import main
for words in (["--help"], ["train", "--help"]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main(words)
    assert "usage: scribbleseg" in out.getvalue()
heavy = ["torch", "numpy", "scipy", "skimage", "matplotlib", "h5py", "nibabel", "monai", "SimpleITK", "safetensors", "tqdm"]
print([name for name in heavy if name in sys.modules], time.process_time())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, seconds = done.stdout.strip().rsplit(" ", 1)
    assert loaded == "[]" and float(seconds) < 1.0  # both together, CPU time: a quarter of a second on a small machine


def test_check_proposes_validation_where_nothing_is_held_out(tmp_path, capsys):
    dataset = small_dataset(tmp_path / "data")
    assert cli.main(["check", str(dataset)]) == 0
    assert "--val-share" not in capsys.readouterr().err
    (dataset / "splits_final.json").unlink()
    assert cli.main(["check", str(dataset)]) == 0
    assert capsys.readouterr().err.rstrip().endswith("RUN --method scn --budget quick --val-share 0.2")
