import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small import plan_of, small_dataset

from scribbleseg.config import Train
from scribbleseg.core.device import pick_precision
from scribbleseg.core.environment import environment
from scribbleseg.core.errors import InputError
from scribbleseg.core.labels import UNLABELED
from scribbleseg.core.progress import Progress
from scribbleseg.core.recipe import Recipe
from scribbleseg.data.case import load_volume
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.preparation import resize_image, resize_label
from scribbleseg.data.reading import build_slices
from scribbleseg.data.voxels import Slices
from scribbleseg.inference.models import load_network
from scribbleseg.methods.base import Method
from scribbleseg.training.augment import random_affine
from scribbleseg.training.average import Average
from scribbleseg.training.batches import augment_slices
from scribbleseg.training.calendar import Calendar
from scribbleseg.training.checkpoint import weights_iteration, write_weights
from scribbleseg.training.loop import run_to_end, validate
from scribbleseg.training.machine import Machine
from scribbleseg.training.optimizer import learning_rate
from scribbleseg.training.plan import read_plan
from scribbleseg.training.recipe import PRESETS
from scribbleseg.training.run_folder import RunFolder
from scribbleseg.training.sampling import Sampler, epoch_order
from scribbleseg.training.state import State
from scribbleseg.training.step import Step
from scribbleseg.training.train import resume, train
from scribbleseg.training.validation import Validation, validation_dice

CPU = Machine(torch.device("cpu"), torch.float32, compiled=False, recorded=False, deterministic=False)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_dataset(tmp_path_factory.mktemp("data") / "small")


def settings(dataset, run, **changes):
    return Train(dataset, run, **{"method": "pce", "iterations": 3, "size": 32, "batch": 4, **changes})


