"""Memory that is bounded, data that is still what it was, and files that are where they seem to be."""

import json
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import scribbleseg as ss
from scribbleseg.cli import main
from scribbleseg.config import Evaluate, Predict, Report, Simulate, Train
from scribbleseg.core.errors import InputError
from scribbleseg.data.fingerprint import fingerprint
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.synthetic.simulate import simulate, simulate_scribbles
from scribbleseg.evaluation.scores import evaluate
from scribbleseg.inference.models import Model
from scribbleseg.inference.predict import predict
from scribbleseg.inference.probabilities import mean_probs, segment
from scribbleseg.reporting.report import report
from scribbleseg.training.plan import read_plan
from scribbleseg.training.train import resume, train

CPU = torch.device("cpu")


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def data(small, tmp_path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "data"))


class Flat(torch.nn.Module):
    """25 classes; the brightness of a pixel decides."""

    def forward(self, x):
        return -((x * 24 - torch.arange(25.0)[:, None, None]) ** 2)


def model(run: Path, classes: int = 25) -> Model:
    settings, plan = read_plan(run)
    from dataclasses import replace

    return Model(run, Flat(), settings, replace(plan, classes=("x",) * classes, size=64), torch.float32, None, 2, "")


def test_a_prediction_needs_no_more_memory_for_more_slices(run):
    def peak(slices: int) -> int:
        image = np.random.default_rng(0).random((1, slices, 64, 64), np.float32)
        tracemalloc.start()
        segment([model(run)], [image], (1, 1, 1), CPU, batch=4)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    few, many = peak(8), peak(80)
    assert many < few + 80 * 64 * 64 * 4, "the label and the prepared slices only, not 25 maps of every slice"


def test_slices_in_parts_are_those_of_the_whole(run):
    image = np.random.default_rng(0).random((1, 7, 50, 40), np.float32)
    whole = np.concatenate(list(mean_probs([model(run)], [image], (1, 1, 1), CPU, batch=3)), 1)
    found = segment([model(run)], [image], (1, 1, 1), CPU, batch=3, probabilities=True, uncertainty=True)
    assert np.array_equal(found.probs, whole) and np.array_equal(found.label, whole.argmax(0))
    assert found.entropy.shape == (7, 50, 40) and found.label.dtype == np.uint8


