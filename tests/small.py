"""A small data set for tests: bright squares of two classes on noise, drawn with scribbles."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np

from scribbleseg.config import Train
from scribbleseg.data.layout import read_dataset
from scribbleseg.training.plan import Plan
from scribbleseg.training.settings import make_plan

AFFINE = np.array([[-0.4, -0.27, 3.77, 76.4], [-0.6, 0.02, -2.86, 214.9], [-0.14, 0.68, 1.61, -148.0], [0, 0, 0, 1]])


def save(path: Path, stored: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(stored, affine), path)


def small_dataset(
    folder: Path, cases: int = 6, shape: tuple[int, int, int] = (40, 36, 3), channels: int = 1, dense: bool = True
) -> Path:
    """`cases` volumes, the last third held out; classes: background 0, square 1, core 2, ignore 3."""
    rng = np.random.default_rng(0)
    names = [f"case.{index} a" for index in range(cases)]  # any file name
    for name in names:
        truth = np.zeros(shape, np.uint8)
        x, y = rng.integers(6, shape[0] - 22), rng.integers(6, shape[1] - 22)
        truth[x : x + 16, y : y + 16] = 1
        truth[x + 4 : x + 11, y + 4 : y + 11] = 2
        for channel in range(channels):
            image = rng.normal(100, 12, shape) + np.array([0, 60, 140])[truth]
            save(folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz", image.astype(np.int16))
        scribble = np.full(shape, 3, np.uint8)
        scribble[x + 2, y + 1 : y + 15] = 1
        scribble[x + 7, y + 5 : y + 10] = 2
        scribble[x - 3, y - 3 : y + 14] = 0
        save(folder / "labelsTr" / f"{name}.nii.gz", scribble)
        if dense:
            save(folder / "labelsTr_dense" / f"{name}.nii.gz", truth)
    info = {
        "channel_names": {str(channel): f"MR{channel}" for channel in range(channels)},
        "labels": {"background": 0, "square": 1, "core": 2, "ignore": 3},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(info), encoding="utf-8")
    held = cases // 3
    (folder / "splits_final.json").write_text(
        json.dumps([{"train": names[:-held], "val": names[-held:]}]), encoding="utf-8"
    )
    return folder


def ringed(folder: Path, side: int = 96) -> Path:
    """small_dataset in a corner of larger slices, with closed rings around the squares."""
    small_dataset(folder, shape=(44, 40, 3))
    for kind in ("imagesTr", "labelsTr", "labelsTr_dense"):
        for path in sorted((folder / kind).iterdir()):
            file = nibabel.load(path)
            voxels = np.asarray(file.dataobj)
            whole = np.full((side, side, 3), {"imagesTr": 100, "labelsTr": 3, "labelsTr_dense": 0}[kind], voxels.dtype)
            if kind == "imagesTr":
                whole += np.random.default_rng(0).normal(0, 12, whole.shape).astype(voxels.dtype)
            whole[:44, :40] = voxels
            if kind == "labelsTr":
                dense = np.asarray(nibabel.load(folder / "labelsTr_dense" / path.name).dataobj).any(2)
                rows, columns = (np.nonzero(dense.any(axis))[0] for axis in (1, 0))
                top, left = rows[0] - 3, columns[0] - 3
                ring = np.zeros((side, side), bool)
                ring[top : rows[-1] + 4, left : columns[-1] + 4] = True
                ring[top + 1 : rows[-1] + 3, left + 1 : columns[-1] + 3] = False
                whole[whole == 0] = 3
                whole[ring] = 0
            nibabel.save(nibabel.Nifti1Image(whole, file.affine), path)
    return folder


def briefly(scribbleseg: Callable, done: list[str]) -> Callable:
    """The command of a study, with trainings of two iterations; its verbs are put into `done`."""

    def short(words):
        words = [str(word) for word in words]
        done.append(words[0])
        scribbleseg(words + ["--iterations", "2", "--size", "32", "--batch", "2"] * (words[0] == "train"))

    return short


def plan_of(config: Train) -> Plan:
    return make_plan(config, read_dataset(config.dataset))
