"""The command line: exit codes, one-line messages, a light start."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import psutil
import pytest
import torch
from small import small_dataset

from scribbleseg import __version__, cli
from scribbleseg.config import Argument, Bench, Evaluate, Resume, Train
from scribbleseg.core.errors import InputError
from scribbleseg.methods import METHODS


@pytest.fixture
def call(capsys):
    """(exit code, stdout, stderr) of one command, in process."""

    def run(*words):
        code = cli.main([str(word) for word in words])
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
    assert code == 0
    assert re.findall(r"^  (\w+) +[A-Z]", out.partition("Commands:")[2], re.MULTILINE) == list(cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_each_verb_has_help(call, verb):
    code, out, err = call(verb, "--help")
    assert code == 0 and err == "" and out.startswith(f"Usage: scribbleseg {verb} [OPTIONS]")
    assert call(verb, "-h") == (code, out, err)
    kind, _ = cli.VERBS[verb]
    assert kind.__doc__.splitlines()[0] in " ".join(out.split())


@pytest.mark.usefixtures("no_step_is_timed")
def test_a_data_set_that_is_not_usable_exits_with_1(call, small, tmp_path):
    code, out, _ = call("check", small)
    assert code == 0 and out.endswith("\nusable\n")
    code, out, _ = call("check", tmp_path)
    assert code == 1 and "problem: " in out and out.endswith("not usable\n")


def test_ctrl_c_exits_with_130_and_says_how_to_carry_on(call, monkeypatch, small, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("scribbleseg.demo.demo", interrupted)  # first: it imports the other two by name
    monkeypatch.setattr("scribbleseg.training.train.train", interrupted)
    monkeypatch.setattr("scribbleseg.inference.predict.predict", interrupted)
    run = tmp_path / "run"
    again = "scribbleseg: stopped. The run had not started yet: give the same command again.\n"
    assert call("train", small, run) == (130, "", again)
    run.mkdir()
    (run / "config.json").touch()
    resume = f"scribbleseg: stopped. Continue with: scribbleseg train {run} --resume\n"
    assert call("train", small, run) == (130, "", resume)
    assert call("train", "--fold", 0, small, run) == (130, "", resume)
    monkeypatch.setattr("scribbleseg.training.train.resume", interrupted)
    assert call("train", run, "--resume") == (130, "", resume)
    assert call("predict", "run", "in", "out") == (130, "", "scribbleseg: stopped.\n")
    assert call("demo") == (130, "", "scribbleseg: stopped. Continue with the same command.\n")


def test_what_only_the_system_knows_exits_with_2_and_a_bug_does_not_hide(refused, monkeypatch):
    def fail(error):
        monkeypatch.setattr("scribbleseg.data.check.check", lambda *_: (_ for _ in ()).throw(error))

    fail(PermissionError(13, "Permission denied", "/there/dataset.json"))
    denied = "[Errno 13] Permission denied: '/there/dataset.json'. Change its permissions, or name another place."
    assert refused("check", "set") == f"scribbleseg: {denied}"
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
        (["trian"], "No such command 'trian'. Did you mean 'train'? See scribbleseg --help."),
        (["--nope"], "No such option '--nope'. See scribbleseg --help."),
        ([], "No command given. Known: demo, phantom, "),
        (
            ["train", "SET", "RUN", "--itertions", "3"],
            "No such option '--itertions'. (Did you mean one of: '--iterations'",
        ),
        (["train", "SET", "RUN", "--sede=3"], "'--seed'"),
        (["train", "SET", "RUN", "--no-tensorboard"], "Did you mean '--tensorboard'?"),
        (["predict", "RUN", "IN", "OUT", "--uncertainity"], "Did you mean '--uncertainty'?"),
        (["phantom", "DST", "--case", "3"], "Did you mean one of: '--cases'"),
        (["check", "--nope"], "No such option '--nope'. See scribbleseg check --help."),
        (["train", "SET", "RUN", "--method", "efdnet"], "no method 'efdnet'. Did you mean 'effdnet'?"),
        (["train", "SET", "RUN", "--method", "pce", "--split", "finl"], "no split 'finl'. Did you mean 'final'?"),
        (
            ["train", "SET", "RUN", "--method", "effdnet", "--set", "lamb=1"],
            "effdnet has no option 'lamb'. Did you mean 'lam'?",
        ),
        (["train", "SET", "RUN", "--method", "my_package.mine:Mine"], "cannot be imported"),
        (["train", "SET", "RUN", "--method", "pathlib:Path"], "Path is no method"),
        (["methods", "dmlps"], "no method 'dmlps'. Did you mean 'dmpls'?"),
        (["methods", "nope"], "no method 'nope'. Known: corral,"),
    ],
)
def test_the_nearest_name(refused, small, tmp_path, words, expected):
    places = {"SET": small, "RUN": tmp_path / "run", "DST": tmp_path / "dst"}
    assert expected in refused(*(places.get(word, word) for word in words))
    assert not list(tmp_path.iterdir())


def test_options_become_settings(call, monkeypatch):
    got = []
    monkeypatch.setattr("scribbleseg.training.train.train", got.append)
    words = ["--val-share=0.2", "--validations", "3", "--deterministic", "--set", "a=1", "--batch", "7", "--set=b=-2"]
    assert call("train", "data", "--optimizer", "adam", "run", *words)[:2] == (0, "")
    assert got == [
        Train(
            Path("data"),
            Path("run"),
            optimizer="adam",
            val_share=0.2,
            validations=3,
            deterministic=True,
            set=("a=1", "b=-2"),
            batch=7,
        )
    ]
    assert cli.parse(["train", "data", "run"]) == Train(Path("data"), Path("run"))
    assert cli.parse(["bench", "--fold", "0", "plan.toml", "--fold", "1"]) == Bench(Path("plan.toml"), folds=(0, 1))
    assert cli.parse(["evaluate", "--class-name", "RV", "a", "b", "--class-name", "left ventricle"]) == Evaluate(
        Path("a"), Path("b"), classes=("RV", "left ventricle")
    )


@pytest.mark.parametrize(
    "words, said",
    [
        (
            ["train", "a", "b", "--iterations", "many"],
            "Invalid value for '--iterations': 'many' is not a valid integer.",
        ),
        (["train", "a", "b", "--budget", "papr"], "'papr' is not one of 'paper', 'quick'"),
        (["train", "a"], "Missing argument 'RUN'"),
        (["import", "acdk", "a", "b"], "'acdk' is not one of 'acdc', 'wsl4mis', 'mscmr', 'nci-isbi'"),
        (["predict", "a"], "Missing argument"),
    ],
)
def test_values_of_another_type_and_missing_words_exit_with_2(refused, words, said):
    error = refused(*words)
    assert said in error and error.endswith(f"See scribbleseg {words[0]} --help.")


def test_predict_says_which_of_its_three_is_missing(refused, trained):
    expected = "Expected RUN [RUN ...] INPUT OUTPUT."
    assert refused("predict", "scans", "out").endswith(f"scans, out: RUN is missing. {expected}")
    assert refused("predict", str(trained), "scans").endswith(f"{trained}, scans: OUTPUT is missing. {expected}")


@pytest.mark.parametrize(
    "line, expected",
    [
        ("train data run --set a=1 b=2", "(b=2). Repeat the option for each value: --set NAME=VALUE --set NAME=VALUE."),
        ("train --set a=1 b=2 data run", "(run). Repeat the option for each value: --set NAME=VALUE --set NAME=VALUE."),
        ("bench plan.toml --folds 0 1", "No such option '--folds'. (Did you mean one of: '--fold', "),
        ("bench --folds 0 1 plan.toml", "Repeat the option for each value: --fold N --fold N."),
        ("bench plan.toml --fold 0 1", "(1). Repeat the option for each value: --fold N --fold N."),
        (
            "evaluate --classes A B pred truth",
            "No such option '--classes'. Did you mean '--class-name'? Repeat the option",
        ),
        ("evaluate pred truth --classes A", "Repeat the option for each value: --class-name NAME --class-name NAME."),
    ],
)
def test_the_old_form_of_a_repeated_option_names_the_new_one(refused, line, expected):
    assert expected in refused(*line.split())


def test_an_extra_word_alone_says_nothing_of_repeated_options(refused):
    assert refused("train", "data", "run", "more") == (
        "scribbleseg: Got unexpected extra argument (more). See scribbleseg train --help."
    )


# --- verbs


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
    words = " ".join(call("predict", "--help")[1].split())
    assert words.startswith("Usage: scribbleseg predict [OPTIONS] RUN [RUN ...] INPUT OUTPUT")
    assert "RUN [RUN ...] Run folders or packed models." in words


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_has_a_sentence_for_every_setting(call, verb):
    kind, _ = cli.VERBS[verb]
    words = " ".join(call(verb, "--help")[1].split())
    assert "None" not in words and "OPTIONAL" not in words
    for name, hint in get_type_hints(kind, include_extras=True).items():
        shown = hint.__metadata__[0]
        assert shown.help.endswith((".", ".)")) and " ".join(shown.help.split()) in words, name
        assert isinstance(shown, Argument) or f"--{shown.name or name.replace('_', '-')} " in words, name
        assert isinstance(shown, Argument) or not shown.default or f"[default: ({shown.default})]" in words, name


def test_methods_lists_every_method_in_a_line(call):
    code, out, _ = call("methods")
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == list(METHODS)
    assert all(len(line.split()) > 2 for line in out.splitlines())
    code, out, _ = call("methods", "effdnet")
    assert code == 0 and out.startswith("effdnet: ") and "--set lam=" in out and "iterations 60000" in out
    assert "\nnetwork: unet, or one that has features_and_logits\n" in out
    assert "\nnetwork: unet, or any other\n" in call("methods", "pce")[1]


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
    for words, said in (
        ([run, "--resume", "--step-at", "1", "--lr=1"], "It was also given --step-at, --lr."),
        ([small, run, "--resume", "--network=foo:Bar"], f"It was also given {run}."),
        (["--resume", "--method", "pce"], "No folder was given."),
    ):
        error = refused("train", *words)
        assert "--resume takes only the run folder" in error and said in error
        assert error.endswith("scribbleseg train RUN --resume")
    assert "not a run folder" in refused("train", tmp_path, "--resume")


def test_resume_is_an_option_of_train(call, refused):
    assert "--resume " in call("train", "--help")[1]
    assert "Did you mean one of: '--preset', '--resume'?" in refused("train", "run", "--resum")
    for words in (["--network=foo:Bar", "run", "--resume"], ["--resume", "run", "--network", "foo:Bar"]):
        assert cli.parse(["train", *words]) == Resume(Path("run"), network="foo:Bar")
    assert cli.parse(["train", "data", "run", "--method=--resume"]) == Train(Path("data"), Path("run"), "--resume")


def test_resume_carries_on_from_the_checkpoint(call, trained, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    stored = json.loads((run / "config.json").read_text(encoding="utf-8"))
    stored["plan"]["recipe"]["iterations"] = 4
    (run / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    code, _, err = call("train", run, "--resume")
    assert code == 0 and "training pce: 4/4 it" in err and "is finished" not in err
    began = torch.load(trained / "resume.pt", weights_only=True)["iteration"]
    assert f"{run}: goes on after iteration {began} of 4\n" in err
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
    split, *lines, last = said[0][2].splitlines()
    assert split.startswith(f"{small}: split final, fold 0 of 1 (from 0); training: ")
    assert [line.split(",")[0] for line in lines] == [
        *("looking at strokes: 4/4 cases", "reading cases: 4/4 cases"),
        *("pce: 1 iteration of 2 slices of 32 × 32 pixels", "training pce: 1/1 it"),
    ]
    assert last.startswith(f"run: {run}; next: ")
    out, truth = tmp_path / "out", small / "labelsTr_dense"
    assert said[1][2].endswith(f"\npredictions: {out}, 2 files; next: scribbleseg evaluate {out} {truth}\n")
    assert said[2][2].endswith(f"\nscores: {tmp_path / 'scores.csv'}\n")
    assert said[1][2].startswith("predicting the 2 test cases of fold 0\npredicting: 2/2 cases, ") and said[2][
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


def test_threads_that_wait_leave_their_core(tmp_path):
    """OpenMP reads the policy when it is loaded, so that it has to be set before PyTorch is imported."""
    code = "import sys, psutil, scribbleseg.cli as cli; psutil.cpu_percent = lambda _: 100; cli.main(sys.argv[1:])"
    words = [sys.executable, "-c", code, "predict", tmp_path, tmp_path, tmp_path / "out"]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    said = subprocess.run(
        words, env=environment | {"OMP_DISPLAY_ENV": "verbose"}, capture_output=True, text=True
    ).stderr
    assert "not a run folder" in said
    assert re.search(r"OMP_WAIT_POLICY *= *'PASSIVE'", said)
    spins = re.search(r"GOMP_SPINCOUNT *= *'(\d+)'", said)  # GNU's OpenMP calls it PASSIVE also where nothing is set
    assert spins is None or spins[1] == "0"


@pytest.mark.parametrize(
    ("busy", "given", "policy"), [(26, None, "passive"), (26, "active", "active"), (24, None, None)]
)
def test_what_the_user_says_of_waiting_threads_stays_and_an_idle_machine_sets_nothing(
    tmp_path, monkeypatch, busy, given, policy
):
    """Percent of two cores: 25 are half a core."""
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")  # so that monkeypatch restores what the verb sets
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: busy)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    assert cli.main(["evaluate", str(tmp_path), str(tmp_path)]) == 2  # has no threads
    assert os.environ.get("OMP_WAIT_POLICY") == given
    assert cli.main(["predict", *map(str, [tmp_path, tmp_path, tmp_path / "out"])]) == 2
    assert os.environ.get("OMP_WAIT_POLICY") == policy


def test_other_programs_that_work_now_are_noticed():
    busy = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE, text=True
    )
    try:
        busy.stdout.readline()
        assert cli._beside_others()
    finally:
        busy.kill()
        busy.communicate()


def test_a_system_that_does_not_tell_who_works_sets_nothing(monkeypatch):
    def unknown(interval):
        raise PermissionError("/proc/stat")

    monkeypatch.setattr(psutil, "cpu_percent", unknown)
    assert not cli._beside_others()


def test_help_is_quick_and_imports_nothing_heavy():
    code = """
