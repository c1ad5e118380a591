"""Issue 2, section 5, line by line through the command line: the message names file, value and way out, exit code 2,
nothing half-written.
"""

import errno
import json
import os
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import AFFINE, save, small_dataset

from scribbleseg.cli import main
from scribbleseg.config import Train
from scribbleseg.core.atomic import atomic_file, atomic_folder
from scribbleseg.core.errors import InputError
from scribbleseg.evaluation.tables import COLUMNS
from scribbleseg.networks import build_network
from scribbleseg.training.checkpoint import write_weights
from scribbleseg.training.train import resume, train

CASE = "case.0 a"
SHORT = [
    "--method",
    "pce",
    "--iterations",
    "2",
    "--size",
    "32",
    "--batch",
    "4",
    "--device",
    "cpu",
    "--precision",
    "float32",
]


@pytest.fixture
def data(small, tmp_path):
    """A data set to be broken."""
    return Path(shutil.copytree(small, tmp_path / "data"))


@pytest.fixture
def run(trained, tmp_path):
    """A run to be broken."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def refused(tmp_path, capsys):
    """The message of a command that exits with code 2 and leaves every file and folder as it was."""

    def call(*words) -> str:
        before = tree(tmp_path)
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        assert tree(tmp_path) == before
        lines = capsys.readouterr().err.splitlines()
        message = [line for line in lines if line.startswith("scribbleseg: ")]
        assert len(message) == 1 and message[0] == lines[-1] and "Traceback" not in "".join(lines), lines
        return message[0]

    return call


@pytest.fixture
def not_trained(refused, data, tmp_path):
    """Training on `data` is refused, in these words."""

    def call(*words, options=()):
        message = refused("train", data, tmp_path / "new run", *SHORT, *options)
        for word in words:
            assert str(word) in message, message
        return message

    return call


@contextmanager
def small_disk(bytes: int):
    """No file can grow past this: the writers meet the system's own error, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def relabel(folder: Path, change) -> None:
    for path in folder.iterdir():
        file = nibabel.load(path)
        save(path, change(np.asarray(file.dataobj)), file.affine)


def describe(data: Path, **changes) -> None:
    path = data / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))


# --- files


def test_missing_nifti(refused, run, data, tmp_path):
    assert "nowhere.nii.gz: no such file or folder." in refused(
        "predict", run, tmp_path / "nowhere.nii.gz", tmp_path / "out"
    )
    assert "nowhere: no such file or folder." in refused("evaluate", tmp_path / "nowhere", data / "labelsTr_dense")
    assert "nowhere: no such file or folder. TRUTH holds the dense masks" in refused(
        "evaluate", data / "labelsTr", tmp_path / "nowhere"
    )


def test_predictions_do_not_lie_among_a_data_sets_files(refused, run, data, tmp_path):
    before = {path: path.read_bytes() for path in data.rglob("*.nii.gz")}
    for source in (data, data / "imagesTr", next((data / "imagesTr").iterdir())):
        for folder in ("imagesTr", "labelsTr", "labelsTr_dense", "labelsTs"):
            said = refused("predict", run, source, data / folder)
            assert "holds the images or labels of the data set" in said or (
                source.is_file() and "would replace an image" in said
            )
    assert {path: path.read_bytes() for path in data.rglob("*.nii.gz")} == before


def test_a_folder_does_not_become_one_file(refused, run, data, tmp_path):
    for source in (data, data / "imagesTr"):
        assert f"out.nii.gz: is one file, and {source} is a folder of scans" in refused(
            "predict", run, source, tmp_path / "out.nii.gz"
        )
    assert not (tmp_path / "out.nii.gz").exists()


def test_missing_channel(not_trained, data):
    describe(data, channel_names={"0": "MR", "1": "CT"})
    not_trained(
        "imagesTr: 6 of 6 cases lack channels: dataset.json names 2 channels (0000, 0001). ",
        f"Add {CASE}_0001.nii.gz, case.1 a_0001",
        "(6 in all), or correct channel_names",
    )
    for path in list((data / "imagesTr").iterdir()):
        shutil.copy(path, path.with_name(path.name.replace("_0000", "_0001")))
    describe(data, channel_names={"0": "MR"})
    not_trained(
        f"imagesTr: {CASE}_0001.nii.gz, case.1 a_0001",
        "no such channel, dataset.json names 1 channel (0000). Remove the files, or correct channel_names",
    )


