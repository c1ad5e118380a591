"""A small data set on disk that is right in every respect, for tests that break one thing in it."""

import json
from pathlib import Path

import nibabel
import numpy as np

SHAPE = (12, 10, 4)  # x, y, z as stored
OBLIQUE = np.array([[-0.51, -0.12, 3.57, 20.0], [-0.54, 0.08, -3.37, -31.0], [-0.03, 0.73, 0.93, 7.5], [0, 0, 0, 1.0]])


def save(path: Path, array: np.ndarray, affine: np.ndarray = OBLIQUE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def image(seed: int, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 900, shape, dtype=np.int16)


def truth() -> np.ndarray:
    dense = np.zeros(SHAPE, np.uint8)
    dense[2:9, 2:8] = 1
    dense[4:7, 4:6] = 2
    return dense


def scribble() -> np.ndarray:
    """3 = not drawn; a row of background, of class 1 and of class 2 on the first three of the four slices."""
    drawn = np.full(SHAPE, 3, np.uint8)
    drawn[1:10, 0, :3] = 0
    drawn[3:8, 2, :3] = 1
    drawn[4:7, 4, :3] = 2
    return drawn


def tiny_set(folder: Path, cases: int = 4) -> Path:
    names = [f"case{i}" for i in range(cases)]
    for i, name in enumerate(names):
        save(folder / "imagesTr" / f"{name}_0000.nii.gz", image(i))
        save(folder / "labelsTr" / f"{name}.nii.gz", scribble())
        save(folder / "labelsTr_dense" / f"{name}.nii.gz", truth())
    description = {
        "name": "tiny",
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "outer": 1, "inner": 2, "ignore": 3},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "groups": {"case0": "p0", "case1": "p0", "case2": "p1", "case3": "p1"},
    }
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    (folder / "splits_final.json").write_text(
        json.dumps([{"train": names[:2], "val": names[2:]}, {"train": names[2:], "val": names[:2]}]), encoding="utf-8"
    )
    return folder


def edit(folder: Path, **changes) -> None:
    """Change keys of dataset.json; None removes one."""
    path = folder / "dataset.json"
    info = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in info.items() if value is not None}), encoding="utf-8")