import io, sys, time, contextlib
from scribbleseg.cli import main
for words in (["--help"], ["train", "--help"]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main(words)
    assert "Usage: scribbleseg" in out.getvalue()
heavy = ["torch", "numpy", "scipy", "skimage", "matplotlib", "h5py", "nibabel", "monai", "SimpleITK"]
heavy += ["safetensors", "tqdm", "jinja2", "tabulate"]
print([name for name in heavy if name in sys.modules], time.process_time())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, seconds = done.stdout.strip().rsplit(" ", 1)
    assert loaded == "[]" and float(seconds) < 1.0  # both together, CPU time: a quarter of a second on a small machine


def test_what_a_stopped_draw_says_imports_nothing_heavy(tmp_path):
    """The import of PyTorch may be what was stopped; what is left of it fails in many ways."""
    code = f"""
import sys
from pathlib import Path
from scribbleseg import cli, config
print(cli._how_to_continue(config.Draw(Path({str(tmp_path)!r}))), "torch" in sys.modules, "numpy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "No class was named. Continue with the same command. False False"


@pytest.mark.usefixtures("no_step_is_timed")
def test_check_proposes_validation_where_nothing_is_held_out(tmp_path, capsys):
    dataset = small_dataset(tmp_path / "data")
    assert cli.main(["check", str(dataset)]) == 0
    assert "--val-share" not in capsys.readouterr().err
    (dataset / "splits_final.json").unlink()
    assert cli.main(["check", str(dataset)]) == 0
    assert capsys.readouterr().err.rstrip().endswith("RUN --preset fast --val-share 0.2")
    one = small_dataset(tmp_path / "one", cases=1)
    (one / "splits_final.json").unlink()
    assert cli.main(["check", str(one)]) == 0
    assert capsys.readouterr().err.rstrip().endswith("RUN --preset fast"), "nobody can be set aside"


@pytest.mark.usefixtures("no_step_is_timed")
def test_check_proposes_a_split_where_one_has_to_be_named(tmp_path, capsys):
    dataset = small_dataset(tmp_path / "data")
    (dataset / "splits").mkdir()
    content = json.loads((dataset / "splits_final.json").read_text(encoding="utf-8"))
    folds = json.dumps([{"train": fold["train"], "test": fold["val"]} for fold in content])
    (dataset / "splits_final.json").unlink()
    for name, option in (("tuning", " --split tuning"), ("z", ""), ("zz y", " --split z")):
        (dataset / "splits" / f"{name}.json").write_text(folds, encoding="utf-8")
        assert cli.main(["check", str(dataset)]) == 0
        assert capsys.readouterr().err.rstrip().endswith(f"RUN --preset fast{option}")
