"""What importers, phantom, simulate and `draw` make passes nnU-Net's integrity check; and both programs score alike."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nnunet_rules import faults
from small import save, small_dataset

from scribbleseg.config import Evaluate, Import, Phantom, Simulate
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.importers import import_dataset
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.synthetic.phantom import phantom
from scribbleseg.data.synthetic.simulate import simulate
from scribbleseg.draw.draw import open_session
from scribbleseg.evaluation.scores import evaluate


def test_the_rules_see_faults(tmp_path):
    folder = small_dataset(tmp_path / "data", cases=3)
    assert faults(folder) == []
    (folder / "labelsTr" / "case.0 a.nii.gz").unlink()
    assert faults(folder) == ["case.0 a has no label"]
    save(folder / "labelsTr" / "case.0 a.nii.gz", np.full((40, 36, 3), 7, np.uint8), np.eye(4))
    assert faults(folder) == ["case.0 a has other values", "case.0 a has another grid than its label"]
    (folder / "imagesTr" / "case.1 a_0000.nii.gz").unlink()
    assert "numTraining 3 of 2" in faults(folder) and "splits_final.json names ['case.1 a']" in faults(folder)


def test_phantom_and_simulate(tmp_path):
    phantom(Phantom(tmp_path / "phantom", cases=3))
    assert faults(tmp_path / "phantom") == []
    simulate(Simulate(tmp_path / "phantom", overwrite=True))
    assert faults(tmp_path / "phantom") == []


@pytest.fixture
def mscmr(tmp_path) -> Path:
    for part, subject, kind in (("train", 2, "scribble"), ("val", 3, "manual"), ("TestSet", 4, "manual")):
        rng = np.random.default_rng(subject)
        folder, name = tmp_path / "src" / part, f"subject{subject}_DE"
        save(folder / "images" / f"{name}.nii.gz", rng.integers(0, 99, (6, 5, 4), np.int16))
        save(folder / "labels" / f"{name}_{kind}.nii.gz", rng.integers(0, 4, (6, 5, 4), np.uint8))
    import_dataset(Import("mscmr", tmp_path / "src", tmp_path / "set"))
    return tmp_path / "set"


def test_cases_for_validation_get_a_label_without_strokes(mscmr):
    assert faults(mscmr) == []
    blank = np.asarray(nibabel.load(mscmr / "labelsTr" / "subject3_DE.nii.gz").dataobj)
    assert blank.shape == (6, 5, 4) and (blank == 4).all()
    dataset = read_dataset(mscmr)
    assert dataset.folds("25-5-15")[0].train == ("subject2_DE",) and dataset.cases["subject3_DE"].truth is not None


@pytest.fixture
def drawn(tmp_path) -> Path:
    """A data set of `draw` that was not closed: three volumes, of which one came later, and strokes on one of them."""
    rng = np.random.default_rng(0)
    for number in (1, 2):
        save(tmp_path / "scans" / f"scan{number}.nii.gz", rng.integers(0, 99, (6, 5, 4), np.int16))
    open_session(tmp_path / "scans", ("liver",))
    save(tmp_path / "scans" / "scan3.nii.gz", rng.integers(0, 99, (7, 5, 4), np.int16))
    session = open_session(tmp_path / "scans")
    case = session.case("scan1")
    plane = np.full(session.strokes.shown(case, 0, 1)[0].shape, UNLABELED, np.uint8)
    plane[2, 1:3], plane[2, 4] = 1, 0
    session.save_slice("scan1", 1, plane.tobytes(), "none")
    return session.place


def test_a_drawn_data_set_is_completed_when_it_is_closed(drawn, tmp_path):
    assert faults(drawn) == ["numTraining 2 of 3", "scan2 has no label", "scan3 has no label"]
    strokes, scans = (drawn / "labelsTr" / "scan1.nii.gz").read_bytes(), sorted((tmp_path / "scans").iterdir())
    open_session(tmp_path / "scans").complete()
    assert faults(drawn) == []
    assert (drawn / "labelsTr" / "scan1.nii.gz").read_bytes() == strokes
    assert sorted((tmp_path / "scans").iterdir()) == scans
    assert sorted(path.name for path in drawn.iterdir() if path.name[0] != ".") == [
        "dataset.json",
        "imagesTr",
        "labelsTr",
    ]


def test_a_drawn_data_set_is_copied_without_links(drawn, tmp_path, capsys):
    import_dataset(Import("dataset", drawn, tmp_path / "Dataset501_Liver"))
    whole = tmp_path / "Dataset501_Liver"
    assert faults(whole) == [] and "without a label: 2 of 3 cases" in capsys.readouterr().err
    assert not any(path.is_symlink() for path in whole.rglob("*"))
    assert (np.asarray(nibabel.load(whole / "labelsTr" / "scan3.nii.gz").dataobj) == 2).all()
    strokes = (whole / "labelsTr" / "scan1.nii.gz").read_bytes()
    assert strokes == (drawn / "labelsTr" / "scan1.nii.gz").read_bytes()
    assert sorted(path.name for path in whole.iterdir()) == ["dataset.json", "imagesTr", "labelsTr"]


def test_a_completed_data_set_keeps_masks_and_splits(tmp_path):
    folder = small_dataset(tmp_path / "data", cases=3)
    (folder / "imagesTs").mkdir()
    shutil.copy(folder / "imagesTr" / "case.0 a_0000.nii.gz", folder / "imagesTs" / "held_0000.nii.gz")
    (folder / "labelsTr" / "case.0 a.nii.gz").unlink()
    import_dataset(Import("dataset", folder, tmp_path / "whole"))
    assert faults(tmp_path / "whole") == []
    before, after = read_dataset(folder), read_dataset(tmp_path / "whole")
    assert after.folds("final") == before.folds("final") and after.tests.keys() == {"held"}
    assert [case.truth.name for case in after.cases.values()] == [case.truth.name for case in before.cases.values()]


# --- nnU-Net itself, where it is installed


@pytest.fixture
def nnunet(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path))
    return pytest.importorskip("nnunetv2")


@pytest.mark.slow
def test_its_integrity_check_takes_what_we_make(nnunet, drawn, mscmr, tmp_path):
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    with pytest.raises(AssertionError, match="expected number of training cases"):
        verify_dataset_integrity(str(drawn), 1)
    phantom(Phantom(tmp_path / "phantom", cases=3))
    import_dataset(Import("dataset", drawn, tmp_path / "whole"))
    open_session(drawn).complete()
    for folder in (tmp_path / "phantom", mscmr, tmp_path / "whole", drawn):
        verify_dataset_integrity(str(folder), 1)


@pytest.mark.slow
def test_its_evaluation_gives_the_same_dice(nnunet, tmp_path):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO

    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        truth = np.zeros((20, 18, 6), np.uint8)
        truth[3:12, 4:12] = 1
        truth[5:9, 6:10] = 2
        save(tmp_path / "truth" / f"{name}.nii.gz", truth)
        found = np.where(rng.random(truth.shape) < 0.2, rng.integers(0, 3, truth.shape), truth).astype(np.uint8)
        save(tmp_path / "found" / f"{name}.nii.gz", found)
        rows = evaluate(Evaluate(tmp_path / "found", tmp_path / "truth", classes=("outer", "inner")))
        paths = [str(tmp_path / part / f"{name}.nii.gz") for part in ("truth", "found")]
        theirs = compute_metrics(*paths, NibabelIO(), [1, 2])["metrics"]
        ours = [row["dice"] for row in rows if row["case"] == name]
        assert ours == pytest.approx([theirs[1]["Dice"], theirs[2]["Dice"]], abs=1e-12)


def test_simulate_draws_on_a_label_without_strokes_and_keeps_others(tmp_path):
    folder = small_dataset(tmp_path / "data", cases=3)
    blank, drawn = folder / "labelsTr" / "case.0 a.nii.gz", folder / "labelsTr" / "case.1 a.nii.gz"
    save(blank, np.full((40, 36, 3), 3, np.uint8))
    before = drawn.read_bytes()
    simulate(Simulate(folder))
    assert (np.asarray(nibabel.load(blank).dataobj) < 3).any() and drawn.read_bytes() == before
