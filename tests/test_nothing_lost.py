"""What is on the disk survives: a second process, a kill at any moment, a closed terminal, a broken file beside it."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from multiprocessing.process import BaseProcess
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import small_dataset

from scribbleseg.cli import main
from scribbleseg.config import Predict, Train
from scribbleseg.core import atomic, console
from scribbleseg.core.atomic import atomic_file
from scribbleseg.core.errors import InputError
from scribbleseg.core.lock import lock
from scribbleseg.core.progress import Progress
from scribbleseg.core.signals import STOPS, stops
from scribbleseg.data.layout import read_dataset
from scribbleseg.inference import probabilities
from scribbleseg.inference.predict import predict
from scribbleseg.inference.provenance import MADE_BY, changed
from scribbleseg.reporting.report import write_report
from scribbleseg.training.run_folder import RunFolder
from scribbleseg.training.train import resume, train

SHORT = ["--method", "pce", "--size", "32", "--batch", "4", "--device", "cpu", "--precision", "float32"]
PYTHON = "import sys, torch; torch.set_num_threads(1); from scribbleseg.cli import main; sys.exit(main())"
DEAD = 99_999_999  # more than any process number


def settings(data: Path, run: Path, **changes) -> Train:
    return Train(data, run, **{"method": "pce", "size": 32, "batch": 4, "device": "cpu", "iterations": 2} | changes)


def training(said: Path, number: int | None, *words: object) -> None:
    """`scribbleseg WORDS` in a process of `trainers`; stderr goes to the file `said`, a signal is as by default."""
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    torch.set_num_threads(1)
    if number is not None:
        signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may ignore it (nohup)
    sys.exit(main([str(word) for word in words]))


def wait_for_line(process: BaseProcess, run: Path) -> None:
    while process.is_alive() and not ((run / "log.jsonl").is_file() and (run / "log.jsonl").stat().st_size):
        time.sleep(0.005)


def log(run: Path) -> list[int]:
    return [json.loads(line)["iteration"] for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


# --- one process at a time


@pytest.mark.usefixtures("in_time")
def test_a_second_training_in_one_folder_is_refused_and_changes_nothing(small, tmp_path, trainers):
    run, said = tmp_path / "run", tmp_path / "said"
    first = trainers.Process(target=training, args=(said, None, "train", small, run, *SHORT, "--iterations", 20))
    first.start()
    wait_for_line(first, run)
    with pytest.raises(InputError, match="another process is training in this folder"):
        resume(run)
    with pytest.raises(InputError, match="exists already"):
        train(settings(small, run))
    first.join()
    assert first.exitcode == 0, said.read_text(encoding="utf-8")
    assert log(run) == list(range(1, 21))


@pytest.mark.usefixtures("in_time")
def test_two_trainings_that_begin_at_once(small, tmp_path, monkeypatch):
    """Both found the folder empty; while one reads its cases, the other is refused."""
    other = tmp_path / "run"

    def begun_meanwhile(*args):
        monkeypatch.undo()
        with pytest.raises(InputError, match="run: another process is training in this folder. Wait"):
            train(settings(small, other, seed=7))
        return build(*args)

    from scribbleseg.training import train as module

    build = module.read_training
    monkeypatch.setattr(module, "read_training", begun_meanwhile)
    train(settings(small, other, seed=3))
    assert json.loads((other / "config.json").read_text(encoding="utf-8"))["train"]["seed"] == 3
    assert log(other) == [1, 2]


def test_a_training_that_ended_between_look_and_lock_is_not_overwritten(small, tmp_path, monkeypatch):
    run = tmp_path / "run"
    locked = RunFolder.locked

    def late(folder):
        monkeypatch.undo()
        train(settings(small, run, seed=7))
        return locked(folder)

    monkeypatch.setattr(RunFolder, "locked", late)
    with pytest.raises(InputError, match="exists already and is not empty"):
        train(settings(small, run))
    assert json.loads((run / "config.json").read_text(encoding="utf-8"))["train"]["seed"] == 7


def test_a_run_that_fails_while_it_prepares_leaves_no_folder(small, tmp_path, monkeypatch):
    monkeypatch.setattr("scribbleseg.training.train.read_training", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(settings(small, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZeroDivisionError):
        train(settings(small, tmp_path / "mine"))
    assert (tmp_path / "mine").is_dir(), "the run did not make it"


@pytest.mark.usefixtures("in_time")
def test_a_lock_whose_file_was_removed_is_taken_anew(tmp_path):
    path = tmp_path / "lock"
    first = lock(path)
    assert lock(path) is None
    path.unlink()
    second = lock(path)
    assert second is not None and lock(path) is None
    first.close(), second.close()
    assert lock(path) is not None


def test_a_failed_first_step_removes_only_what_the_run_wrote(small, tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    (run / ".partial-7-mine").write_text("somebody's", encoding="utf-8")
    monkeypatch.setattr("scribbleseg.training.train.run_to_end", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(settings(small, run))
    assert [path.name for path in run.iterdir()] == [".partial-7-mine"]


# --- --resume never replaces what was trained


@pytest.mark.parametrize("in_its_place", ["nothing", "folder", "link", "pipe", "device"])
@pytest.mark.parametrize("weights", ["last", "best"])
def test_resume_refuses_without_a_checkpoint(run, in_its_place, weights):
    (run / "resume.pt").unlink()
    if weights == "best":
        (run / "last.safetensors").rename(run / "best.safetensors")
    match in_its_place:
        case "folder":
            (run / "resume.pt").mkdir()
        case "link":
            (run / "resume.pt").symlink_to("nowhere")
        case "pipe":
            os.mkfifo(run / "resume.pt")
        case "device":
            (run / "resume.pt").symlink_to(os.devnull)
    kept = (run / f"{weights}.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"has weights of iteration 2, but no checkpoint \(resume.pt\)"):
        resume(run)
    assert (run / f"{weights}.safetensors").read_bytes() == kept


def test_resume_refuses_weights_that_are_no_file(run):
    for name in ("resume.pt", "last.safetensors"):
        (run / name).unlink()
    os.mkfifo(run / "last.safetensors")
    with pytest.raises(InputError, match="last.safetensors: is not a file"):
        resume(run)


def test_weights_that_were_removed_come_back_from_the_checkpoint(run):
    kept = load_file(run / "last.safetensors")
    (run / "last.safetensors").unlink()
    resume(run)
    assert all(torch.equal(value, kept[name]) for name, value in load_file(run / "last.safetensors").items())


def test_a_checkpoint_of_another_run_is_refused(run, small, tmp_path):
    other = train(settings(small, tmp_path / "other", iterations=3, seed=1))
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    config["plan"]["recipe"]["iterations"] = 5
    (run / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shutil.copy(other / "resume.pt", run / "resume.pt")
    kept = (run / "last.safetensors").read_bytes()
    with pytest.raises(
        InputError, match="is of iteration 3, and its weights .* of iteration 2. They are not of one run"
    ):
        resume(run)
    assert (run / "last.safetensors").read_bytes() == kept


def test_a_run_that_does_not_say_its_data_is_carried_on_with_a_word(run, capsys):
    torch.save(torch.load(run / "resume.pt", weights_only=True) | {"iteration": 1}, run / "resume.pt")
    (run / "environment.json").unlink()
    resume(run)
    assert "does not say which data the run began with" in capsys.readouterr().err


def test_weights_that_are_not_finite_do_not_replace_a_checkpoint(small, tmp_path, monkeypatch):
    run = tmp_path / "run"
    from scribbleseg.training import loop

    def poisoned(recipe, progress):
        if round(8 * progress) == 6:
            with torch.no_grad():
                next(iter(states[0].method.network.parameters())).fill_(torch.nan)
        return rate(recipe, progress)

    class Kept(loop.State):
        def __init__(self, *args):
            super().__init__(*args)
            states.append(self)

    states, rate = [], loop.learning_rate
    monkeypatch.setattr("scribbleseg.training.train.State", Kept)
    monkeypatch.setattr(loop, "learning_rate", poisoned)
    monkeypatch.setattr("scribbleseg.training.calendar.Calendar.logs_at", lambda _, iteration: iteration == 8)
    with pytest.raises(InputError, match="the weights became NaN or infinite by iteration 7"):
        train(settings(small, run, iterations=8, checkpoint_every=0.0))
    assert torch.load(run / "resume.pt", weights_only=True)["iteration"] == 6
    assert all(value.isfinite().all() for value in load_file(run / "last.safetensors").values())


# --- kills and signals


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_scheduler_or_a_closed_terminal_stops_at_a_checkpoint(small, tmp_path, number, trainers):
    run, path = tmp_path / "run", tmp_path / "said"
    process = trainers.Process(target=training, args=(path, number, "train", small, run, *SHORT, "--iterations", 60))
    process.start()
    wait_for_line(process, run)
    os.kill(process.pid, number)
    process.join(300)
    said = path.read_text(encoding="utf-8")
    assert process.exitcode == 130 and "--resume" in said and "Traceback" not in said
    reached = torch.load(run / "resume.pt", weights_only=True)["iteration"]
    assert 0 < reached < 60 and log(run)[-1] == reached


def test_signals_are_given_back_and_nohup_is_respected():
    before = [signal.getsignal(number) for number in STOPS]
    with stops():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
    assert [signal.getsignal(number) for number in STOPS] == before
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stops():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before[2])


def test_training_goes_on_when_nobody_reads_its_progress(small, tmp_path):
    reader, writer = os.pipe()
    words = ["train", str(small), str(tmp_path / "run"), *SHORT, "--iterations", "3"]
    process = subprocess.Popen([sys.executable, "-c", PYTHON, *words], stderr=writer, stdout=writer)
    os.close(writer), os.close(reader)  # a `tee` that died
    assert process.wait(300) == 0
    assert torch.load(tmp_path / "run" / "resume.pt", weights_only=True)["iteration"] == 3


class Closed:
    def write(self, text):
        raise OSError(5, "Input/output error")

    def isatty(self):
        return True

    def flush(self):
        pass

    encoding = "utf-8"


def test_a_closed_terminal_ends_the_bar_and_nothing_else(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Closed())
    with Progress("training", 3, "it") as bar:
        for _ in range(3):
            bar.advance()
            bar.note("loss")
    console.say("done")
    assert bar.done == 3


def test_escape_codes_in_a_name_are_shown():
    assert console.visible("a\x1b[2Jb\tc\udcff\n") == "a\\x1b[2Jb\\tc\\udcff\n"


@pytest.mark.parametrize("earlier", [False, True])
def test_a_prediction_killed_between_its_note_and_its_name_is_made_again(run, small, tmp_path, monkeypatch, earlier):
    out = tmp_path / "out"
    if earlier:
        predict(Predict((run,), small, out, device="cpu"))
        weights = load_file(run / "last.safetensors")
        other = {name: -value if "head" in name else value for name, value in weights.items()}
        save_file(other, run / "last.safetensors", {"iteration": "2", "network": "unet"})
    replace = os.replace

    def killed(partial, path):
        if Path(path).name != MADE_BY:
            raise KeyboardInterrupt
        replace(partial, path)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        predict(Predict((run,), small, out, device="cpu", tta=True))
    monkeypatch.setattr(os, "replace", replace)
    assert changed(out) == []
    files = predict(Predict((run,), small, out, device="cpu", tta=True))
    assert changed(out) == [] and all(path.is_file() for path in files)
    files[0].write_bytes(files[0].read_bytes() + b" ")
    assert changed(out) == [files[0].name]
    with pytest.raises(InputError, match="exists already"):
        predict(Predict((run,), small, out, device="cpu"))


def test_the_note_knows_a_mask_before_it_has_its_name(run, small, tmp_path, monkeypatch):
    order = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda partial, path: (order.append(Path(path).name), replace(partial, path)))
    files = predict(Predict((run,), small, tmp_path / "out", device="cpu"))
    assert order == [MADE_BY, *(name for path in files for name in (MADE_BY, path.name))]


# --- partial and hidden files


def test_what_killed_processes_left_is_swept(tmp_path):
    old, new, live = (tmp_path / f".partial-{number}-a" for number in (DEAD, DEAD - 1, os.getppid()))
    for path in (old, new, live):
        path.write_text("half", encoding="utf-8")
    for path in (old, live):
        os.utime(path, (0, 0))
    (tmp_path / f".partial-{DEAD}-other").touch()
    with atomic_file(tmp_path / "a") as partial:
        partial.write_text("whole", encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} == {"a", new.name, live.name, f".partial-{DEAD}-other"}
    atomic.sweep(tmp_path, "*", seconds=0)
    assert {path.name for path in tmp_path.iterdir()} == {"a", live.name}


def test_resume_sweeps_the_runs_own_partial_files(small, tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setattr("scribbleseg.training.loop.pictures", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(settings(small, run, iterations=6, checkpoint_every=0.0))
    monkeypatch.undo()
    (run / "pictures").mkdir(exist_ok=True)
    left = [run / f".partial-{DEAD}-resume.pt", run / "pictures" / f".partial-{DEAD}-000001.npz"]
    other = run / f".partial-{DEAD}-report.html"
    for path in (*left, other):
        path.touch()
    resume(run)
    assert not any(path.exists() for path in left) and other.exists()


def test_the_report_is_not_stopped_by_pictures_that_cannot_be_read(run, tmp_path, capsys):
    pictures = sorted((run / "pictures").glob("*.npz"))
    whole = pictures[0].read_bytes()
    pictures[0].write_bytes(b"")
    (run / "pictures" / f".partial-{DEAD}-000001.npz").write_bytes(whole[:100])
    (run / "pictures" / "000009.npz").write_bytes(whole[:200])
    assert write_report(run, tmp_path / "report.html").is_file()
    said = capsys.readouterr().err
    assert f"{pictures[0]}: cannot be read" in said and ".partial" not in said


def test_the_report_names_pictures_of_other_content(run, tmp_path, capsys):
    (run / "pictures").mkdir(exist_ok=True)
    plane, claim = np.zeros((1, 8, 8)), io.BytesIO()
    np.lib.format.write_array_header_1_0(claim, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**6)})
    contents = {
        "1": {"image": plane},
        "2": {"image": plane, "scribble": plane, "prediction": np.zeros((1, 9, 9))},
        "3": {"image": np.zeros(1), "scribble": np.zeros(1), "prediction": np.zeros(1)},
        "x": {"image": plane, "scribble": plane, "prediction": plane},
    }
    for name, arrays in contents.items():
        np.savez(run / "pictures" / f"{name}.npz", **arrays)
    np.save(run / "pictures" / "4.npy", plane)
    (run / "pictures" / "4.npy").rename(run / "pictures" / "4.npz")
    with zipfile.ZipFile(run / "pictures" / "5.npz", "w") as file:
        file.writestr("image.npy", claim.getvalue())
    assert write_report(run, tmp_path / "report.html").is_file()
    said = capsys.readouterr().err
    assert all(f"{run / 'pictures' / name}.npz: cannot be read" in said for name in "12345x")


def test_names_that_begin_with_a_dot_are_no_splits(small, tmp_path):
    data = Path(shutil.copytree(small, tmp_path / "data"))
    (data / "splits").mkdir()
    (data / "splits" / "mine.json").write_text(
        json.dumps([{"name": "a", "train": ["case.0 a"], "test": ["case.1 a"]}]), encoding="utf-8"
    )
    (data / "splits" / "._mine.json").write_bytes(b"\0\5\x16\7")
    for folder in ("imagesTr", "labelsTr", "labelsTr_dense"):
        (data / folder / "._case.0 a_0000.nii.gz").write_bytes(b"\0\5\x16\7")
    dataset = read_dataset(data)
    assert dataset.default_split() == "mine" and len(dataset.cases) == 6 and dataset.splits() == ["final", "mine"]


# --- numbers that are none


def test_predictions_that_are_not_finite_are_an_error(run, small, tmp_path, capsys, monkeypatch):
    weights = load_file(run / "last.safetensors")
    name = next(name for name in weights if weights[name].is_floating_point())
    kept = weights[name].clone()
    weights[name].view(-1)[0] = torch.nan
    save_file(weights, run / "last.safetensors", {"iteration": "2", "network": "unet"})
    assert main(["predict", str(run), str(small), str(tmp_path / "out")]) == 2
    assert f"last.safetensors: the weights are NaN or infinite ({name})" in capsys.readouterr().err
    weights[name] = kept
    save_file(weights, run / "last.safetensors", {"iteration": "2", "network": "unet"})
    monkeypatch.setattr(probabilities, "mean_probs", lambda *_: [np.full((3, 3, 36, 40), np.nan, np.float32)])
    assert main(["predict", str(run), str(small), str(tmp_path / "out")]) == 2
    assert "the network's output for it is NaN or infinite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_image_too_wide_for_its_numbers_is_named(run, tmp_path, capsys):
    image = np.linspace(-3.3e38, 3.3e38, 40 * 36 * 3, dtype=np.float32).reshape(40, 36, 3)
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), tmp_path / "wide.nii.gz")
    assert main(["predict", str(run), str(tmp_path / "wide.nii.gz"), str(tmp_path / "out.nii.gz")]) == 2
    assert "wide.nii.gz: has voxels from -3.3e+38 to 3.3e+38, too far apart" in capsys.readouterr().err


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A run that stands at iteration 0, and its data set, both named as seen from the folder that they lie in."""
    small_dataset(tmp_path / "work" / "data")
    monkeypatch.chdir(tmp_path / "work")
    settings = Train(Path("data"), Path("runs/mine"), method="pce", size=32, batch=2, iterations=2, device="cpu")
    train(settings)
    for name in ("resume.pt", "last.safetensors"):
        (Path("runs/mine") / name).unlink()
    return tmp_path / "work"


def test_a_run_finds_its_data_set_from_another_folder(stopped, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    resume(stopped / "runs" / "mine")
    assert (stopped / "runs" / "mine" / "last.safetensors").is_file()


def test_a_data_set_that_is_gone_is_named_with_the_way_out(stopped):
    (stopped / "data").rename(stopped / "moved")
    with pytest.raises(InputError, match="mine: its data set data is neither here nor in a folder above the run. Put"):
        resume(stopped / "runs" / "mine")


def test_a_run_whose_image_is_gone_says_so(stopped):
    image = next((stopped / "data" / "imagesTr").iterdir())
    image.unlink()
    case = image.name.removesuffix("_0000.nii.gz")
    with pytest.raises(InputError, match=f"mine: began with {case}; data has no image of that name now. Put the files"):
        resume(stopped / "runs" / "mine")