def test_out_of_memory_is_a_message_with_a_way_out(run, data, tmp_path, capsys, monkeypatch):
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 GB")):
        monkeypatch.setattr(
            "scribbleseg.inference.predict.segment", lambda *_, error=error: (_ for _ in ()).throw(error)
        )
        assert main(["predict", str(run), str(data), str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("scribbleseg: out of memory (") and "Give a smaller --batch" in said


@pytest.mark.parametrize("pixel", [1e-4, 0.01, 60.0, 1e4])
def test_pixels_that_are_not_those_of_the_image_are_refused(run, data, tmp_path, capsys, pixel):
    """A config.json that asks for 10¹² pixels, or for one; and a scan whose unit of length is wrong."""
    path = run / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["plan"] |= {"preparation": "patches", "fitted": stored["plan"]["fitted"] | {"pixel": pixel}}
    path.write_text(json.dumps(stored), encoding="utf-8")
    image, out = data / "imagesTr" / "case.0 a_0000.nii.gz", tmp_path / "out.nii.gz"
    assert main(["predict", str(run), str(image), str(out), "--device", "cpu"]) == 2 and not out.exists()
    said = capsys.readouterr().err
    assert re.search(r"case.0 a_0000.nii.gz: has voxels of 4.\d+ × 0.7\d+ × 0.7\d+ mm, and the run makes", said)
    with pytest.raises(InputError, match="the image: has voxels of 5 × 0.7 × 0.7 mm"):
        ss.load(run).predict(np.zeros((3, 20, 20), np.float32), (5, 0.7, 0.7))
    stored["plan"]["fitted"]["pixel"] = 0.7
    path.write_text(json.dumps(stored), encoding="utf-8")
    assert main(["predict", str(run), str(image), str(out), "--device", "cpu"]) == 0


def test_slices_far_larger_than_the_image_are_refused(run, data, tmp_path, capsys):
    path = run / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["plan"]["size"] = 16384
    path.write_text(json.dumps(stored), encoding="utf-8")
    image = data / "imagesTr" / "case.0 a_0000.nii.gz"
    assert main(["predict", str(run), str(image), str(tmp_path / "out.nii.gz"), "--device", "cpu"]) == 2
    assert "has slices of 36 × 40 pixels, and the run makes 16384² of them" in capsys.readouterr().err


def test_a_case_of_another_unit_is_named_by_check_and_train(data, tmp_path, capsys):
    for part in ("imagesTr/case.0 a_0000", "labelsTr/case.0 a", "labelsTr_dense/case.0 a"):
        file = nibabel.load(data / f"{part}.nii.gz")
        far = file.affine @ np.diag([1000, 1000, 1000, 1])
        nibabel.save(nibabel.Nifti1Image(np.asarray(file.dataobj), far), data / f"{part}.nii.gz")
    assert main(["check", str(data)]) == 0
    assert "case.0 a: the voxel size is over 16 times as large" in capsys.readouterr().out
    words = ["train", str(data), str(tmp_path / "new"), "--method", "pce", "--size", "32", "--iterations", "1"]
    assert main([*words, "--preparation", "patches", "--dims", "2"]) == 2 and not (tmp_path / "new").exists()
    assert "case.0 a.nii.gz: has pixels of 733.2 mm, and most cases have 0.7" in capsys.readouterr().err


def test_a_long_skeleton_takes_memory_of_its_length(run):
    comb = np.zeros((1, 300, 300), np.uint8)
    comb[0, 10:290:2, 5:295] = 1
    comb[0, 10:290, 5] = 1
    tracemalloc.start()
    drawn = simulate_scribbles(comb, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6 and (drawn[comb == 0] != 1).all()  # 40 000 pixels squared would be 25 GB


@pytest.mark.parametrize("shape", [(2, 1, 40), (2, 40, 1), (1, 1, 1), (1, 2, 2)])
def test_slices_one_pixel_wide_are_drawn_on(shape):
    truth = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    drawn = simulate_scribbles(truth, 3)
    assert ((drawn == 255) | (drawn == truth)).all() and (drawn != 255).any()


# --- the data of a run


def test_a_run_is_not_carried_on_with_other_data(data, tmp_path):
    run = train(Train(data, tmp_path / "run", method="pce", iterations=2, size=32, batch=4, device="cpu"))
    torch.save(torch.load(run / "resume.pt", weights_only=True) | {"iteration": 1}, run / "resume.pt")
    path = data / "labelsTr" / "case.0 a.nii.gz"
    kept = path.read_bytes()
    file = nibabel.load(path)
    other = np.asarray(file.dataobj).copy()
    other[0, 0, 0] = 0
    nibabel.save(nibabel.Nifti1Image(other, file.affine), path)
    before = (run / "last.safetensors").read_bytes()
    with pytest.raises(InputError, match="images or labels that it learns from have changed since it began"):
        resume(run)
    assert (run / "last.safetensors").read_bytes() == before
    path.write_bytes(kept)
    resume(run)
    assert torch.load(run / "resume.pt", weights_only=True)["iteration"] == 2


def test_a_run_without_a_checkpoint_keeps_its_plan_and_its_data(data, tmp_path):
    run = train(Train(data, tmp_path / "run", method="pce", iterations=2, size=32, batch=4, device="cpu"))
    for name in ("resume.pt", "last.safetensors"):
        (run / name).unlink()
    stored = json.loads((run / "config.json").read_text(encoding="utf-8"))
    stored["plan"]["fitted"]["closed"] = 0.25  # of these strokes it would be another number
    (run / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    path = data / "labelsTr" / "case.0 a.nii.gz"
    kept = path.read_bytes()
    shutil.copy(data / "labelsTr" / "case.1 a.nii.gz", path)
    with pytest.raises(InputError, match="images or labels that it learns from have changed since it began"):
        resume(run)
    assert not (run / "last.safetensors").exists()
    path.write_bytes(kept)
    resume(run)
    assert json.loads((run / "config.json").read_text(encoding="utf-8")) == stored
    assert torch.load(run / "resume.pt", weights_only=True)["iteration"] == 2


@pytest.mark.parametrize(("key", "message"), [("labels", "classes"), ("channel_names", "channels")])
def test_a_run_is_not_carried_on_with_other_classes_or_channels(data, tmp_path, key, message):
    run = train(Train(data, tmp_path / "run", method="pce", iterations=2, size=32, batch=4, device="cpu"))
    torch.save(torch.load(run / "resume.pt", weights_only=True) | {"iteration": 1}, run / "resume.pt")
    path = data / "dataset.json"
    other = json.loads(path.read_text(encoding="utf-8"))
    if key == "labels":
        other["labels"] |= {"new": 3, "ignore": 4}
    else:
        other["channel_names"]["0"] = "CT"
    path.write_text(json.dumps(other), encoding="utf-8")
    with pytest.raises(InputError, match=f"began with the {message} .* now. Put them back as they were"):
        resume(run)


def test_a_fingerprint_sees_every_kind_of_file(data):
    first = fingerprint(read_dataset(data), ["case.0 a", "case.1 a"])
    assert first == fingerprint(read_dataset(data), ["case.1 a", "case.0 a"])
    for part in ("imagesTr/case.0 a_0000", "labelsTr/case.0 a", "labelsTr_dense/case.0 a"):
        path = data / f"{part}.nii.gz"
        kept = path.read_bytes()
        path.write_bytes(kept + b"\0")
        assert fingerprint(read_dataset(data), ["case.0 a", "case.1 a"]) != first
        path.write_bytes(kept)
    (data / "labelsTr" / "case.1 a.nii.gz").unlink()
    assert fingerprint(read_dataset(data), ["case.0 a", "case.1 a"]) != first


# --- links and names


@pytest.mark.parametrize("name", ["log.jsonl", "predictions", "pictures"])
def test_nothing_is_written_through_a_link_in_a_run(run, tmp_path, name):
    outside = tmp_path / "outside"
    place = run / name
    if place.exists():
        place.rename(outside)
    else:
        outside.mkdir()
    place.symlink_to(outside)
    torch.save(torch.load(run / "resume.pt", weights_only=True) | {"iteration": 1}, run / "resume.pt")
    for verb in (lambda: resume(run), lambda: report(Report(run))):
        with pytest.raises(InputError, match=f"{name}: is a link"):
            verb()


def test_names_that_are_no_text(data, run, tmp_path):
    name = "caf\udce9"
    for part, end in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz"), ("labelsTr_dense", ".nii.gz")):
        (data / part / f"case.5 a{end}").rename(data / part / f"{name}{end}")
    (data / "labelsTr" / f"{name}.nii.gz").unlink()
    simulate(Simulate(data))
    assert (data / "labelsTr" / f"{name}.nii.gz").is_file()
    (data / "splits_final.json").unlink()
    for _ in range(2):  # the note of the first time is read the second time
        predict(Predict((run,), data / "imagesTr", tmp_path / "out", device="cpu"))
    evaluate(Evaluate(tmp_path / "out", data / "labelsTr_dense", tmp_path / "scores.csv"))
    assert b"caf\xe9" in (tmp_path / "scores.csv").read_bytes()
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    config["train"]["dataset"] = str(data)
    config["plan"]["fold"] |= {"test": [name], "train": ["case.0 a"]}
    (run / "config.json").write_text(json.dumps(config), encoding="utf-8")
    page = report(Report(run)).read_text(encoding="utf-8")
    assert "caf\\udce9" in page and (run / "predictions" / f"{name}.nii.gz").is_file()


def test_terminals_without_greek_lose_no_line(small, tmp_path):
    data = Path(shutil.copytree(small, tmp_path / "data"))
    text = (data / "dataset.json").read_text(encoding="utf-8")
    assert '"square"' in text
    (data / "dataset.json").write_text(text.replace('"square"', '"λ→"'), encoding="utf-8")
    code = """
import sys
from scribbleseg.cli import main
from scribbleseg.training import outlook
outlook.time_step = lambda *_: 1.0
for words in (["--help"], ["methods"], ["train", "--help"], ["check", sys.argv[1]]):
    code = main(words)
    print("end", code)
"""
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", code, str(data)]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    *said, rest = done.stdout.split("end 0\n")
    assert len(said) == 4 and all(said) and not rest
    assert "\\u03bb\\u2192" in done.stdout