def same_weights(one: Path, other: Path) -> bool:
    a, b = load_file(one / "last.safetensors"), load_file(other / "last.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def untimed_log(run: Path) -> list[dict]:
    return [
        {key: value for key, value in entry.items() if key not in ("seconds_per_iteration", "peak_memory_mib")}
        for entry in log(run)
    ]


def test_a_run_folder_is_complete(dataset, tmp_path):
    run = train(settings(dataset, tmp_path / "run", method="effdnet", iterations=12, val_share=0.3))
    assert {"config.json", "environment.json", "log.jsonl", "last.safetensors", "best.safetensors", "resume.pt"} <= set(
        os.listdir(run)
    )
    assert not [name for name in os.listdir(run) if "partial" in name]
    entries = log(run)
    assert [entry["iteration"] for entry in entries] == list(range(1, 13))
    assert set(entries[0]["losses"]) == {"pce", "pseudo", "pce_fadc", "pseudo_fadc", "fbsl"}
    assert entries[0]["lr"] == 0.01 and entries[-1]["lr"] == pytest.approx(0.01 * (1 / 12) ** 0.9)
    validated = [entry["val_mean_dice"] for entry in entries if "val_mean_dice" in entry]
    assert len(validated) == 10
    plan = json.loads((run / "config.json").read_text(encoding="utf-8"))["plan"]
    fold = {part: set(plan["fold"][part]) for part in ("train", "val", "test")}
    assert (len(fold["train"]), len(fold["val"]), len(fold["test"])) == (3, 1, 2)
    assert not fold["train"] & fold["val"] and not fold["train"] & fold["test"]


def test_training_learns_the_squares(dataset, tmp_path):
    run = train(settings(dataset, tmp_path / "run", method="fullsup", iterations=60, lr=0.05, val_share=0.3))
    assert log(run)[-1]["val_mean_dice"] > 0.8


def test_without_dense_masks_validation_is_on_scribbled_pixels(tmp_path, capsys):
    data = small_dataset(tmp_path / "bare", dense=False)
    run = train(settings(data, tmp_path / "run", iterations=20, lr=0.05, val_share=0.3, validations=2))
    said = capsys.readouterr().err
    config, plan = read_plan(run)
    assert (
        f"validation: 1 of 4 cases ({plan.fold.val[0]})\n" in said
        and "Dice is computed on their scribbled pixels only" in said
    )
    assert plan.val_on_scribbles and len(plan.fold.val) == 1
    network, dtype, size = load_network(run, plan), pick_precision(config.precision, torch.device("cpu")), plan.size
    volume = load_volume(read_dataset(data), read_dataset(data).case(plan.fold.val[0]), plan.fitted)
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = network(resize_image(volume.image, size).contiguous(memory_format=torch.channels_last)).argmax(1)
    drawn = resize_label(volume.scribble, size)
    for value, name in ((1, "square"), (2, "core")):
        overlap = int((found.eq(value) & drawn.eq(value)).sum())
        expected = 2 * overlap / int((found.eq(value) & drawn.ne(UNLABELED)).sum() + drawn.eq(value).sum())
        assert log(run)[-1]["val_dice"][name] == pytest.approx(expected) and expected > 0.1


def test_scans_of_another_ending_are_not_passed_over_in_silence(tmp_path, capsys):
    data = small_dataset(tmp_path / "data", cases=3)
    (data / "imagesTr" / "far_0000.nrrd").touch()
    train(settings(data, tmp_path / "run", iterations=1))
    assert (
        f"{data}: files that are not read: imagesTr 1 .nrrd. A data set has one file ending, here '.nii.gz'"
        in capsys.readouterr().err
    )


def test_dense_masks_are_preferred_for_validation(dataset, tmp_path, capsys):
    assert not plan_of(settings(dataset, tmp_path / "run", val_share=0.3)).val_on_scribbles
    some = small_dataset(tmp_path / "some")
    for index in (0, 1, 3):
        (some / "labelsTr_dense" / f"case.{index} a.nii.gz").unlink()
    plan = plan_of(settings(some, tmp_path / "run", val_share=0.3))
    assert plan.fold.val == ("case.2 a",) and not plan.val_on_scribbles
    (some / "splits").mkdir()
    rows = [{"name": "mixed", "train": ["case.0 a"], "val": ["case.1 a", "case.2 a"], "test": []}]
    (some / "splits" / "mixed.json").write_text(json.dumps(rows), encoding="utf-8")
    assert not plan_of(settings(some, tmp_path / "run", split="mixed")).val_on_scribbles, "one dense mask is there"
    train(settings(some, tmp_path / "run", split="mixed", iterations=1))
    assert (
        "validation: 2 of 3 cases (case.1 a, case.2 a); Dice is computed on the 1 with a dense mask\n"
        in capsys.readouterr().err
    )


def test_scribbled_patients_are_set_aside_not_undrawn_ones(tmp_path):
    data = small_dataset(tmp_path / "bare", dense=False)
    for index in (0, 2, 3):
        (data / "labelsTr" / f"case.{index} a.nii.gz").unlink()
    assert plan_of(settings(data, tmp_path / "run", val_share=0.3)).fold.val == ("case.1 a",)


def test_whole_patients_are_set_aside(tmp_path):
    data = small_dataset(tmp_path / "pairs", cases=9)
    info = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    info["groups"] = {f"case.{index} a": f"patient{index // 2}" for index in range(6)}
    (data / "dataset.json").write_text(json.dumps(info), encoding="utf-8")
    for seed in range(4):
        fold = plan_of(settings(data, tmp_path / "run", val_share=0.5, seed=seed)).fold
        held, trained = ({int(name[5]) // 2 for name in part} for part in (fold.val, fold.train))
        assert len(held) == 2 and len(fold.val) == 4 and trained == {0, 1, 2} - held  # half of three patients, rounded


def test_val_share_that_leaves_nobody_to_train_on_names_itself(dataset, tmp_path):
    with pytest.raises(
        InputError, match=r"--val-share 0.9: would set all of 4 training patients aside. Give a smaller share"
    ):
        plan_of(settings(dataset, tmp_path / "run", val_share=0.9))
    one = small_dataset(tmp_path / "one", cases=1)
    (one / "splits_final.json").unlink()
    with pytest.raises(InputError, match=r"would set all of 1 training patient aside. Leave it out\.$"):
        plan_of(settings(one, tmp_path / "run", val_share=0.2))
    data = small_dataset(tmp_path / "empty")
    (data / "splits_final.json").write_text(json.dumps([{"train": [], "val": ["case.1 a"]}]), encoding="utf-8")
    with pytest.raises(InputError, match="fold 0 of 'final' has no training case. Correct the split"):
        plan_of(settings(data, tmp_path / "run", val_share=0.9))


def test_validation_scribbles_without_foreground_are_refused(tmp_path):
    data = small_dataset(tmp_path / "bare", dense=False)
    (name,) = plan_of(settings(data, tmp_path / "run", val_share=0.3)).fold.val
    path = data / "labelsTr" / f"{name}.nii.gz"
    image = nibabel.load(path)
    label = np.asarray(image.dataobj)
    nibabel.save(nibabel.Nifti1Image(np.where(label == 0, 0, 3).astype(np.uint8), image.affine), path)
    with pytest.raises(InputError, match="no validation case has foreground in its mask or scribble"):
        train(settings(data, tmp_path / "run", val_share=0.3))


@pytest.mark.parametrize("taught, iterations, short", [(1, 199, True), (0, 199, False), (1, 200, False)])
def test_a_run_that_is_too_short_for_half_time_says_so(
    dataset, tmp_path, capsys, monkeypatch, taught, iterations, short
):
    monkeypatch.setattr("scribbleseg.training.train.run_to_end", lambda *_: None)
    train(settings(dataset, tmp_path / "run", method="corral", set=(f"taught={taught}",), iterations=iterations))
    said = "corral: a run of less than 200 iterations is too short to label slices anew\n"
    assert (said in capsys.readouterr().err) is short


class Swept(Method):
    """Its loss is the mean of a 1×1 convolution; it notes after how many steps it sweeps, and what it is told then."""

    sweeps = 3

    def __init__(self):
        super().__init__(torch.nn.Conv2d(1, 2, 1))
        self.steps, self.swept = 0, []

    def losses(self, batch, progress):
        return {"mean": self.network(batch.image).mean()}

    def after_step(self, progress):
        self.steps += 1

    def sweep(self, slices, progress):
        self.swept.append((self.steps, progress.item(), slices))


def test_a_method_sweeps_right_after_each_third_of_the_steps_and_not_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("scribbleseg.training.calendar.SWEEP_DISTANCE", 3)
    method = Swept()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    slices = Slices(torch.rand(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.uint8), {}, None)
    state, step = State(method, optimizer, None, CPU.device), Step(method, optimizer, slices, torch.float32)
    sampler, calendar = Sampler([(torch.arange(2), 1)], seed=0), Calendar(9, method.sweeps, 0, 60.0)
    folder = RunFolder(tmp_path / "run", writes=False)
    with Progress("training", 9, "it", shown=False) as bar:
        run_to_end(state, step, sampler, Recipe(iterations=9), calendar, folder, None, CPU, 0, [], bar)
    assert [steps for steps, _, _ in method.swept] == [3, 6] and method.steps == 9
    assert [share for _, share, _ in method.swept] == pytest.approx([1 / 3, 2 / 3])
    assert all(swept is slices for _, _, swept in method.swept)


def test_a_run_whose_dense_masks_went_away_says_so(tmp_path):
    data = small_dataset(tmp_path / "some")
    run = train(settings(data, tmp_path / "run", val_share=0.3))
    shutil.rmtree(data / "labelsTr_dense")
    for name in ("resume.pt", "last.safetensors", "best.safetensors"):  # as if cut off before its first checkpoint
        (run / name).unlink()
    with pytest.raises(InputError, match="no validation case has a mask in labelsTr_dense any more"):
        resume(run)


@pytest.mark.parametrize("dense", [True, False])
def test_the_log_carries_what_scn_monitors(dataset, tmp_path, dense):
    data = dataset if dense else small_dataset(tmp_path / "bare", dense=False)
    names = {"threshold", "coverage", "coverage_refined", "changed", "accepted"}
    entries = log(train(settings(data, tmp_path / "run", method="scn", iterations=3, batch=2, set=("threshold=0.4",))))
    assert len(entries) == 3
    for entry in entries:
        monitor = entry["monitor"]
        assert set(monitor) == (names | {"pseudo_accuracy", "pseudo_accuracy_foreground"} if dense else names)
        assert all(0 <= value <= 1 for value in monitor.values())
        assert monitor["coverage_refined"] >= monitor["coverage"] > 0 and monitor["threshold"] == pytest.approx(
            0.4, abs=0.01
        )
    assert len({entry["monitor"]["threshold"] for entry in entries}) == 3, "one value for each step"
    assert not names & set(entries[0]["losses"])


@pytest.mark.slow
@pytest.mark.parametrize("method, preset", [("effdnet", "paper"), ("ustm", "paper"), ("pce", "fast")])
def test_a_killed_run_resumes_to_the_same_weights(dataset, tmp_path, method, preset):
    whole = train(
        settings(dataset, tmp_path / "whole", method=method, preset=preset, iterations=12, checkpoint_every=0.0)
    )
    killed = tmp_path / "killed"
    command = [
        sys.executable,
        "-c",
        "import torch; torch.set_num_threads(1); from scribbleseg.cli import main; main()",
        "train",
        str(dataset),
        str(killed),
    ]
    command += [
        "--method",
        method,
        "--preset",
        preset,
        "--iterations",
        "12",
        "--size",
        "32",
        "--batch",
        "4",
        "--checkpoint-every",
        "0",
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        lines = (
            (killed / "log.jsonl").read_text(encoding="utf-8").count("\n") if (killed / "log.jsonl").is_file() else 0
        )
        if lines >= 3:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.005)
    reached = torch.load(killed / "resume.pt", weights_only=True)["iteration"]
    assert process.returncode == -signal.SIGKILL and 0 < reached < 12
    resume(killed)
    assert same_weights(whole, killed)
    assert [entry["iteration"] for entry in log(killed)] == list(range(1, 13))
    assert untimed_log(killed) == untimed_log(whole)


@pytest.mark.parametrize(
    "method, options, end", [("corral", ("taught=1",), 2), ("corral", ("taught=1",), 4), ("s2l", (), 4)]
)
def test_a_run_cut_off_before_or_after_a_sweep_goes_on_the_same(dataset, tmp_path, monkeypatch, method, options, end):
    monkeypatch.setattr("scribbleseg.training.calendar.SWEEP_DISTANCE", 2)  # half-time of six is after three
    changes = {"method": method, "set": options, "iterations": 6, "size": 32, "batch": 2}
    whole = train(settings(dataset, tmp_path / "whole", **changes))

    def stop(recipe, progress):
        if round(6 * progress) == end:
            raise KeyboardInterrupt
        return learning_rate(recipe, progress)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("scribbleseg.training.loop.learning_rate", stop)
        train(settings(dataset, tmp_path / "cut", checkpoint_every=0.0, **changes))
    resume(tmp_path / "cut")
    assert same_weights(whole, tmp_path / "cut")
    assert untimed_log(whole) == untimed_log(tmp_path / "cut")


@pytest.mark.slow
def test_a_run_cut_off_between_two_lines_of_its_log_loses_nothing(dataset, tmp_path, monkeypatch):
    whole, cut = (tmp_path / name for name in ("whole", "cut"))
    changes = {"iterations": 260, "size": 16, "batch": 2}
    train(settings(dataset, whole, **changes))
    logged = {entry["iteration"] for entry in log(whole)}
    end = next(number for number in range(20, 260) if number not in logged)

    def stop(recipe, progress):
        if round(260 * progress) == end:
            raise KeyboardInterrupt
        return learning_rate(recipe, progress)

    monkeypatch.setattr("scribbleseg.training.loop.learning_rate", stop)
    with pytest.raises(KeyboardInterrupt):
        train(settings(dataset, cut, checkpoint_every=0.0, **changes))
    assert torch.load(cut / "resume.pt", weights_only=True)["iteration"] == end
    monkeypatch.undo()
    config = cut / "config.json"
    config.write_text(
        config.read_text(encoding="utf-8").replace('"checkpoint_every": 0.0', '"checkpoint_every": 60.0'),
        encoding="utf-8",
    )
    resume(cut)
    assert untimed_log(cut) == untimed_log(whole) and same_weights(cut, whole)


def test_a_run_carried_on_elsewhere_says_so(dataset, tmp_path):
    run = train(settings(dataset, tmp_path / "run"))
    path = run / "environment.json"
    first = json.loads(path.read_text(encoding="utf-8"))
    RunFolder(run).add_environment(environment(CPU.device, torch.float32) | {"step": first["step"]})
    known = json.loads(path.read_text(encoding="utf-8")).get("continued", [])
    assert known == ([{"precision": "float32"}] if first["precision"] == "bfloat16" else [])
    path.write_text(json.dumps({**first, "commit": "abc", "torch": "2.9"}), encoding="utf-8")
    for _ in range(2):  # the second time nothing is new
        now = environment(CPU.device, getattr(torch, first["precision"]))
        RunFolder(run).add_environment(now | {"step": first["step"]})
        stored = json.loads(path.read_text(encoding="utf-8"))
        assert (
            stored["continued"] == [{"commit": first["commit"], "torch": first["torch"]}] and stored["commit"] == "abc"
        )


def test_a_step_that_turns_out_not_to_be_recorded_is_noted(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(Step, "kind", property(lambda step: "eager" if step.taken else "recorded"))
    run = train(settings(dataset, tmp_path / "run"))
    stored = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    assert (stored["step"], stored["continued"]) == ("recorded", [{"step": "eager"}])


def test_the_commit_is_of_the_repository_that_tracks_the_package(tmp_path, monkeypatch):
    """A package in a virtual environment inside a user's repository must not be taken for it."""
    if shutil.which("git") is None:
        pytest.skip("needs git, whose commit it is about")
    installed = tmp_path / ".venv" / "scribbleseg" / "environment.py"
    installed.parent.mkdir(parents=True)
    installed.touch()

    def git(*words):
        subprocess.run(
            ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b.c", *words],
            check=True,
            capture_output=True,
        )

    def commit():
        return environment(torch.device("cpu"), torch.float32)["commit"]

    git("init")
    git("commit", "--allow-empty", "-m", "theirs")
    monkeypatch.setattr("scribbleseg.core.environment.__file__", str(installed))
    monkeypatch.delenv("SCRIBBLESEG_COMMIT", raising=False)
    assert commit() is None
    monkeypatch.setenv("SCRIBBLESEG_COMMIT", "abc1234")
    assert commit() == "abc1234"
    git("add", "-f", str(installed))
    git("commit", "-m", "ours")
    head = subprocess.run(["git", "-C", tmp_path, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    assert len(commit()) >= 7 and head.startswith(commit())


def test_the_environment_says_how_threads_wait(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert environment(CPU.device, torch.float32)["waiting"] is None
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert environment(CPU.device, torch.float32)["waiting"] == "passive"


def test_the_log_is_on_the_disk_before_each_checkpoint(dataset, tmp_path, monkeypatch):
    done, fsync = [], os.fsync

    def note(number):
        fsync(number)
        files = {path.stat().st_ino: path.name for path in (tmp_path / "run").rglob("*")}
        done.append(files.get(os.fstat(number).st_ino, "a folder").rpartition("-")[2])  # without .partial-NUMBER-

    monkeypatch.setattr(os, "fsync", note)
    train(settings(dataset, tmp_path / "run", iterations=2, checkpoint_every=0.0))
    assert [name for name in done if name in ("log.jsonl", "resume.pt")] == [
        "log.jsonl",
        "resume.pt",
        "log.jsonl",
        "resume.pt",
        "log.jsonl",
        "resume.pt",
    ]


@pytest.mark.parametrize(
    ("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("mlflow", "mlflow"), ("wandb", "wandb")]
)
def test_a_run_that_cannot_begin_leaves_nothing(dataset, tmp_path, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"--{name} needs the {name} package .*pip install 'scribbleseg.{name}.'"):
        train(settings(dataset, tmp_path / "run", **{name: True}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("in_its_place", ["nothing", "a folder", "a dangling link"])
def test_resume_never_replaces_trained_weights(dataset, tmp_path, in_its_place):
    run = train(settings(dataset, tmp_path / "run", iterations=3))
    (run / "resume.pt").unlink()
    if in_its_place == "a folder":
        (run / "resume.pt").mkdir()
    elif in_its_place == "a dangling link":
        (run / "resume.pt").symlink_to("elsewhere")
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(InputError, match=r"run: has weights of iteration 3, but no checkpoint \(resume.pt\)"):
        resume(run)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_a_run_killed_before_its_first_checkpoint_resumes(dataset, tmp_path):
    whole = train(settings(dataset, tmp_path / "whole", iterations=3))
    run = train(settings(dataset, tmp_path / "run", iterations=3))
    for name in ("resume.pt", "last.safetensors", "log.jsonl"):
        (run / name).unlink()
    resume(run)
    assert same_weights(whole, run)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / ".partial-7-config.json").touch()  # killed while writing its first file
    assert same_weights(whole, train(settings(dataset, tmp_path / "cut", iterations=3)))


def test_as_many_validations_as_asked(dataset, tmp_path):
    run = train(settings(dataset, tmp_path / "run", iterations=9, val_share=0.3, validations=7))
    assert sum("val_mean_dice" in entry for entry in log(run)) == 7


def test_best_is_the_checkpoint_with_the_highest_validation_dice_also_when_carried_on(dataset, tmp_path, monkeypatch):
    dice = {2: 0.2, 4: 0.6, 6: 0.4, 8: 0.5, 10: 0.3, 12: 0.1}
    changes = {"iterations": 12, "val_share": 0.3, "validations": 6, "checkpoint_every": 0.0, "size": 16, "batch": 2}
    calls = iter([*dice.values(), *dice.values()])
    monkeypatch.setattr("scribbleseg.training.validation.validation_dice", lambda *_: torch.tensor([[next(calls)] * 2]))

    run = train(settings(dataset, tmp_path / "whole", **changes))
    assert weights_iteration(run / "best.safetensors", 12) == 4

    def stop(recipe, progress):
        if round(12 * progress) == 6:
            raise KeyboardInterrupt
        return learning_rate(recipe, progress)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("scribbleseg.training.loop.learning_rate", stop)
        train(settings(dataset, tmp_path / "cut", **changes))
    resume(tmp_path / "cut")
    assert [entry["val_mean_dice"] for entry in log(tmp_path / "cut") if "val_mean_dice" in entry] == pytest.approx(
        list(dice.values())
    )
    assert weights_iteration(tmp_path / "cut" / "best.safetensors", 12) == 4, (
        "0.5 at iteration 8 is not better than 0.6 before the stop"
    )


@pytest.mark.slow  # in a process of its own, as that of test_nothing_lost.py with SIGTERM
def test_ctrl_c_leaves_a_resumable_run(dataset, tmp_path):
    whole = train(settings(dataset, tmp_path / "whole", iterations=40, size=16, batch=2))
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-c",
        "import sys, torch; torch.set_num_threads(1); from scribbleseg.cli import main; sys.exit(main())",
    ]
    command += [
        "train",
        str(dataset),
        str(run),
        "--method",
        "pce",
        "--iterations",
        "40",
        "--size",
        "16",
        "--batch",
        "2",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while (process.poll() is None and not (run / "log.jsonl").is_file()) or not (run / "log.jsonl").read_text(
        encoding="utf-8"
    ):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in said and "Traceback" not in said
    resume(run)
    assert same_weights(whole, run)


def test_ctrl_c_while_a_line_is_written_loses_nothing(dataset, tmp_path, monkeypatch):
    def interrupted(state, *_):
        if state.iteration == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return {}

    monkeypatch.setattr("scribbleseg.training.loop.validate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(settings(dataset, tmp_path / "run", iterations=12, val_share=0.3, validations=6))
    assert torch.load(tmp_path / "run" / "resume.pt", weights_only=True)["iteration"] == 7


def test_deterministic_runs_repeat_and_seeds_differ(dataset, tmp_path):
    runs = [
        train(settings(dataset, tmp_path / str(i), method="effdnet", deterministic=True, seed=seed, iterations=3))
        for i, seed in enumerate((1, 1, 2))
    ]
    assert same_weights(runs[0], runs[1]) and not same_weights(runs[0], runs[2])
    for _ in range(8):  # by itself safetensors writes two notes in either order
        write_weights(
            runs[2], "last", load_network(runs[0], read_plan(runs[0])[1]), {"network": "unet", "iteration": "3"}
        )
        assert (runs[2] / "last.safetensors").read_bytes() == (runs[1] / "last.safetensors").read_bytes()


def test_a_finished_run_is_left_alone(dataset, tmp_path):
    run = train(settings(dataset, tmp_path / "run"))
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    resume(run)
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_another_runs_folder_is_not_overwritten(dataset, tmp_path):
    run = train(settings(dataset, tmp_path / "run", iterations=1))
    with pytest.raises(InputError, match="not empty.*--resume"):
        train(settings(dataset, run))


def test_the_truth_of_scribble_cases_is_never_trained_on(dataset, tmp_path):
    bare = small_dataset(tmp_path / "bare", dense=False)
    assert read_dataset(bare).cases["case.0 a"].truth is None
    with_truth, without = (
        train(settings(d, tmp_path / n, method="effdnet", iterations=4)) for d, n in ((dataset, "a"), (bare, "b"))
    )
    assert same_weights(with_truth, without)


def test_several_channels_and_cases_without_scribble(tmp_path, capfd):
    dataset = small_dataset(tmp_path / "two", channels=2)
    (dataset / "labelsTr" / "case.0 a.nii.gz").unlink()
    run = train(settings(dataset, tmp_path / "run", method="effdnet", iterations=3))
    assert load_file(run / "last.safetensors")["encoder.0.0.weight"].shape[1] == 2
    assert "without a scribble: 1 of 4 training cases (first: case.0 a)" in capfd.readouterr().err


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"method": "efdnet"}, "Did you mean 'effdnet'"),
        ({"set": ("lam=1",), "method": "effdnet", "fold": 3}, "folds 0 to 0"),
        ({"set": ("lamda=1",), "method": "effdnet"}, "Did you mean 'lam'"),
        ({"set": ("fadc=maybe",), "method": "effdnet"}, "not true or false"),
        ({"set": {"delta": 0.5}, "method": "effdnet"}, "expected a tuple of texts NAME=VALUE"),
        ({"set": "delta=0.5", "method": "effdnet"}, "expected a tuple of texts NAME=VALUE"),
        ({"method": InputError}, "expected its name"),
        ({"budget": "slow"}, "budget is 'slow'; expected paper or quick"),
        ({"split": "cv5"}, "no split 'cv5'"),
        ({"size": 40}, "multiple of 16"),
        ({"iterations": -1}, "--iterations"),
        ({"iterations": 0}, "--iterations"),
        ({"checkpoint_every": -1.0}, "--checkpoint-every"),
        ({"schedule": "step"}, "names no steps"),
        ({"preset": "fast", "budget": "quick"}, "--preset fast --budget quick: .* Leave one of the two out"),
        ({"preset": "best", "budget": "quick"}, "--preset best --budget quick: .* Leave one of the two out"),
        ({"lr": 0.0}, "--lr 0.0: expected a positive number"),
        ({"device": "cuda"}, "CUDA"),
        ({"network": "unnet"}, "Did you mean 'unet'"),
    ],
)
def test_bad_settings_write_nothing(dataset, tmp_path, changes, words):
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(InputError, match=words):
        train(settings(dataset, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_a_class_without_any_scribble_is_refused(tmp_path):
    import nibabel

    dataset = small_dataset(tmp_path / "data")
    for value, words in ((2, "class core"), (1, "foreground scribble")):
        for path in (dataset / "labelsTr").iterdir():
            file = nibabel.load(path)
            label = file.get_fdata().astype("uint8")
            label[label == value] = 3
            nibabel.save(nibabel.Nifti1Image(label, file.affine), path)
        with pytest.raises(InputError, match=words):
            train(settings(dataset, tmp_path / "run"))
        assert not (tmp_path / "run").exists()


def test_a_checkpoint_from_before_its_log_could_lag_is_carried_on(dataset, tmp_path):
    run = train(settings(dataset, tmp_path / "run", iterations=4))
    stored = torch.load(run / "resume.pt", weights_only=True)
    torch.save(
        {name: value for name, value in stored.items() if name != "unlogged"} | {"iteration": 3}, run / "resume.pt"
    )
    resume(run)
    assert [entry["iteration"] for entry in log(run)] == [1, 2, 3, 4]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_checkpoint_of_cuda_is_carried_on_on_a_cpu(dataset, tmp_path, monkeypatch, optimizer):
    """As CUDA leaves it: a fused, capturable optimiser, the rate a tensor, and the state of CUDA's random numbers."""
    changes = {"method": "scn", "optimizer": optimizer, "schedule": "poly", "iterations": 4}
    whole = train(settings(dataset, tmp_path / "whole", **changes))
    cut = tmp_path / "cut"

    def stop(recipe, progress):
        if progress >= 0.5:
            raise KeyboardInterrupt
        return learning_rate(recipe, progress)

    monkeypatch.setattr("scribbleseg.training.loop.learning_rate", stop)
    with pytest.raises(KeyboardInterrupt):
        train(settings(dataset, cut, checkpoint_every=0.0, **changes))
    monkeypatch.undo()
    stored = torch.load(cut / "resume.pt", weights_only=True)
    (group,) = stored["optimizer"]["param_groups"]
    group |= {"fused": True, "lr": torch.tensor(group["lr"])} | ({"capturable": True} if optimizer == "adam" else {})
    torch.save(stored | {"cuda_rng": torch.zeros(16, dtype=torch.uint8)}, cut / "resume.pt")
    resume(cut)
    assert same_weights(cut, whole)


def test_what_is_not_a_run_or_checkpoint_is_refused(dataset, tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        resume(tmp_path)
    run = train(settings(dataset, tmp_path / "run", iterations=1))
    (run / "resume.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(InputError, match="not a checkpoint"):
        resume(run)


def test_sampler_covers_each_epoch_once_and_needs_no_state():
    sampler = Sampler([(torch.arange(10), 4)], seed=3)
    drawn = torch.cat([sampler(iteration) for iteration in range(5)])
    assert sorted(drawn[:10].tolist()) == sorted(drawn[10:].tolist()) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()
    assert torch.equal(Sampler([(torch.arange(10), 4)], seed=3)(3), drawn[12:16])
    assert Sampler([(torch.arange(3), 8)], seed=0)(0).bincount().tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])
    assert not torch.equal(epoch_order(50, 0, 0), epoch_order(50, 0, 1))


def test_resizing_keeps_labels_whole_and_images_smooth():
    label = torch.randint(0, 4, (2, 30, 50)).to(torch.uint8).numpy()
    assert set(resize_label(label, 16).unique().tolist()) <= {0, 1, 2, 3}
    assert torch.equal(resize_label(label[:, :30, :30], 60)[:, ::2, ::2], torch.from_numpy(label[:, :30, :30].copy()))
    flat = torch.full((1, 2, 30, 50), 0.25).numpy()
    assert resize_image(flat, 16).shape == (2, 1, 16, 16) and torch.allclose(resize_image(flat, 16), torch.tensor(0.25))


def test_resizing_takes_the_centre_of_a_pixel_and_the_mean_of_what_it_covers():
    columns = np.arange(9, dtype=np.uint8)[None, None].repeat(9, 1)  # each pixel's value is its column
    assert resize_label(columns, 3)[0].tolist() == [[1, 4, 7]] * 3
    assert resize_label(columns.swapaxes(1, 2), 3)[0].tolist() == [[1] * 3, [4] * 3, [7] * 3]
    assert resize_label(columns[:, :2, :2], 4)[0, 0].tolist() == [0, 0, 1, 1]
    board = (np.indices((1, 1, 24, 24)).sum(0) % 2).astype(np.float32)
    assert torch.allclose(resize_image(board, 8), torch.tensor(0.5), atol=0.05)


def test_schedules():
    at = (0.0, 0.5, 0.999)
    assert [learning_rate(Recipe(lr=2, schedule="poly"), t) for t in at] == pytest.approx(
        [2, 2 * 0.5**0.9, 2 * 0.001**0.9]
    )
    assert [learning_rate(Recipe(lr=2, schedule="cosine"), t) for t in at[:2]] == pytest.approx([2, 1])
    assert [
        learning_rate(Recipe(lr=2, schedule="step", step_at=(0.5, 0.9), gamma=0.1), t) for t in at
    ] == pytest.approx([2, 0.2, 0.02])

    cycle = [learning_rate(Recipe(lr=2, schedule="onecycle"), t) for t in (0.0, 0.15, 0.3, 0.65, 1.0)]
    assert cycle == pytest.approx([0.08, 1.04, 2, 1, 0])


def test_the_fast_preset_replaces_the_methods_recipe_and_yields_to_what_is_said(dataset, tmp_path):
    fast = PRESETS["fast"]
    plan = plan_of(Train(dataset, tmp_path, preset="fast"))
    assert (plan.method, plan.size, plan.preparation) == ("corral", 128, "slices")
    wanted = fast.recipe | {"iterations": 900}
    assert {key: getattr(plan.recipe, key) for key in wanted} == wanted
    plan = plan_of(Train(dataset, tmp_path, preset="fast", method="effdnet", lr=0.5, iterations=7, size=64))
    assert (plan.method, plan.recipe.lr, plan.recipe.iterations, plan.size, plan.recipe.ema) == (
        "effdnet",
        0.5,
        7,
        64,
        fast.recipe["ema"],
    )
    assert plan_of(Train(dataset, tmp_path)).method == "effdnet"


def test_the_best_preset_sets_the_options_of_its_own_method_alone(dataset, tmp_path):
    plan = plan_of(Train(dataset, tmp_path, preset="best"))
    assert (plan.method, plan.options, plan.size, plan.recipe.iterations) == (
        "corral",
        {"taught": 1.0},
        128,
        2400,
    )
    named = plan_of(Train(dataset, tmp_path, preset="best", method="corral", set=("taught=0.5", "gamma=0.2")))
    assert named.options == {"taught": 0.5, "gamma": 0.2}
    assert plan_of(Train(dataset, tmp_path, preset="best", method="scn")).options == {}
    assert plan_of(Train(dataset, tmp_path, preset="fast")).options == {}


@pytest.mark.parametrize("iterations, warned", [(None, True), (12, False)])
def test_days_on_a_cpu_are_announced(dataset, tmp_path, monkeypatch, capfd, iterations, warned):
    def stop(*args, **kwargs):
        raise InputError("far enough")

    monkeypatch.setattr("scribbleseg.training.train._run", stop)
    with pytest.raises(InputError, match="far enough"):
        train(Train(dataset, tmp_path / "run", method="pce", iterations=iterations, device="cpu"))
    words = "60000 iterations of 12 slices of 256² pixels take days on a CPU. `--preset fast` trains in minutes."
    assert (words in capfd.readouterr().err) is warned


def test_the_fast_preset_ships_the_mean_of_the_weights(dataset, tmp_path, capsys):
    run = train(settings(dataset, tmp_path / "run", preset="fast", iterations=3))
    assert read_plan(run)[1].fitted.enclosure == "off"
    assert (
        "in 0 % of the slices the background strokes enclose the structures: too few, so nothing is learnt"
        in capsys.readouterr().err
    )
    shipped, stored = load_file(run / "last.safetensors"), torch.load(run / "resume.pt", weights_only=True)
    trained, mean = (
        {key[8:]: value for key, value in stored[part].items() if key.startswith("network.")}
        for part in ("method", "average")
    )
    assert shipped.keys() == mean.keys() and all(torch.equal(shipped[key], mean[key]) for key in mean)
    assert any(not torch.equal(trained[key], mean[key]) for key in mean if mean[key].is_floating_point())


def test_the_mean_of_the_weights_is_validated_and_not_the_last_ones(tmp_path):
    """Of four pixels two are bright and true: the mean of the weights finds both, the last weights one of the dark."""

    def brightness(factor, shift):  # class 1 where factor · image > shift
        network = torch.nn.Conv2d(1, 2, 1)
        with torch.no_grad():
            network.weight[:, 0, 0, 0] = torch.tensor([0, factor])
            network.bias[:] = torch.tensor([shift, 0])
        return network

    last, mean = brightness(-1.0, -0.1), brightness(1.0, 0.5)
    method, average = Method(last), Average(mean, 0.9)
    image, truth = torch.tensor([[[[0.0, 0.2], [0.8, 1.0]]]]), torch.tensor([[[0, 0], [1, 1]]], dtype=torch.uint8)
    validation = Validation([(image, truth)], ("background", "square"), (16, 16))
    folder = RunFolder(tmp_path, "unet")
    state = State(method, torch.optim.SGD(method.parameters(), lr=0.1), average, CPU.device)
    assert validate(state, validation, CPU, folder) == {"val_dice": {"square": 1.0}, "val_mean_dice": 1.0}
    assert torch.equal(load_file(tmp_path / "best.safetensors")["weight"], mean.weight) and state.best == 1
    state = State(method, state.optimizer, None, CPU.device)
    assert validate(state, validation, CPU, folder) == {"val_dice": {"square": 0.0}, "val_mean_dice": 0.0}
    assert torch.equal(load_file(tmp_path / "best.safetensors")["weight"], last.weight)


def test_the_average_by_hand():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1, bias=False), torch.nn.BatchNorm2d(1))
    with torch.no_grad():
        network[0].weight.fill_(0.5)
        network[1].running_mean.fill_(5)
    average, means = Average(network, 0.2), []
    for value in (1.0, 2.0, 4.0):
        with torch.no_grad():
            network[0].weight.fill_(value)
            network[1].running_mean.fill_(10 * value)
            network[1].num_batches_tracked += 1
        average.update(network)
        means.append((float(average.network[0].weight), float(average.network[1].running_mean)))
    first = 0.1 * 0.5 + 0.9 * 1  # α = 1/10, then 2/11 and 3/12, limited to .2
    second = 2 / 11 * first + 9 / 11 * 2
    by_hand = [first, second, 0.2 * second + 0.8 * 4]
    assert means == [(pytest.approx(mean), pytest.approx(10 * mean)) for mean in by_hand]
    assert average.network[1].num_batches_tracked == 3 and not average.network.training
    assert not any(p.requires_grad for p in average.parameters())


@pytest.mark.parametrize("fails_at", [1, 2])
def test_a_run_that_fails_in_its_first_step_leaves_nothing(dataset, tmp_path, monkeypatch, fails_at):
    taken, whole = [], Step.whole

    def failing(self, progress):
        taken.append(progress)
        if len(taken) == fails_at:
            raise RuntimeError("out of memory")
        return whole(self, progress)

    monkeypatch.setattr(Step, "whole", failing)
    run = tmp_path / "kept" / "run"
    with pytest.raises(RuntimeError, match="out of memory"):
        train(settings(dataset, run))
    assert run.exists() == (fails_at == 2) and run.parent.is_dir()
    own = tmp_path / "own"
    own.mkdir()
    (tmp_path / "link").symlink_to(own)
    taken.clear()
    with pytest.raises(RuntimeError, match="out of memory"):
        train(settings(dataset, tmp_path / "link"))
    assert own.is_dir() and any(own.iterdir()) == (fails_at == 2), "a folder that was there before stays"


def test_a_training_that_began_there_meanwhile_is_left_alone(dataset, tmp_path, monkeypatch):
    run = tmp_path / "run"

    def slowly(*given):
        run.mkdir(exist_ok=True)
        (run / "config.json").write_text("another training's", encoding="utf-8")
        return build_slices(*given)

    monkeypatch.setattr("scribbleseg.data.reading.build_slices", slowly)
    with pytest.raises(InputError, match="exists already and is not empty"):
        train(settings(dataset, run))
    assert {path.name for path in run.iterdir()} == {"config.json", ".lock"} and (run / "config.json").read_text(
        encoding="utf-8"
    ) == "another training's"


def test_validation_dice_by_hand():
    class Fixed(torch.nn.Module):
        def forward(self, x):  # class 1 where the image is bright
            return torch.cat([0.5 - x, x - 0.5], 1)

    image = torch.zeros(3, 1, 4, 4)  # case 0 has slices 0 and 1
    image[0, 0, 0] = image[1, 0, :2] = 1  # case 0: slices 0 and 1, 12 pixels found; case 1: none
    truth = torch.zeros(3, 4, 4, dtype=torch.uint8)
    truth[0, 0] = truth[1, 1] = truth[2, 2] = 1
    truth[1, 0, 0] = UNLABELED
    dice = validation_dice(Fixed(), [(image[:2], truth[:2]), (image[2:], truth[2:])], 2, (16, 16), CPU)
    assert dice[:, 0].tolist() == pytest.approx([2 * 8 / (8 + 11), 0])


def test_validation_is_without_dropout_and_leaves_the_network_as_it_was():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), torch.nn.BatchNorm2d(3), torch.nn.Dropout(0.5)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    label = torch.randint(0, 3, (4, 8, 8)).to(torch.uint8)
    cases = list(zip(torch.rand(4, 1, 8, 8).split(2), label.split(2), strict=True))
    first, again = (validation_dice(network, cases, 3, (16, 16), CPU) for _ in range(2))
    assert torch.equal(first, again) and network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_every_slice_knows_its_case(dataset):
    cases = ("case.4 a", "case.0 a")
    slices, owner = build_slices(read_dataset(dataset), cases, lambda volume: ({"label": volume.scribble}, {}), 32)
    assert owner.tolist() == [0, 0, 0, 1, 1, 1]
    volume = load_volume(read_dataset(dataset), read_dataset(dataset).case(cases[1]))
    assert torch.equal(slices.truth[owner == 1], resize_label(volume.truth, 32))


def test_batches_carry_every_map_through_the_same_warp():
    label = torch.randint(0, 4, (4, 16, 16)).to(torch.uint8)
    slices = Slices(label[:, None].float(), label, {"other": label.int() * 1000}, label)
    torch.manual_seed(0)
    batch = augment_slices(slices.take(torch.tensor([0, 2, 3])), random_affine(3, torch.device("cpu")))
    known = batch.label != UNLABELED
    assert torch.equal(batch.maps["other"][known], batch.label[known] * 1000) and torch.equal(batch.truth, batch.label)


def test_tensorboard_gets_scalars_and_pictures(dataset, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = train(settings(dataset, tmp_path / "run", iterations=5, val_share=0.3, tensorboard=True))
    events = accumulator.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert {"losses/pce", "loss", "lr", "val_mean_dice"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("losses/pce")] == [1, 2, 3, 4, 5]
    assert [event.value for event in events.Scalars("losses/pce")] == pytest.approx(
        [entry["losses"]["pce"] for entry in log(run)], rel=1e-5
    )
    assert any(tag.startswith("pictures/prediction") for tag in events.Tags()["images"])


@pytest.mark.slow  # its packages take many seconds to import
def test_mlflow_gets_scalars(dataset, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    run = train(settings(dataset, tmp_path / "run", iterations=3, val_share=0.3, mlflow=True))
    client = mlflow.MlflowClient(f"sqlite:///{run / 'mlflow' / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("scribbleseg").experiment_id])
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert {"losses/pce", "loss", "lr", "val_mean_dice"} <= set(found.data.metrics)
    values = [(item.step, item.value) for item in client.get_metric_history(found.info.run_id, "loss")]
    assert values == [(entry["iteration"], pytest.approx(entry["loss"])) for entry in log(run)]


@pytest.mark.slow
def test_wandb_gets_scalars_offline(dataset, tmp_path):
    pytest.importorskip("wandb")
    run = train(settings(dataset, tmp_path / "run", iterations=3, wandb=True))
    (record,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    content = record.read_bytes()
    assert b"losses/pce" in content and b"scribbleseg" in content