def test_missing_image_of_a_listed_case(not_trained, data):
    (data / "imagesTr" / f"{CASE}_0000.nii.gz").unlink()
    not_trained(data / "splits_final.json", f"names case '{CASE}', which has no image", "Did you mean 'case.")


@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
@pytest.mark.parametrize("keep", [0.7, 0])
def test_truncated_nifti(not_trained, refused, data, run, tmp_path, part, keep):
    path = data / part / (f"{CASE}_0000.nii.gz" if part == "imagesTr" else f"{CASE}.nii.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    not_trained(path, "cannot be read as NIfTI", "It may be truncated", "Copy or convert it again")
    if part == "imagesTr":
        assert f"{path}: cannot be read as NIfTI" in refused("predict", run, path, tmp_path / "out")


def test_image_and_scribble_of_different_shape(not_trained, data):
    path = data / "labelsTr" / f"{CASE}.nii.gz"
    save(path, np.asarray(nibabel.load(path).dataobj)[:, :-1])
    not_trained(
        path,
        "has another shape (40 × 35 × 3 and not 40 × 36 × 3) than its image",
        f"Export it again on the grid of {CASE}_0000.nii.gz",
        "Resampling can lose strokes",
    )


def test_image_and_scribble_of_different_affine(not_trained, data):
    path = data / "labelsTr" / f"{CASE}.nii.gz"
    moved = AFFINE.copy()
    moved[2, 3] += 2
    save(path, np.asarray(nibabel.load(path).dataobj), moved)
    not_trained(
        path, "has another affine (largest difference 2)", "than its image", "give it the header", "Do not resample it"
    )


def test_nan_and_infinite_voxels(not_trained, refused, data, run, tmp_path):
    path = data / "imagesTr" / f"{CASE}_0000.nii.gz"
    image = nibabel.load(path).get_fdata(dtype=np.float32)
    image[0, 0, 0], image[1, 2, 1] = np.nan, np.inf
    save(path, image)
    not_trained(path, "2 of 4320 voxels are NaN or infinite", "Replace them")
    assert f"{path}: 2 of 4320" in refused("predict", run, path, tmp_path / "out")


def test_constant_image(not_trained, refused, data, run, tmp_path):
    path = data / "imagesTr" / f"{CASE}_0000.nii.gz"
    save(path, np.full((40, 36, 3), 7, np.int16))
    not_trained(path, "constant image (every voxel is 7)", "Replace or remove the case")
    assert "constant image" in refused("predict", run, path, tmp_path / "out")


def test_four_dimensional_file(not_trained, refused, data, run, tmp_path):
    path = data / "imagesTr" / f"{CASE}_0000.nii.gz"
    save(path, np.random.default_rng(0).integers(0, 99, (40, 36, 3, 2)).astype(np.int16))
    not_trained(path, "has shape (40, 36, 3, 2); expected a 3-D volume", "Split it into one file per time point")
    assert "Split it" in refused("predict", run, path, tmp_path / "out")


def test_one_slice_volumes_are_good_input(tmp_path, capsys):
    data = small_dataset(tmp_path / "flat", cases=3, shape=(40, 36, 1))
    assert main(["train", str(data), str(tmp_path / "run"), *SHORT]) == 0
    assert main(["predict", str(tmp_path / "run"), str(data), str(tmp_path / "out")]) == 0
    assert nibabel.load(tmp_path / "out" / "case.2 a.nii.gz").shape == (40, 36, 1)


def test_a_file_that_is_no_volume(refused, run, tmp_path):
    (tmp_path / "scan.jpg").write_bytes(b"picture")
    assert "scan.jpg: not a volume that can be read; expected one of .nii.gz" in refused(
        "predict", run, tmp_path / "scan.jpg", tmp_path / "out"
    )


# --- labels


def test_label_values_outside_dataset_json(not_trained, data):
    path = data / "labelsTr" / f"{CASE}.nii.gz"
    label = np.asarray(nibabel.load(path).dataobj).copy()
    label[0, 0, 0] = 7
    save(path, label)
    not_trained(
        path,
        "has value 7; expected 0-2 or 3 (ignore)",
        "Correct the file; classes have the values of dataset.json, 0, 1, 2, … without a gap",
    )


def test_label_values_between_whole_numbers(not_trained, data):
    path = data / "labelsTr" / f"{CASE}.nii.gz"
    save(path, np.asarray(nibabel.load(path).dataobj) * np.float32(0.5))
    not_trained(path, "has label value", ".5; expected whole numbers", "Go back to the label as it was drawn")


def test_no_ignore_label(not_trained, data):
    describe(data, labels={"background": 0, "square": 1, "core": 2})
    not_trained(data / "dataset.json", "no 'ignore' label", 'add "ignore": 3')


def test_labels_of_nnunet_v1_have_names_and_values_swapped(not_trained, data):
    describe(data, labels={"0": "background", "1": "square"})
    not_trained(
        data / "dataset.json", "value → name, as in nnU-Net v1", """Write "labels": {"background": 0, "square": 1}."""
    )


def test_ignore_is_not_the_highest(not_trained, data):
    describe(data, labels={"background": 0, "square": 1, "ignore": 2, "core": 3})
    not_trained(data / "dataset.json", "without a gap")
    describe(data, labels={"background": 0, "square": 1, "core": 2, "ignore": 9})
    not_trained(data / "dataset.json", "'ignore' has value 9; it must follow the last class. Write 3")


def test_scribbles_without_foreground_anywhere(not_trained, data):
    relabel(data / "labelsTr", lambda label: np.where(label == 0, 0, 3).astype(np.uint8))
    not_trained(data, "no training case has a foreground scribble", "Draw some")


def test_no_scribble_files_at_all(not_trained, data):
    shutil.rmtree(data / "labelsTr")
    not_trained(data, "scribble", "Draw some")
    patches = ["--preparation", "patches"]
    for more in ([], ["--dims", "3"]):
        not_trained(data, "no training case has a stroke", options=[*patches, *more])


def test_class_missing_from_every_scribble(not_trained, data):
    relabel(data / "labelsTr", lambda label: np.where(label == 2, 3, label).astype(np.uint8))
    not_trained(data, "no training case has a scribble of class core", "take the class out of dataset.json")


def test_background_missing_from_every_scribble(not_trained, data):
    relabel(data / "labelsTr", lambda label: np.where(label == 0, 3, label).astype(np.uint8))
    assert "dataset.json" not in not_trained(data, "no training case has a scribble of class background. Draw some.")


# --- data set, split, folder


def test_fold_that_leaks_a_case(not_trained, data):
    (data / "splits_final.json").write_text(
        json.dumps([{"train": [CASE, "case.1 a"], "val": ["case.2 a", CASE]}]), encoding="utf-8"
    )
    not_trained(data / "splits_final.json", f"fold 0 leaks: '{CASE}' is in train", "Put every patient in one part")


def test_fold_that_leaks_a_patient(not_trained, data):
    describe(data, groups={CASE: "p1", "case.5 a": "p1"})
    not_trained(
        data / "splits_final.json",
        "fold 0 leaks",
        f"'{CASE}'",
        "'case.5 a'",
        "patient 'p1'",
        "Put every patient in one part",
    )


def test_validation_cases_with_nothing_drawn(not_trained, data):
    (data / "splits").mkdir()
    (data / "splits" / "mine.json").write_text(
        json.dumps([{"name": "mine", "train": [CASE], "val": ["case.2 a"], "test": []}]), encoding="utf-8"
    )
    for folder in ("labelsTr", "labelsTr_dense"):
        (data / folder / "case.2 a.nii.gz").unlink()
    not_trained(
        data,
        "no validation case has a mask in labelsTr_dense or a scribble in labelsTr",
        "use a split without validation",
    )


def test_fold_that_is_not_there(not_trained):
    not_trained("split 'final' has folds 0 to 0; got 4", options=("--fold", "4"))


def test_splits_that_are_not_json(not_trained, data):
    (data / "splits_final.json").write_text("[{", encoding="utf-8")
    not_trained(data / "splits_final.json", "not readable as JSON", "Correct the file")


def test_empty_folder(refused, run, data, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty}: has no dataset.json" in refused("train", empty, tmp_path / "new", *SHORT)
    said = refused("predict", run, empty, tmp_path / "out")
    assert f"{empty}: no scans in this folder; expected files that end in .nii.gz" in said
    assert f"{empty}: no masks" in refused("evaluate", empty, data / "labelsTr_dense", "--out", tmp_path / "scores.csv")
    for path in (data / "imagesTr").iterdir():
        path.unlink()
    assert f"{data}: no images. Expected imagesTr/CASE_0000.nii.gz" in refused("train", data, tmp_path / "new", *SHORT)


def test_output_folder_that_holds_another_run(refused, data, run, tmp_path):
    message = refused("train", data, run, *SHORT)
    assert (
        f"{run}: exists already and is not empty. Choose another folder" in message
        and f"scribbleseg train {run} --resume" in message
    )
    assert refused("train", data, data, *SHORT).endswith(
        f"{data}: exists already and is not empty. Choose another folder."
    )


def test_a_run_that_has_taken_no_step_is_not_carried_on(refused, data, run):
    """One that dies of its own settings in the first step would die again."""
    write_weights(run, "last", torch.nn.Linear(1, 1), {"iteration": "0"})
    message = refused("train", data, run, *SHORT)
    assert (
        f"{run}: exists already, with a training that stands at iteration 0. Remove it" in message
        and "--resume" not in message
    )


def test_a_place_that_cannot_be_written_is_refused_before_a_case_is_read(
    not_trained, refused, data, tmp_path, monkeypatch
):
    monkeypatch.setattr("scribbleseg.data.reading.build_slices", lambda *_: pytest.fail("cases are read"))
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    (tmp_path / "taken").chmod(0o777)
    assert f"{tmp_path / 'taken'} is no folder that can be written to" in refused(
        "train", data, tmp_path / "taken" / "run", *SHORT
    )
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    not_trained(
        f"new run: cannot be made, as {tmp_path} is no folder that can be written to. "
        f"Choose another place, or change its permissions."
    )
    assert "exists already" in refused("train", data, tmp_path / "data", *SHORT)


def test_output_in_the_place_of_a_file(refused, data, run, tmp_path):
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    assert f"{tmp_path / 'taken'}: is a file. Name a folder" in refused("train", data, tmp_path / "taken", *SHORT)
    assert str(tmp_path / "taken") in refused("train", data, tmp_path / "taken" / "run", *SHORT)
    assert f"{tmp_path / 'taken'}: is a file. Name a folder" in refused("predict", run, data, tmp_path / "taken")
    assert f"{tmp_path / 'taken' / 'ph'}: cannot be written" in refused(
        "phantom", tmp_path / "taken" / "ph", "--cases", "3"
    )


# --- settings


def test_unknown_method_option_and_network(not_trained):
    not_trained("no method 'pcee'. Did you mean 'pce'?", options=("--method", "pcee"))
    not_trained("no option 'x'", "Write NAME=VALUE", options=("--set", "x=1"))
    not_trained("'--batches'", "Did you mean '--batch'?", options=("--batches", "3"))
    not_trained("no network 'unnet'. Did you mean 'unet'?", options=("--network", "unnet"))


def test_numbers_out_of_range(not_trained):
    assert not_trained(options=("--iterations", "0")) == "scribbleseg: --iterations 0: expected a positive number."
    assert not_trained(options=("--size", "40")) == "scribbleseg: --size 40: expected a positive multiple of 16."
    assert not_trained(options=("--lr", "0")) == "scribbleseg: --lr 0.0: expected a positive number."
    assert (
        not_trained(options=("--val-share", "2"))
        == "scribbleseg: --val-share 2.0: expected a share from 0 to below 1, such as 0.2."
    )


def test_cuda_where_there_is_none(not_trained, refused, run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    not_trained("device 'cuda'", "sees 0 CUDA devices", "Use --device cpu", options=("--device", "cuda"))
    assert "device 'cuda:1'" in refused("predict", run, data, tmp_path / "out", "--device", "cuda:1")
    assert "no device 'gpu'. Use auto, cpu, cuda, cuda:N or mps." in refused(
        "predict", run, data, tmp_path / "out", "--device", "gpu"
    )


# --- checkpoints


def test_checkpoint_of_another_architecture(refused, run, data, tmp_path):
    save_file(build_network("unet", 1, 5).state_dict(), run / "last.safetensors")
    message = refused("predict", run, data, tmp_path / "out")
    assert (
        f"{run / 'last.safetensors'}: weights of another architecture than 'unet' with 3 classes" in message
        and "belong to one run?" in message
    )
    stored = torch.load(run / "resume.pt", weights_only=True)
    stored["method"] = {f"network.{name}": value for name, value in build_network("unet", 1, 5).state_dict().items()}
    torch.save(stored | {"iteration": 1}, run / "resume.pt")
    message = refused("train", run, "--resume")
    assert (
        f"{run / 'resume.pt'}: this checkpoint belongs to another architecture" in message
        and "belong to one run?" in message
    )


def test_checkpoint_of_another_method(refused, run):
    stored = torch.load(run / "resume.pt", weights_only=True)
    stored["optimizer"]["param_groups"][0]["params"].append(999)
    torch.save(stored | {"iteration": 1}, run / "resume.pt")
    assert f"{run / 'resume.pt'}: this checkpoint belongs to another architecture" in refused("train", run, "--resume")


@pytest.mark.parametrize("content", ["pickle", "truncated", "empty", "tensor", "list"])
def test_what_is_not_a_checkpoint(refused, run, tmp_path, content):
    path = run / "resume.pt"
    if content == "pickle":
        path.write_bytes(b"cos\nsystem\n(S'touch %s'\ntR." % str(tmp_path / "executed").encode())
    elif content == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif content == "empty":
        path.write_bytes(b"")
    else:
        torch.save({"tensor": torch.zeros(3), "list": [1]}[content], path)
    message = refused("train", run, "--resume")
    assert f"{path}: not a checkpoint of scribbleseg" in message and "start again" in message


def test_a_folder_that_is_no_run(refused, data, run, tmp_path):
    for words in (("train", data, "--resume"), ("predict", data, data, tmp_path / "out")):
        expected = f"{data}: a data set, not a run folder (no config.json). The run folder comes first, the one that "
        assert refused(*words).endswith(f"{expected}this made: scribbleseg train {data} RUN")
    for other, kind in ((data / "imagesTr", "a folder of volumes"), (data / "dataset.json", "a file")):
        expected = f"{other}: {kind}, not a run folder (no config.json). The run folder comes first, the one that "
        message = refused("predict", other, run, tmp_path / "out")
        assert message.endswith(f"{expected}this made: scribbleseg train DATASET RUN")
    assert f"{tmp_path}: not a run folder (no config.json). Make one with: scribbleseg train DATASET RUN" in refused(
        "report", tmp_path
    )
    for text in ("{", "[]", '{"train": {"set": []}, "plan": []}', '{"train": 3}'):
        (run / "config.json").write_text(text, encoding="utf-8")
        assert f"{run / 'config.json'}: not a run's settings" in refused("predict", run, data, tmp_path / "out")


# --- a full disk


@pytest.mark.parametrize("room", [65_536, 0])
def test_full_disk_while_a_run_begins(data, tmp_path, capsys, room):
    with small_disk(room):
        assert main(["train", str(data), str(tmp_path / "run"), *SHORT]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert (
        message.startswith(f"scribbleseg: {tmp_path / 'run'}")
        and "cannot be written (File too large). Free some space" in message
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["last.safetensors", "resume.pt"])
def test_full_disk_leaves_the_earlier_checkpoint_whole(small, tmp_path, capsys, monkeypatch, name):
    """The disk fills up at iteration 3 of 4; then the run ends in the weights of one that never stopped."""
    settings = {"method": "pce", "iterations": 4, "size": 32, "batch": 4, "checkpoint_every": 0.0}
    settings |= {"precision": "float32", "device": "cpu"}
    whole = train(Train(small, tmp_path / "whole", **settings))
    run, replace = tmp_path / "run", os.replace
    written = []

    def full(partial, path):
        if path == run / name and len(written) == 3:  # at the start and after iterations 1 and 2
            raise OSError(errno.ENOSPC, "No space left on device", str(partial))
        written.extend([path] if path == run / name else [])
        replace(partial, path)

    monkeypatch.setattr(os, "replace", full)
    words = [
        "--method",
        "pce",
        "--iterations",
        "4",
        "--size",
        "32",
        "--batch",
        "4",
        "--precision",
        "float32",
        "--device",
        "cpu",
        "--checkpoint-every",
        "0",
    ]
    assert main(["train", str(small), str(run), *words]) == 2
    monkeypatch.setattr(os, "replace", replace)
    message = capsys.readouterr().err.splitlines()[-1]
    assert (
        message == f"scribbleseg: {run / name}: cannot be written (No space left on device). Free some space or "
        f"choose another place."
    )
    assert torch.load(run / "resume.pt", weights_only=True)["iteration"] == 2 and not list(run.glob(".partial-*"))
    assert load_file(run / "last.safetensors").keys() == load_file(whole / "last.safetensors").keys()
    resume(run)
    ended, expected = load_file(run / "last.safetensors"), load_file(whole / "last.safetensors")
    assert all(torch.equal(ended[key], expected[key]) for key in expected)


@pytest.mark.parametrize("name", ["last.safetensors", "resume.pt"])
def test_full_disk_while_the_checkpoint_is_written(run, capsys, name):
    """Torch's and safetensors' own writers report a full disk in words of their own; the earlier file stays."""
    stored = json.loads((run / "config.json").read_text(encoding="utf-8"))
    stored["plan"]["recipe"]["iterations"] = 3
    (run / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    before = (run / name).read_bytes()
    weights = (run / "last.safetensors").stat().st_size
    with small_disk(65_536 if name == "last.safetensors" else weights + 65_536):  # resume.pt is larger than the weights
        assert main(["train", str(run), "--resume"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert (
        message
        == f"scribbleseg: {run / name}: cannot be written (File too large). Free some space or choose another place."
    )
    assert before == (run / name).read_bytes() and not list(run.glob(".partial-*"))
    assert main(["train", str(run), "--resume"]) == 0


def test_full_disk_while_the_log_is_written(run, capsys):
    stored = json.loads((run / "config.json").read_text(encoding="utf-8"))
    stored["plan"]["recipe"]["iterations"] = 3
    (run / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    log = run / "log.jsonl"
    log.write_text(log.read_text(encoding="utf-8").rstrip() + " " * 5000 + "\n", encoding="utf-8")  # the longest file
    with small_disk(log.stat().st_size):
        assert main(["train", str(run), "--resume"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("scribbleseg: ") and "File too large" in message and "--resume" in message
    assert main(["train", str(run), "--resume"]) == 0


def test_full_disk_while_a_prediction_is_written(run, data, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "case.4 a.nii.gz").write_bytes(b"an earlier prediction")
    with small_disk(0):
        assert main(["predict", str(run), str(data), str(tmp_path / "out"), "--probabilities", "--overwrite"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert (
        message.startswith(f"scribbleseg: {tmp_path / 'out' / 'made_by.json'}: cannot be written (")
        and "Free some space" in message
    )
    assert tree(tmp_path / "out") == {str(tmp_path / "out" / "case.4 a.nii.gz"): b"an earlier prediction"}


def test_full_disk_while_the_scores_are_written(data, tmp_path, capsys):
    table = tmp_path / "scores.csv"
    table.write_text(earlier := ",".join(COLUMNS) + "\n", encoding="utf-8")
    with small_disk(0):
        assert main(["evaluate", str(data / "labelsTr_dense"), str(data / "labelsTr_dense"), "--out", str(table)]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert (
        message == f"scribbleseg: {table}: cannot be written (File too large). Free some space or choose another place."
    )
    assert table.read_text(encoding="utf-8") == earlier and not list(tmp_path.glob(".partial-*"))


def test_full_disk_while_a_data_set_is_made(tmp_path, capsys):
    with small_disk(1024):
        assert main(["phantom", str(tmp_path / "phantom"), "--cases", "3"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert (
        message.startswith(f"scribbleseg: {tmp_path / 'phantom'}/imagesTr/")
        and "cannot be written (File too large)" in message
    )
    assert list(tmp_path.iterdir()) == []


# --- files and folders that appear whole or not at all


@pytest.mark.parametrize(
    "number, way_out",
    [
        (errno.ENOSPC, "Free some space or choose another place."),
        (errno.EACCES, "Choose another place, or change its permissions."),
    ],
)
def test_space_is_asked_for_where_there_is_none(tmp_path, number, way_out):
    for kind in (atomic_file, atomic_folder):
        with pytest.raises(InputError) as caught, kind(tmp_path / "out"):
            raise OSError(number, os.strerror(number))
        assert str(caught.value) == f"{tmp_path / 'out'}: cannot be written ({os.strerror(number)}). {way_out}"


def test_an_atomic_file_appears_at_the_end(tmp_path):
    path = tmp_path / "deep" / "a.nii.gz"
    with atomic_file(path) as partial:
        partial.write_text("one", encoding="utf-8")
        assert not path.exists() and partial.parent == path.parent and partial.name.endswith("a.nii.gz")
    assert path.read_text(encoding="utf-8") == "one"
    for error in (ValueError("of the writer"), KeyboardInterrupt()):
        with pytest.raises(type(error)), atomic_file(path) as partial:
            partial.write_text("half", encoding="utf-8")
            raise error
    assert path.read_text(encoding="utf-8") == "one" and list(path.parent.iterdir()) == [path]


def test_an_atomic_folder_appears_at_the_end(tmp_path):
    path = tmp_path / "deep" / "set"
    with pytest.raises(InputError, match="cannot be written .No space"), atomic_folder(path) as partial:
        (partial / "a").write_text("half", encoding="utf-8")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not path.exists() and list(path.parent.iterdir()) == []
    with atomic_folder(path) as partial:
        (partial / "a").write_text("one", encoding="utf-8")
        assert not path.exists()
    assert (path / "a").read_text(encoding="utf-8") == "one" and list(path.parent.iterdir()) == [path]
    with pytest.raises(InputError, match="not empty"), atomic_folder(path):
        pass


@pytest.mark.parametrize("kind", [atomic_file, atomic_folder])
def test_names_that_no_file_can_have_are_refused(tmp_path, kind):
    for name, words in (
        ("a\0b", "cannot be the name of a new file or folder"),
        ("\ud800", "cannot be the name of a new file or folder"),
        ("x" * 300, "cannot be written .File name too long.. Choose a shorter name"),
        ("x" * 250, "cannot be written .File name too long.. Choose a shorter name"),  # the partial one is longer
    ):
        with pytest.raises(InputError, match=words), kind(tmp_path / name):
            pass
    with pytest.raises(InputError, match="'/': cannot be the name"), kind(Path("/")):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(InputError, match="out: cannot be written .Permission denied"), atomic_folder(tmp_path / "out"):
        pass


def test_a_reading_error_inside_is_not_blamed_on_the_output(tmp_path):
    for kind in (atomic_file, atomic_folder):
        with pytest.raises(FileNotFoundError, match="source"), kind(tmp_path / "there" / "out"):
            (tmp_path / "elsewhere" / "source").read_text(encoding="utf-8")


def test_a_folder_around_a_data_set_and_one_in_it_are_told_which_is_meant(refused, data, tmp_path):
    assert f"has no dataset.json. Is {data} meant?" in refused("train", data.parent, tmp_path / "new", *SHORT)
    assert f"has no dataset.json. Is {data} meant?" in refused("train", data / "imagesTr", tmp_path / "new", *SHORT)


def test_predict_names_the_file_that_is_no_scan_and_an_output_that_is_a_file(refused, data, run, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no scan", encoding="utf-8")
    assert f"{text}: not a volume that can be read" in refused("predict", run, text, tmp_path / "out")
    assert f"{text}: is a file. Name a folder as OUTPUT." in refused("predict", run, data / "imagesTr", text)
    assert text.read_text(encoding="utf-8") == "no scan"
