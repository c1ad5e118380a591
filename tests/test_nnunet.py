"""What importers, phantom and simulate make passes nnU-Net's integrity check, whose rules are written here anew."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from small import save, small_dataset

from scribbleseg.config import Import, Phantom, Simulate
from scribbleseg.data.importers import import_dataset
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.synthetic.phantom import phantom
from scribbleseg.data.synthetic.simulate import simulate


def faults(folder: Path) -> list[str]:
    """What nnU-Net v2 would refuse: keys, numbers, missing files, other grids, NaN, and values that are not listed."""
    said = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    if lacking := {"labels", "channel_names", "numTraining", "file_ending"} - said.keys():
        return [f"no {sorted(lacking)}"]
    end, values = said["file_ending"], list(said["labels"].values())
    images = [path.name.removesuffix(end) for path in (folder / "imagesTr").iterdir() if path.name.endswith(end)]
    names = {name[:-5] for name in images}
    found = []
    if len(names) != said["numTraining"]:
        found.append(f"numTraining {said['numTraining']} of {len(names)}")
    if sorted(values) != list(range(len(values))) or said["labels"].get("ignore", max(values)) != max(values):
        found.append(f"labels {values}")
    for name in sorted(names):
        path = folder / "labelsTr" / f"{name}{end}"
        if not path.is_file():
            found.append(f"{name} has no label")
            continue
        label = nibabel.load(path)
        if not set(np.unique(np.asarray(label.dataobj)).tolist()) <= set(values):
            found.append(f"{name} has other values")
        for channel in range(len(said["channel_names"])):
            image = nibabel.load(folder / "imagesTr" / f"{name}_{channel:04d}{end}")
            if np.isnan(np.asarray(image.dataobj)).any():
                found.append(f"{name} has NaN")
            if image.shape != label.shape or not np.allclose(image.affine, label.affine, atol=1e-3):
                found.append(f"{name} has another grid than its label")
    if (folder / "splits_final.json").is_file():
        for fold in json.loads((folder / "splits_final.json").read_text(encoding="utf-8")):
            if odd := {*fold["train"], *fold["val"]} - names:
                found.append(f"splits_final.json names {sorted(odd)}")
    return found


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
