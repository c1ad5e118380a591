"""Volume in, volume out: a network that only reads brightness makes the right mask known voxel by voxel, in the file's
own order.
"""

import copy
import json
import math
import os
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as itk
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small import AFFINE, save, small_dataset
from test_folders import write_series
from torch import nn

from scribbleseg.config import Import, Predict
from scribbleseg.core.atomic import atomic_file
from scribbleseg.core.errors import InputError
from scribbleseg.data.case import load_image, read_channels
from scribbleseg.data.importers import import_dataset
from scribbleseg.data.layout import read_dataset
from scribbleseg.evaluation.scores import list_masks
from scribbleseg.inference import predict as module
from scribbleseg.inference import scan as scan_module
from scribbleseg.inference.inputs import list_jobs
from scribbleseg.inference.models import folded, load_models, load_network
from scribbleseg.inference.predict import predict
from scribbleseg.inference.probabilities import FLIPS, View, average_softmax, entropy, mean_probs, views
from scribbleseg.inference.provenance import MADE_BY, checksum, written
from scribbleseg.networks import build_network
from scribbleseg.networks.unet import UNet
from scribbleseg.training.plan import read_plan

CPU = torch.device("cpu")
SIZE = 45  # 5 × 9 and 3 × 15: bilinear resizing by odd whole factors there and back gives every pixel back
SHEARED = AFFINE.copy()
SHEARED[:3, 0] += 0.2 * SHEARED[:3, 1]


class Brightness(nn.Module):
    """Class 0, 1 or 2 where the mean over channels is near 0, ½ or 1."""

    def forward(self, x):
        middle = torch.tensor([0, 0.5, 1])[:, None, None]
        return -200 * (x.mean(1, keepdim=True) - middle) ** 2


class Position(nn.Module):
    """Says something else when its input is flipped: logits from brightness, row and column."""

    def forward(self, x):
        rows, columns = torch.arange(x.shape[2])[:, None] / 4, torch.arange(x.shape[3])[None] / 7
        x = x.mean(1)
        return torch.stack([x, x * rows, columns - x], 1)


def change_plan(run: Path, **changes) -> Path:
    path = run / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["plan"] |= changes
    path.write_text(json.dumps(stored), encoding="utf-8")
    return run


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained run, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def bright(run, monkeypatch):
    """A run whose network is Brightness, at a size that loses no voxel."""
    monkeypatch.setattr("scribbleseg.inference.models.load_network", lambda *_: Brightness())
    return change_plan(run, size=SIZE)


