"""Data sets of synthetic scans with simulated scribbles: hearts in MR, or abdomens in CT."""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np

from ... import config
from ...core.atomic import atomic_folder
from ...core.errors import InputError
from ...core.labels import UNLABELED
from ...core.progress import Progress
from ...core.seeds import check_seed
from ..volume import Grid, write_volume
from . import abdomen, heart
from .simulate import case_seed, simulate_scribbles

FOLDS = 3


def phantom(config: config.Phantom) -> None:
    """Write a data set of `cases` synthetic scans with simulated scribbles, dense masks and splits_final.json; seeded.

    Hearts come in pairs, end diastole (ed) and end systole (es) of one patient, named in `groups`. Each of up to three
    folds holds out a share of the patients. Raises InputError for too few cases, for options of the abdomen that are
    given to the heart, and for a folder that is not empty.
    """
    check_seed(config.seed)
    if config.cases < 3:
        raise InputError(
            f"cases is {config.cases}; expected 3 or more, two for each patient, so that a patient can be held out."
        )
    if config.anatomy == "heart":
        if config.isotropic or config.pet:
            raise InputError("--isotropic and --pet are for --anatomy abdomen. Leave them out, or choose the abdomen.")
        _write_hearts(config)
    else:
        _write_abdomens(config)


def _write_hearts(config: config.Phantom) -> None:
    names = [f"heart{index // 2 + 1:03d}_{('ed', 'es')[index % 2]}" for index in range(config.cases)]
    groups = {name: name.partition("_")[0] for name in names}

    def write(folder: Path, patient: str) -> None:
        for state, beat in zip(("ed", "es"), heart.draw_patient(case_seed(config.seed, patient)), strict=True):
            name = f"{patient}_{state}"
            if name in groups:
                image = np.rint(1000 * beat.image).astype(np.int16)
                _write_case(folder, name, [image], beat.truth, beat.affine, heart.CLASSES, config.seed)

    _write_dataset(config, "hearts", sorted(set(groups.values())), groups, write, ["MR"], heart.CLASSES)


def _write_abdomens(config: config.Phantom) -> None:
    names = [f"abdomen{index + 1:03d}" for index in range(config.cases)]

    def write(folder: Path, name: str) -> None:
        lesion = names.index(name) % abdomen.LESION_EVERY == 0
        seed = case_seed(config.seed, name)
        scan = abdomen.draw_abdomen(seed, isotropic=config.isotropic, lesion=lesion, pet=config.pet)
        _write_case(folder, name, scan.images, scan.truth, scan.affine, abdomen.CLASSES, config.seed)

    channels = ["CT", "PET"] if config.pet else ["CT"]
    _write_dataset(config, "abdomens", names, {name: name for name in names}, write, channels, abdomen.CLASSES)


def _write_case(
    folder: Path,
    name: str,
    images: Sequence[np.ndarray],
    truth: np.ndarray,
    affine: np.ndarray,
    classes: Sequence[str],
    seed: int,
) -> None:
    scribble = simulate_scribbles(truth, len(classes), seed=case_seed(seed, name))
    scribble[scribble == UNLABELED] = len(classes)
    header = nibabel.Nifti1Header()
    header.set_xyzt_units("mm")
    grid = Grid(truth.shape[::-1], affine, header)
    for channel, image in enumerate(images):
        write_volume(folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz", image, grid)
    write_volume(folder / "labelsTr" / f"{name}.nii.gz", scribble, grid)
    write_volume(folder / "labelsTr_dense" / f"{name}.nii.gz", truth, grid)


def _write_dataset(
    config: config.Phantom,
    what: str,
    patients: Sequence[str],
    groups: dict[str, str],
    write: Callable[[Path, str], None],
    channels: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Write every patient, the folds and dataset.json. groups: case → patient."""
    with atomic_folder(config.dst) as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        with Progress(f"drawing {what}", len(patients), "patients") as bar:
            for _ in pool.map(lambda patient: write(folder, patient), patients):
                bar.advance()
        folds = []
        for fold in range(min(FOLDS, len(patients))):
            held_out = set(patients[fold::FOLDS])
            folds.append(
                {part: [n for n in groups if (groups[n] in held_out) == (part == "val")] for part in ("train", "val")}
            )
        (folder / "splits_final.json").write_text(json.dumps(folds, indent=1), encoding="utf-8")
        info = {
            "name": "phantom",
            "channel_names": {str(number): name for number, name in enumerate(channels)},
            "labels": {name: value for value, name in enumerate((*classes, "ignore"))},
            "numTraining": len(groups),
            "file_ending": ".nii.gz",
            "groups": groups,
        }
        (folder / "dataset.json").write_text(json.dumps(info, indent=1), encoding="utf-8")