def scan(axis: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(image, mask it must give), both in file order; slices of 9 × 15 pixels across `axis`, no symmetry anywhere."""
    shape = [9, 15]
    shape.insert(axis, 4)
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 3, shape).astype(np.uint8)
    mask[:, :, 0] = rng.integers(0, 2, mask.shape[:2])
    image = (500 * mask.astype(int) + rng.integers(0, 100, shape)).astype(np.int16)
    return image, mask


def thick(affine: np.ndarray, axis: int) -> np.ndarray:
    """The same directions, with the largest spacing along `axis`."""
    order = [0, 1]
    order.insert(axis, 2)
    return affine[:, [*order, 3]]


# --- geometry


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("affine", [AFFINE, SHEARED, np.diag([-1.0, 1, -8, 1])], ids=["oblique", "sheared", "mirrored"])
def test_every_voxel_and_the_nifti_geometry_survive(bright, tmp_path, affine, axis):
    image, mask = scan(axis)
    file = nibabel.Nifti1Image(image, thick(affine, axis))
    file.set_sform(thick(affine, axis), 2)
    file.set_qform(thick(affine, axis), 4)
    file.header.set_xyzt_units("mm", "sec")
    nibabel.save(file, tmp_path / "scan.nii.gz")
    (path,) = predict(Predict(bright, tmp_path / "scan.nii.gz", tmp_path / "out"))
    assert path == tmp_path / "out" / "scan.nii.gz"
    got, source = nibabel.load(path), nibabel.load(tmp_path / "scan.nii.gz")
    assert np.array_equal(np.asanyarray(got.dataobj), mask) and got.get_data_dtype() == np.uint8
    assert np.array_equal(got.affine, source.affine) and np.allclose(got.affine, thick(affine, axis), atol=1e-5)
    for key in (
        "sform_code",
        "qform_code",
        "pixdim",
        "xyzt_units",
        "quatern_b",
        "qoffset_x",
        "srow_x",
        "srow_y",
        "srow_z",
        "dim",
    ):
        assert np.array_equal(got.header[key], source.header[key]), key


def test_a_scan_with_qform_only_keeps_it(bright, tmp_path):
    image, mask = scan(2)
    file = nibabel.Nifti1Image(image, None)
    file.set_qform(np.diag([-2.0, -3, 9, 1]), 1)
    nibabel.save(file, tmp_path / "scan.nii")
    predict(Predict(bright, tmp_path / "scan.nii", tmp_path / "mask.nii"))
    got = nibabel.load(tmp_path / "mask.nii")
    assert np.array_equal(np.asanyarray(got.dataobj), mask)
    assert (int(got.header["qform_code"]), int(got.header["sform_code"])) == (1, 0)
    assert np.allclose(got.affine, np.diag([-2, -3, 9, 1])) and np.allclose(got.header.get_zooms(), (2, 3, 9))


@pytest.mark.parametrize("end", [".nrrd", ".mha"])
def test_itk_formats_come_back_as_themselves(bright, tmp_path, end):
    image, mask = scan(1)
    file = itk.GetImageFromArray(image.T)  # SimpleITK's arrays are z, y, x
    file.SetSpacing((1.5, 7.0, 1.25))
    file.SetOrigin((3.0, -20.0, 11.5))
    file.SetDirection((0.8, 0.0, 0.6, 0.0, -1.0, 0.0, 0.6, 0.0, -0.8))
    itk.WriteImage(file, str(tmp_path / f"scan{end}"))
    (path,) = predict(Predict(bright, tmp_path / f"scan{end}", tmp_path / "out"))
    got = itk.ReadImage(str(path))
    assert path.name == f"scan{end}" and np.array_equal(itk.GetArrayFromImage(got).T, mask)
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(got, name)(), getattr(file, name)(), atol=1e-9), name


def test_a_single_slice_and_a_plane_without_third_axis(bright, tmp_path):
    image, mask = scan(2)
    save(tmp_path / "in" / "one.nii.gz", image[:, :, 1:2])
    save(tmp_path / "in" / "plane.nii.gz", image[:, :, 1])
    predict(Predict(bright, tmp_path / "in", tmp_path / "out"))
    assert np.array_equal(nibabel.load(tmp_path / "out" / "one.nii.gz").dataobj, mask[:, :, 1:2])
    assert np.array_equal(nibabel.load(tmp_path / "out" / "plane.nii.gz").dataobj, mask[:, :, 1])


@pytest.mark.parametrize("end", [".png", ".tif"])
def test_a_picture_holds_one_slice_and_no_volume(bright, tmp_path, monkeypatch, end):
    image, mask = scan(0)
    save(tmp_path / "one.nii.gz", image[1:2])
    predict(Predict(bright, tmp_path / "one.nii.gz", tmp_path / f"one{end}"))
    with Image.open(tmp_path / f"one{end}") as picture:
        assert np.array_equal(np.asarray(picture), mask[1].T)
    save(tmp_path / "many.nii.gz", image)
    monkeypatch.setattr("scribbleseg.inference.predict.segment", lambda *_: pytest.fail("the network has run"))
    slices = image.shape[2]
    with pytest.raises(InputError, match=f"many{end}: {end} holds one slice; this scan has {slices}. Name .*nii.gz"):
        predict(Predict(bright, tmp_path / "many.nii.gz", tmp_path / f"many{end}"))
    assert not (tmp_path / f"many{end}").exists()


def test_import_then_predict_then_file(bright, tmp_path):
    """MSCMR's layout, oblique: what was put into the source file comes out of the prediction's, voxel for voxel."""
    masks = {}
    for part, subject, kind in (("train", 2, "scribble"), ("val", 3, "manual"), ("val", 4, "manual")):
        image, masks[f"subject{subject}_DE"] = scan(2, subject)
        save(tmp_path / "src" / part / "images" / f"subject{subject}_DE.nii.gz", image)
        save(tmp_path / "src" / part / "labels" / f"subject{subject}_DE_{kind}.nii.gz", masks[f"subject{subject}_DE"])
    import_dataset(Import("mscmr", tmp_path / "src", tmp_path / "set"))
    fold = read_dataset(tmp_path / "set").fold("final", 0)
    change_plan(bright, fold={"name": "0", "train": fold.train, "val": fold.val, "test": fold.test})
    written = predict(Predict(bright, tmp_path / "set", tmp_path / "out"))
    assert [path.name for path in written] == ["subject3_DE.nii.gz", "subject4_DE.nii.gz"]
    for path in written:
        truth = nibabel.load(tmp_path / "src" / "val" / "labels" / path.name.replace(".nii", "_manual.nii"))
        got = nibabel.load(path)
        assert np.array_equal(got.dataobj, masks[path.name[:11]]) and np.array_equal(got.affine, truth.affine)


def test_a_real_oblique_scan(shared_data, trained, tmp_path):
    source = shared_data / "MSCMR_dataset" / "val" / "images" / "subject41_DE.nii.gz"
    predict(Predict(trained, source, tmp_path / "mask.nii.gz"))
    got, scanned = nibabel.load(tmp_path / "mask.nii.gz"), nibabel.load(source)
    assert got.shape == scanned.shape and np.array_equal(got.affine, scanned.affine)
    for key in ("pixdim", "sform_code", "qform_code", "srow_z"):
        assert np.array_equal(got.header[key], scanned.header[key]), key


# --- what is predicted, and where it goes


def test_a_data_set_gives_its_held_out_cases_and_needs_no_training_data(small, trained, tmp_path):
    written = predict(Predict(trained, small, tmp_path / "all"))
    assert [path.name for path in written] == ["case.4 a.nii.gz", "case.5 a.nii.gz"]
    far = Path(shutil.copytree(trained, tmp_path / "far"))  # the run elsewhere, its data set gone
    stored = json.loads((far / "config.json").read_text(encoding="utf-8"))
    stored["train"]["dataset"] = str(tmp_path / "nowhere")
    (far / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    (far / "resume.pt").unlink()
    (tmp_path / "new").mkdir()
    shutil.copy(small / "imagesTr" / "case.4 a_0000.nii.gz", tmp_path / "new" / "case.4 a_0000.nii.gz")
    (alone,) = predict(Predict(far, tmp_path / "new", tmp_path / "one"))
    assert alone.name == "case.4 a.nii.gz"
    assert np.array_equal(nibabel.load(alone).dataobj, nibabel.load(written[0]).dataobj)


def test_validation_cases_where_the_fold_has_no_test_case(small, trained, capsys):
    _, plan = read_plan(trained)
    fold = type(plan.fold)("0", ("case.0 a",), ("case.1 a",), ())
    jobs = list_jobs(small, Path("out"), [type(plan)(**{**vars(plan), "fold": fold})])
    assert [job.output for job in jobs] == [Path("out/case.1 a.nii.gz")]
    with pytest.raises(InputError, match="no case was held out in training"):
        list_jobs(small, Path("out"), [type(plan)(**{**vars(plan), "fold": type(fold)("0", ("case.0 a",), (), ())})])
    assert capsys.readouterr().err == "predicting the 1 validation case of fold 0\n"  # nothing of the refused one


def test_a_run_that_is_not_at_its_end_is_named(small, trained, tmp_path, capsys):
    scan = read_dataset(small).case(read_plan(trained)[1].fold.test[0]).images[0]
    predict(Predict(trained, scan, tmp_path / "one.nii.gz"))
    assert "not finished" not in capsys.readouterr().err
    run = shutil.copytree(trained, tmp_path / "run")
    stored = json.loads((run / "config.json").read_text(encoding="utf-8"))
    stored["plan"]["recipe"]["iterations"] = 5
    (run / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    predict(Predict(run, scan, tmp_path / "two.nii.gz"))
    assert f"{run}: training is not finished, iteration 2 of 5" in capsys.readouterr().err
    save_file(load_file(run / "last.safetensors"), run / "last.safetensors", {"iteration": "0"})
    with pytest.raises(
        InputError, match=f"{run}: not trained yet, iteration 0 of 5: .* scribbleseg train {run} --resume$"
    ):
        predict(Predict(run, scan, tmp_path / "three.nii.gz"))
    assert not (tmp_path / "three.nii.gz").exists()


def test_images_that_were_trained_on_are_named(small, trained, tmp_path, capsys):
    dataset, fold = read_dataset(small), read_plan(trained)[1].fold
    seen, new = (dataset.case(names[0]).images[0] for names in (fold.train, fold.test or fold.val))
    predict(Predict(trained, new, tmp_path / "new.nii.gz"))
    assert "was trained on" not in capsys.readouterr().err
    (tmp_path / "mixed").mkdir()
    for path in (seen, new):
        (tmp_path / "mixed" / path.name).symlink_to(path.resolve())
    predict(Predict(trained, tmp_path / "mixed", tmp_path / "out"))
    assert f"was trained on 1 of 2 cases ({tmp_path / 'mixed' / seen.name})" in capsys.readouterr().err


def test_a_folder_of_any_names_and_formats(bright, tmp_path):
    expected = {}
    for index, name in enumerate(
        ("scan 1.nii.gz", "b_0000.nii", "patient_0012.nii.gz", "patient_0013.nii.gz", "c.nrrd")
    ):
        image, mask = scan(2, index)
        (tmp_path / "in").mkdir(exist_ok=True)
        if name.endswith("nrrd"):
            file = itk.GetImageFromArray(image.T)
            file.SetSpacing((1, 1, 6))
            itk.WriteImage(file, str(tmp_path / "in" / name))
        else:
            save(tmp_path / "in" / name, image)
        expected[name.replace("_0000", "")] = mask
    (tmp_path / "in" / "notes.txt").write_text("not a volume", encoding="utf-8")
    (tmp_path / "in" / "._scan 1.nii.gz").write_text("left by a file manager", encoding="utf-8")
    written = predict(Predict(bright, tmp_path / "in", tmp_path / "out"))
    assert (
        {path.name for path in written}
        == expected.keys()
        == {path.name for path in (tmp_path / "out").iterdir()} - {MADE_BY}
    )
    for path in written:
        got = (
            itk.GetArrayFromImage(itk.ReadImage(str(path))).T if path.suffix == ".nrrd" else nibabel.load(path).dataobj
        )
        assert np.array_equal(got, expected[path.name]), path.name


def test_two_channels_are_taken_in_order(tmp_path, run, monkeypatch):
    class First(nn.Module):  # the class is the first channel's; the second must be there
        def forward(self, x):
            assert x.shape[1] == 2
            return Brightness()(x[:, :1])

    monkeypatch.setattr("scribbleseg.inference.models.load_network", lambda *_: First())
    change_plan(run, size=SIZE, channels=["T1", "T2"])
    (image, mask), (other, _) = scan(2, 0), scan(2, 1)
    save(tmp_path / "in" / "a_0001.nii.gz", other)
    save(tmp_path / "in" / "a_0000.nii.gz", image)
    predict(Predict(run, tmp_path / "in", tmp_path / "out"))
    assert np.array_equal(nibabel.load(tmp_path / "out" / "a.nii.gz").dataobj, mask)
    with pytest.raises(InputError, match="in: is INPUT itself; .* Choose another OUTPUT."):
        predict(Predict(run, tmp_path / "in", tmp_path / "in"))
    save(tmp_path / "in" / "a_0002.nii.gz", other)
    lacking = [
        (None, "a.nii.gz has 3 files; the run needs 2 channels .T1, T2., named CASE_0000, CASE_0001.$"),
        ("a_0001.nii.gz", "a.nii.gz has 2 files.* Missing: a_0001.nii.gz.$"),
    ]
    for broken, words in (
        *lacking,
        ("a_0000.nii.gz", "a.nii.gz has 1 file; .* Missing: a_0000.nii.gz, a_0001.nii.gz.$"),
    ):
        if broken:
            (tmp_path / "in" / broken).unlink()
        with pytest.raises(InputError, match=words):
            predict(Predict(run, tmp_path / "in", tmp_path / "bad"))
    with pytest.raises(InputError, match="needs 2 channels.*CASE_0000"):
        predict(Predict(run, tmp_path / "in" / "a_0002.nii.gz", tmp_path / "bad"))
    assert not (tmp_path / "bad").exists()


def test_two_channel_files_for_a_one_channel_run_are_refused(bright, tmp_path):
    for name in ("a_0000.nii.gz", "a_0001.nii.gz"):
        save(tmp_path / "in" / name, scan(2)[0])
    with pytest.raises(InputError, match=r"a.nii.gz has 2 files; the run needs 1 channel \(MR0\), named CASE_0000\."):
        predict(Predict(bright, tmp_path / "in", tmp_path / "out"))


@pytest.mark.parametrize("source", ["labelsTr", "labelsTr_dense", "labelsTr/case.5 a.nii.gz"])
def test_labels_given_for_images_are_refused(small, trained, tmp_path, source):
    with pytest.raises(InputError, match="holds labels of the data set .*, no images. Give the data set"):
        predict(Predict(trained, small / source, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_predictions_says_what_made_them(small, run, other, tmp_path):
    def made_by():
        said = json.loads((tmp_path / "out" / MADE_BY).read_text(encoding="utf-8"))
        return {name: said[name] for name in ("runs", "weights", "iterations", "tta", "averaged", "sha256")}

    predict(Predict(run, small, tmp_path / "out"))
    masks = {path: checksum(path) for path in list_masks(tmp_path / "out").values()}
    assert made_by() == {
        "runs": [str(run)],
        "weights": "last",
        "iterations": [2],
        "tta": False,
        "averaged": "",
        "sha256": {path.name: value for path, value in masks.items()},
    }
    assert (tmp_path / "out" / MADE_BY).stat().st_mtime_ns <= min(path.stat().st_mtime_ns for path in masks), (
        "or the report took them for another's"
    )
    assert list_masks(tmp_path / "out").keys() == {"case.4 a", "case.5 a"}, "it is no mask"
    scan = small / "imagesTr" / "case.5 a_0000.nii.gz"
    weights = load_file(run / "last.safetensors")
    for one in (run, other):
        save_file(weights, one / "best.safetensors", {"iteration": "1"})
    predict(Predict((run, other), scan, tmp_path / "out" / "case.5 a.nii.gz", weights="best", tta=True))
    said = {"runs": [str(run), str(other)], "weights": "best", "iterations": [1, 1], "tta": True, "averaged": "flips"}
    assert made_by() == said | {"sha256": {path.name: checksum(path) for path in masks}}, (
        "what was written earlier is still known"
    )
    assert made_by()["sha256"]["case.4 a.nii.gz"] == masks[tmp_path / "out" / "case.4 a.nii.gz"]
    predict(Predict(run, scan, tmp_path / "one" / "mask.nii.gz"))
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["mask.nii.gz"], "a single file needs no note"


def test_only_what_predict_wrote_is_replaced(small, run, tmp_path, capfd):
    out = tmp_path / "out"
    predict(Predict(run, small, out, uncertainty=True))
    predict(Predict(run, small, out, uncertainty=True))
    assert "map" not in capfd.readouterr().err
    predict(Predict(run, small, out))
    assert (
        "2 maps of an earlier prediction will not belong to the new masks (first: case.4 a_entropy.nii.gz)"
        in capfd.readouterr().err
    )
    corrected = out / "case.5 a.nii.gz"
    shutil.copyfile(small / "labelsTr_dense" / corrected.name, corrected)
    kept = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    with pytest.raises(
        InputError,
        match=r"case.5 a.nii.gz: exists already, and it was changed since predict wrote it \(made_by.json\)\. "
        r".* give predict --overwrite",
    ):
        predict(Predict(run, small, out))
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()} == kept, (
        "not one file is touched"
    )
    predict(Predict(run, small / "imagesTr" / "case.4 a_0000.nii.gz", out / "case.4 a.nii.gz"))
    with pytest.raises(InputError, match="case.5 a.nii.gz: exists already"):
        predict(Predict(run, small, out))
    predict(Predict(run, small, out, overwrite=True))
    assert corrected.read_bytes() != kept[corrected.name][0]
    drawn = tmp_path / "by_hand.nii.gz"
    shutil.copyfile(small / "labelsTr_dense" / corrected.name, drawn)
    with pytest.raises(InputError, match="by_hand.nii.gz: exists already"):
        predict(Predict(run, small / "imagesTr" / "case.4 a_0000.nii.gz", drawn))


def test_a_map_that_is_not_predicts_own_is_not_replaced(small, run, tmp_path):
    scan = small / "imagesTr" / "case.4 a_0000.nii.gz"
    mine = tmp_path / "a_entropy.nii.gz"
    mine.write_bytes(b"mine")
    with pytest.raises(InputError, match="a_entropy.nii.gz: exists already"):
        predict(Predict(run, scan, tmp_path / "a.nii.gz", uncertainty=True))
    assert mine.read_bytes() == b"mine" and not (tmp_path / "a.nii.gz").exists()
    predict(Predict(run, scan, tmp_path / "a.nii.gz"))


def test_predictions_are_no_scans(small, run, tmp_path):
    """INPUT and OUTPUT swapped: the scans would be replaced by masks of masks."""
    shutil.copytree(small / "imagesTr", tmp_path / "scans")
    for path in (tmp_path / "scans").iterdir():
        path.rename(path.with_name(path.name.replace("_0000", "")))
    before = {path.name: path.read_bytes() for path in (tmp_path / "scans").iterdir()}
    predict(Predict(run, tmp_path / "scans", tmp_path / "out"))
    for source in (tmp_path / "out", tmp_path / "out" / "case.4 a.nii.gz"):
        with pytest.raises(
            InputError,
            match=r"holds predictions, as made_by.json there says. The order is RUN \[RUN ...\] INPUT OUTPUT",
        ):
            predict(Predict(run, source, tmp_path / "scans"))
    (tmp_path / "out" / MADE_BY).unlink()
    with pytest.raises(InputError, match="exists already, and no note says that predict wrote it"):
        predict(Predict(run, tmp_path / "out", tmp_path / "scans"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "scans").iterdir()} == before


def test_what_was_written_before_an_interruption_is_known(small, run, tmp_path, monkeypatch):
    def stopped(models, *rest):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return real(models, *rest)

    done, real = [], module.segment
    monkeypatch.setattr(module, "segment", stopped)
    with pytest.raises(KeyboardInterrupt):
        predict(Predict(run, small, tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {MADE_BY, "case.4 a.nii.gz"}
    monkeypatch.undo()
    assert len(predict(Predict(run, small, tmp_path / "out"))) == 2


def test_a_mask_is_known_as_soon_as_it_lies_there(small, run, tmp_path, monkeypatch):
    def full(path, array, grid, **more):
        if "entropy" in path.name:
            raise InputError("disk full")
        real(path, array, grid, **more)

    real = module.write_volume
    monkeypatch.setattr(module, "write_volume", full)
    with pytest.raises(InputError, match="disk full"):
        predict(Predict(run, small, tmp_path / "out", uncertainty=True))
    monkeypatch.undo()
    assert (
        "case.4 a.nii.gz" in written(tmp_path / "out")
        and len(predict(Predict(run, small, tmp_path / "out", uncertainty=True))) == 4
    )


def test_two_predictions_into_one_folder_know_each_others_files(small, run, tmp_path, monkeypatch):
    def meanwhile(models, *rest):
        if not done:
            done.append(1)
            predict(Predict(run, small / "imagesTr" / "case.0 a_0000.nii.gz", tmp_path / "out" / "case.0 a.nii.gz"))
        return real(models, *rest)

    done, real = [], module.segment
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MADE_BY).write_text("{}", encoding="utf-8")
    monkeypatch.setattr(module, "segment", meanwhile)
    predict(Predict(run, small, tmp_path / "out"))
    assert written(tmp_path / "out").keys() == {"case.0 a.nii.gz", "case.4 a.nii.gz", "case.5 a.nii.gz"}


def test_the_note_lies_beside_a_linked_mask(small, run, tmp_path):
    predict(Predict(run, small, tmp_path / "out"))
    path = tmp_path / "out" / "case.4 a.nii.gz"
    (tmp_path / "store").mkdir()
    shutil.move(path, tmp_path / "store" / path.name)
    path.symlink_to(tmp_path / "store" / path.name)
    for _ in range(2):
        predict(Predict(run, small, tmp_path / "out"))
    assert not (tmp_path / "store" / MADE_BY).exists()


def test_what_is_no_file_is_not_replaced(trained, small, tmp_path):
    source = small / "imagesTr" / "case.0 a_0000.nii.gz"
    target = tmp_path / "mask.nii.gz"
    for make in (lambda: target.symlink_to("nowhere"), lambda: os.mkfifo(target)):
        make()
        with pytest.raises(InputError, match="mask.nii.gz: exists already"):
            predict(Predict(trained, source, target, device="cpu"))
        assert os.path.lexists(target) and not target.is_file()
        target.unlink()


@pytest.mark.parametrize("text", ["[]", "7", '{"sha256": null}', '{"sha256": []}'])
def test_a_note_that_is_none_is_named(small, run, tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MADE_BY).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="made_by.json: is not the note of `scribbleseg predict`"):
        predict(Predict(run, small, tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [MADE_BY]


def test_maps_take_no_scans_and_no_masks_name(small, run, tmp_path):
    scan = small / "imagesTr" / "case.4 a_0000.nii.gz"
    (tmp_path / "in").mkdir()
    for name in ("a", "a_entropy"):
        shutil.copyfile(scan, tmp_path / "in" / f"{name}.nii.gz")
    with pytest.raises(InputError, match="a_entropy.nii.gz: the prediction would replace an image"):
        predict(
            Predict(
                run,
                tmp_path / "in" / "a_entropy.nii.gz",
                tmp_path / "in" / "a.nii.gz",
                uncertainty=True,
                overwrite=True,
            )
        )
    with pytest.raises(
        InputError, match="a_entropy.nii.gz: the mask of one case and a map of another would have this name"
    ):
        predict(Predict(run, tmp_path / "in", tmp_path / "out", uncertainty=True))
    assert not (tmp_path / "out").exists()


def test_predictions_are_not_strewn_into_a_data_set(small, run, tmp_path):
    shutil.copytree(small, tmp_path / "set")
    before = sorted(path.name for path in (tmp_path / "set").iterdir())
    with pytest.raises(InputError, match="set: is a data set. Choose another OUTPUT"):
        predict(Predict(run, tmp_path / "set" / "imagesTr", tmp_path / "set"))
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == before


def test_an_image_is_never_replaced_by_its_prediction(bright, tmp_path):
    image, _ = scan(2)
    save(tmp_path / "in" / "a.nii.gz", image)
    for source, output in (("in", "in"), ("in/a.nii.gz", "in"), ("in/a.nii.gz", "in/../in/a.nii.gz")):
        with pytest.raises(InputError, match="would replace an image"):
            predict(Predict(bright, tmp_path / source, tmp_path / output))
    assert np.array_equal(nibabel.load(tmp_path / "in" / "a.nii.gz").dataobj, image)


# --- probabilities, entropy, flips, batches


def test_probabilities_and_entropy(small, trained, tmp_path):
    source = small / "imagesTr" / "case.5 a_0000.nii.gz"
    written = predict(Predict(trained, source, tmp_path / "a.nii.gz", probabilities=True, uncertainty=True))
    assert [path.name for path in written] == [
        f"a{tail}.nii.gz" for tail in ("", "_prob_background", "_prob_square", "_prob_core", "_entropy")
    ]
    mask, *probs, uncertain = (np.asanyarray(nibabel.load(path).dataobj) for path in written)
    probs = np.stack(probs)
    assert probs.dtype == uncertain.dtype == np.float32 and mask.shape == probs.shape[1:] == uncertain.shape == (
        40,
        36,
        3,
    )
    assert np.allclose(probs.sum(0), 1, atol=1e-5) and probs.min() >= 0 and len(np.unique(probs)) > 100
    assert np.array_equal(probs.argmax(0), mask)
    by_hand = -sum(p.astype(float) * np.log(p) for p in probs) / math.log(3)
    assert np.allclose(uncertain, by_hand, atol=1e-5) and 0 <= uncertain.min() < uncertain.max() <= 1
    assert all(np.array_equal(nibabel.load(path).affine, nibabel.load(source).affine) for path in written)


def test_entropy_of_known_distributions():
    probs = np.array(
        [[1, 1 / 4, 1 / 2, 0], [0, 1 / 4, 1 / 2, 0.5], [0, 1 / 4, 0, 0.25], [0, 1 / 4, 0, 0.25]], np.float32
    )
    assert entropy(probs) == pytest.approx([0, 1, 0.5, 0.75], abs=1e-6)
    assert entropy(np.full((7, 1), 1 / 7, np.float32)) <= 1


def test_a_class_name_with_a_slash_stays_in_the_folder(bright, tmp_path):
    save(tmp_path / "a.nii.gz", scan(2)[0])
    change_plan(bright, classes=["background", "left/right", "core"])
    predict(Predict(bright, tmp_path / "a.nii.gz", tmp_path / "out", probabilities=True))
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == [
        f"a{t}.nii.gz" for t in ("", "_prob_background", "_prob_core", "_prob_left-right")
    ]


def test_flips_of_an_equivariant_network_change_nothing():
    image = torch.rand(2, 1, 9, 15)
    assert torch.allclose(average_softmax(Brightness(), image, FLIPS), Brightness()(image).softmax(1), atol=1e-6)


def test_flips_are_the_mean_of_four_turned_back():
    image = torch.rand(2, 1, 5, 7)
    by_hand = torch.zeros(2, 3, 5, 7)
    for rows in (slice(None), torch.arange(4, -1, -1)):
        for columns in (slice(None), torch.arange(6, -1, -1)):
            found = Position()(image[:, :, rows][..., columns]).softmax(1)
            by_hand += found[:, :, rows][..., columns] / 4
    got = average_softmax(Position(), image, FLIPS)
    assert torch.allclose(got, by_hand, atol=1e-6)
    assert not torch.allclose(got, Position()(image).softmax(1), atol=0.01)


def test_a_shifted_view_is_moved_back():
    image = torch.rand(2, 1, 6, 8)
    assert torch.equal(View(shift=(2, -3)).of(image)[:, :, 2, 0], image[:, :, 0, 3])
    seen = [View(), View(shift=(2, -3))]
    by_hand = (
        Position()(image).softmax(1) + Position()(image.roll((2, -3), (2, 3))).softmax(1).roll((-2, 3), (2, 3))
    ) / 2
    assert torch.allclose(average_softmax(Position(), image, seen), by_hand, atol=1e-6)


def test_one_view_leaves_the_image_as_it_lies_in_memory():
    image = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert View().of(image).is_contiguous(memory_format=torch.channels_last)


def test_flips_are_averaged_only_where_training_flipped(trained):
    plan = read_plan(trained)[1]
    assert plan.recipe.augmentation == "papers" and views(plan, True) == FLIPS and views(plan, False) == (View(),)
    upright = replace(plan, recipe=replace(plan.recipe, augmentation="upright"), size=80)
    around = [(0, 0), (4, 0), (-4, 0), (0, 4), (0, -4)]
    for other in (upright, replace(plan, preparation="patches", size=80)):
        assert [(view.flips, view.shift) for view in views(other, True)] == [((), shift) for shift in around]


def whole_probs(run, image, grid, batch=32):
    parts = mean_probs(load_models([run], "last", CPU), [image], grid.spacing_mm, CPU, batch)
    return np.concatenate(list(parts), 1)


def test_tta_reaches_the_file(small, trained, tmp_path):
    source = small / "imagesTr" / "case.5 a_0000.nii.gz"
    for name, tta in (("with", True), ("without", False)):
        predict(Predict(trained, source, tmp_path / f"{name}.nii.gz", probabilities=True, tta=tta))
    flipped, plain = (nibabel.load(tmp_path / f"{name}_prob_core.nii.gz").get_fdata() for name in ("with", "without"))
    image, grid = load_image((source,))
    mean = 0
    for rows in (1, -1):
        for columns in (1, -1):
            turned = np.ascontiguousarray(image[:, :, ::rows, ::columns])
            mean = mean + whole_probs(trained, turned, grid)[2][:, ::rows, ::columns] / 4
    assert np.allclose(flipped, mean.transpose(np.argsort(grid.order)), atol=1e-5) and not np.allclose(
        flipped, plain, atol=1e-5
    )


def test_the_batch_size_changes_nothing(small, trained):
    image, grid = load_image((small / "imagesTr" / "case.5 a_0000.nii.gz",))
    whole, single, two = (whole_probs(trained, image, grid, batch) for batch in (32, 1, 2))
    assert whole.shape == (3, 3, 36, 40)
    assert np.allclose(whole, single, atol=1e-6) and np.allclose(whole, two, atol=1e-6)
    assert not np.allclose(whole[:, 0], whole[:, 1], atol=1e-4)


# --- weights


def test_the_weights_of_the_run_are_loaded(trained):
    network = load_network(trained, read_plan(trained)[1])
    stored = load_file(trained / "last.safetensors")
    assert not network.training and all(
        torch.equal(value, stored[name]) for name, value in network.state_dict().items()
    )


@pytest.mark.parametrize(
    "damage", ["truncated", "text", "another width", "more classes", "other names", "missing", "no run"]
)
def test_weights_that_do_not_fit_are_refused(small, run, tmp_path, damage):
    path = run / "last.safetensors"
    words = {
        "missing": "has no last.safetensors",
        "no run": "not a run folder",
        "truncated": "not a safetensors",
        "text": "not a safetensors",
    }.get(damage, "another architecture")
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("weights", encoding="utf-8")
    elif damage == "another width":
        from scribbleseg.networks.unet import UNet

        save_file(UNet(1, 3, widths=(8, 16, 32, 64, 128)).state_dict(), path)
    elif damage == "more classes":
        save_file(build_network("unet", 1, 4).state_dict(), path)
    elif damage == "other names":
        save_file({f"net.{name}": value for name, value in build_network("unet", 1, 3).state_dict().items()}, path)
    elif damage == "missing":
        path.unlink()
    else:
        shutil.rmtree(run)
    with pytest.raises(InputError, match=words) as caught:
        predict(Predict(run, small, tmp_path / "out"))
    assert str(run) in str(caught.value) and not (tmp_path / "out").exists()


def test_best_weights_only_where_there_are_some(small, run, tmp_path):
    with pytest.raises(InputError, match="no best.safetensors.*--weights last"):
        predict(Predict(run, small, tmp_path / "out", weights="best"))
    weights = load_file(run / "last.safetensors")
    save_file({name: torch.zeros_like(value) for name, value in weights.items()}, run / "best.safetensors")
    predict(Predict(run, small, tmp_path / "out", weights="best", probabilities=True))
    assert np.allclose(nibabel.load(tmp_path / "out" / "case.4 a_prob_core.nii.gz").get_fdata(), 1 / 3)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_nothing_is_refused(small, trained, tmp_path, batch):
    with pytest.raises(InputError, match=f"--batch {batch}"):
        predict(Predict(trained, small, tmp_path / "out", batch=batch))


# --- several runs


def voxels(path: Path) -> np.ndarray:
    return np.asanyarray(nibabel.load(path).dataobj)


@pytest.fixture
def other(run, tmp_path):
    """Another network for the same classes and channels: other weights, another size, also with best weights."""
    other = Path(shutil.copytree(run, tmp_path / "other"))
    for name, seed in (("last", 1), ("best", 2)):
        weights = load_file(run / "last.safetensors")
        torch.manual_seed(seed)
        weights = {
            key: value + 0.3 * torch.randn_like(value) if key.endswith("weight") else value
            for key, value in weights.items()
        }
        save_file(weights, other / f"{name}.safetensors")
    return change_plan(other, size=48)


def test_a_run_with_itself_is_the_run(small, trained, tmp_path):
    one = predict(Predict(trained, small, tmp_path / "one", probabilities=True, uncertainty=True))
    two = predict(Predict((trained, trained), small, tmp_path / "two", probabilities=True, uncertainty=True))
    assert [path.name for path in one] == [path.name for path in two] and len(one) == 10
    assert all(np.array_equal(voxels(a), voxels(b)) for a, b in zip(one, two))


@pytest.mark.parametrize("weights", ["last", "best"])
def test_several_runs_are_the_mean_of_their_probabilities(small, run, other, tmp_path, weights):
    shutil.copy(run / "last.safetensors", run / "best.safetensors")
    runs = {"a": run, "b": other, "both": (run, run, other)}
    files = {}
    for name, one in runs.items():
        written = predict(Predict(one, small, tmp_path / name, weights=weights, probabilities=True, uncertainty=True))
        files[name] = {path.name: voxels(path) for path in written}
    assert files["a"].keys() == files["both"].keys()
    probs = {}
    for name, found in files.items():
        probs[name] = np.stack([found[f"case.4 a_prob_{kind}.nii.gz"] for kind in ("background", "square", "core")])
    assert np.abs(probs["a"] - probs["b"]).max() > 0.05, "the two must disagree for the test to say anything"
    mean = (2 * probs["a"] + probs["b"]) / 3
    assert np.allclose(probs["both"], mean, atol=1e-6)
    assert np.array_equal(files["both"]["case.4 a.nii.gz"], probs["both"].argmax(0))
    assert np.allclose(files["both"]["case.4 a_entropy.nii.gz"], entropy(mean), atol=1e-5)


@pytest.mark.parametrize("what, value", [("classes", ["background", "core", "square"]), ("channels", ["CT"])])
def test_runs_that_mean_something_else_are_refused(small, run, other, tmp_path, what, value):
    change_plan(other, **{what: value})
    with pytest.raises(InputError, match=f"{run} has {what} [^()']*, {other} has {', '.join(value)}; only"):
        predict(Predict((run, other), small, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_of_a_data_set_what_every_run_held_out(small, run, other, tmp_path, capsys):
    def fold(name, *test):
        return {"name": name, "train": [], "val": [], "test": list(test)}

    change_plan(run, fold=fold("one", "case.3 a", "case.4 a"))
    change_plan(other, fold=fold("two", "case.4 a", "case.5 a"))
    (path,) = predict(Predict((run, other), small, tmp_path / "out"))
    assert path.name == "case.4 a.nii.gz" and "the 1 test case of fold one, two" in capsys.readouterr().err
    change_plan(other, fold=fold("two", "case.5 a"))
    with pytest.raises(InputError, match="held out by all 2 runs.*folder of volumes.*or one run"):
        predict(Predict((run, other), small, tmp_path / "none"))
    assert len(predict(Predict((run, other), small / "imagesTr", tmp_path / "all"))) == 6


def test_a_volume_is_read_once(small, run, other, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(scan_module, "read_channels", lambda *given: read.append(given) or read_channels(*given))
    predict(Predict((run, other, run), small, tmp_path / "out"))
    assert len(read) == 2


def test_no_run_at_all_is_refused(trained, tmp_path):
    with pytest.raises(InputError, match="OUTPUT is missing"):
        predict(Predict((), trained, tmp_path / "in"))
    with pytest.raises(InputError, match=r"RUN is missing. Expected RUN \[RUN ...\] INPUT OUTPUT"):
        predict(Predict((), tmp_path / "in", tmp_path / "out"))


# --- DICOM


def test_dicom_series_are_segmented_on_their_own_grid(bright, tmp_path, capsys):
    image, mask = scan(2)
    write_series(tmp_path / "in" / "anna", image, [10, 12.5, 15, 17.5])
    write_series(tmp_path / "in" / "ben" / "inner", image[:, ::-1], [10, 12.5, 15, 17.5])
    save(tmp_path / "in" / "carl.nii.gz", image)
    (tmp_path / "in" / "notes.txt").write_text("no scan")
    paths = predict(Predict(bright, tmp_path / "in", tmp_path / "out"))
    assert [path.name for path in paths] == ["carl.nii.gz", "anna.nii.gz", "ben.nii.gz"]
    assert "in: 1 not read, no scans: notes.txt\n" in capsys.readouterr().err
    got = nibabel.load(tmp_path / "out" / "anna.nii.gz")
    assert np.array_equal(np.asanyarray(got.dataobj), mask)
    assert np.allclose(got.affine, [[-0.8, 0, 0, -5], [0, -0.7, 0, -6], [0, 0, 2.5, 10], [0, 0, 0, 1]])
    assert np.array_equal(np.asanyarray(nibabel.load(paths[2]).dataobj), mask[:, ::-1])
    (path,) = predict(Predict(bright, tmp_path / "in" / "anna", tmp_path / "one" / "mask.nii.gz"))
    assert path == tmp_path / "one" / "mask.nii.gz" and np.array_equal(nibabel.load(path).dataobj, mask)
    (path,) = predict(Predict(bright, tmp_path / "in" / "ben", tmp_path / "two"))
    assert path == tmp_path / "two" / "inner.nii.gz"


def test_a_series_lies_in_the_plane_of_the_run(bright, tmp_path):
    image, mask = scan(1)
    write_series(tmp_path / "anna", image, list(2.5 * np.arange(image.shape[2])))
    change_plan(bright, fitted={"plane": "coronal"})
    (path,) = predict(Predict(bright, tmp_path / "anna", tmp_path / "out"))
    assert np.array_equal(np.asanyarray(nibabel.load(path).dataobj), mask)


def test_dicom_that_is_no_scan_is_named(bright, tmp_path):
    write_series(tmp_path / "anna", scan(2)[0], [10, 12.5, 15, 17.5])
    with pytest.raises(InputError, match="9.dcm: is one file of a DICOM series. Give the folder"):
        predict(Predict(bright, tmp_path / "anna" / "9.dcm", tmp_path / "out"))
    write_series(tmp_path / "in" / "ben", scan(2)[0], [10, 12.5, 17.5, 20])
    with pytest.raises(InputError, match="ben: its slices are 2.5 to 5 mm apart"):
        predict(Predict(bright, tmp_path / "in", tmp_path / "out"))
    change_plan(bright, channels=["T1", "T2"])
    with pytest.raises(InputError, match=r"anna: is a DICOM series, one channel; the run needs 2 \(T1, T2\)"):
        predict(Predict(bright, tmp_path / "anna", tmp_path / "out"))
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    with pytest.raises(InputError, match="empty: no scans in this folder; expected files that end in .nii.gz, .*DICOM"):
        predict(Predict(bright, tmp_path / "empty", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# --- whole or not at all


def test_a_bad_case_in_a_folder_leaves_the_finished_ones_whole(bright, tmp_path, capsys):
    masks = {}
    for index in range(3):
        image, masks[index] = scan(2, index)
        save(tmp_path / "in" / f"{index}.nii.gz", image)
    bad = tmp_path / "in" / "1.nii.gz"
    bad.write_bytes(bad.read_bytes()[:200])
    words = rf"^1 of 3 cases .* \(the others were\). Not predicted:\n{tmp_path}/in/1.nii.gz: cannot be read"
    with pytest.raises(InputError, match=words):
        predict(Predict(bright, tmp_path / "in", tmp_path / "out", uncertainty=True))
    assert "predicted and written" not in capsys.readouterr().err
    names = ["0.nii.gz", "0_entropy.nii.gz", "2.nii.gz", "2_entropy.nii.gz", MADE_BY]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert np.array_equal(nibabel.load(tmp_path / "out" / "2.nii.gz").dataobj, masks[2])
    assert np.array_equal(nibabel.load(tmp_path / "out" / "0.nii.gz").dataobj, masks[0])


@pytest.mark.parametrize("end", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_a_full_disk_keeps_the_earlier_prediction(bright, tmp_path, end, capfd):
    image = np.random.default_rng(0).integers(0, 1000, (SIZE, SIZE, 20)).astype(np.int16)
    save(tmp_path / "a.nii.gz", image, np.diag([1.0, 1, 5, 1]))
    output = tmp_path / "out" / f"a{end}"
    with atomic_file(output) as partial:
        partial.write_bytes(b"an earlier prediction")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # no file can grow past 4 kB
    try:
        with pytest.raises(InputError, match="cannot be written.*Free some space") as caught:
            predict(Predict(bright, tmp_path / "a.nii.gz", output, overwrite=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(output) in str(caught.value) and "\n" not in str(caught.value)
    assert output.read_bytes() == b"an earlier prediction" and list(output.parent.iterdir()) == [output]
    predict(Predict(bright, tmp_path / "a.nii.gz", output, overwrite=True))
    assert itk.ReadImage(str(output)).GetSize() == (SIZE, SIZE, 20) and list(output.parent.iterdir()) == [output]


def test_the_old_prediction_stays_until_the_new_one_is_whole(bright, tmp_path, monkeypatch):
    save(tmp_path / "a.nii.gz", scan(2)[0])
    output = tmp_path / "mask.nii.gz"
    output.write_bytes(b"old")
    seen, whole = [], nibabel.save

    def slow_save(file, path):
        seen.append((Path(path) != output, output.read_bytes()))
        whole(file, path)
        seen.append((Path(path).is_file(), output.read_bytes()))

    monkeypatch.setattr(nibabel, "save", slow_save)
    predict(Predict(bright, tmp_path / "a.nii.gz", output, overwrite=True))
    assert seen == [(True, b"old"), (True, b"old")] and nibabel.load(output).shape == (9, 15, 4)


def test_a_data_set_of_other_channels_is_refused(trained, tmp_path):
    two = small_dataset(tmp_path / "two", cases=3, channels=2)
    with pytest.raises(InputError, match="has the channels MR0, MR1; the run was trained on MR0.$"):
        predict(Predict(trained, two, tmp_path / "out"))


def test_batch_norms_are_folded_into_their_convolutions():
    """The same logits as with the norms, from fewer operations; what has no norm right behind a convolution stays."""
    torch.manual_seed(0)
    network = UNet(1, 4, (4, 8, 8), (0.1, 0.2, 0.3))
    for _ in range(3):
        network(3 * torch.rand(4, 1, 32, 32) + 1)  # moves the running statistics
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        image = torch.rand(2, 1, 32, 48)
        expected = network.eval()(image)
        found = folded(copy.deepcopy(network))(image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    assert not [m for m in folded(network).modules() if isinstance(m, nn.BatchNorm2d)]
    alone = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.BatchNorm2d(2)).eval()
    assert isinstance(folded(alone)[2], nn.BatchNorm2d)


@pytest.mark.parametrize("dtype, norms", [(torch.float32, 0), (torch.bfloat16, 18)])
def test_norms_are_folded_in_float32_only(trained, monkeypatch, dtype, norms):
    monkeypatch.setattr("scribbleseg.inference.models.pick_precision", lambda *_: dtype)
    (model,) = load_models([trained], "last", torch.device("cpu"))
    assert sum(isinstance(module, nn.BatchNorm2d) for module in model.network.modules()) == norms
