"""Import MSCMR late-enhancement MR in CycleMix's layout: train (scribbles), val and TestSet (dense masks), NIfTI."""

import os
import re
from pathlib import Path

import numpy as np

from ...core.atomic import atomic_folder
from ...core.console import say
from ...core.errors import InputError, counted, first_names
from ...core.parallel import for_each
from .protocols import write_splits
from .write import copy_case, say_moved, write_blanks, write_description

IMAGE = re.compile(r"((subject\d+)_DE)\.nii\.gz")
CLASSES = ("RV", "Myo", "LV")
IGNORE = len(CLASSES) + 1
ABOUT = {
    "reference": "Zhuang, IEEE TPAMI 2019 (MSCMRseg); Zhang & Zhuang, CVPR 2022 (CycleMix, scribbles)",
    "licence": "research use",
    "description": "Late gadolinium enhancement MR. Labels: scribbles of 25 subjects; labelsTr_dense: dense masks of 5",
}


def import_mscmr(src: Path, dst: Path, same_voxels: bool = False) -> None:
    """Copy `src` (the folder that has `train`) to the new data set `dst`, file by file and byte by byte.

    train → imagesTr with scribbles; val → imagesTr with dense masks and a label without strokes, which nnU-Net
    asks for; TestSet, where there is one → imagesTs.

    Values: 1 RV, 2 Myo, 3 LV, as in ACDC; 4 = not drawn. We found them on the five dense masks of val. If the rings of
    value 2 are filled slice by slice, they contain value 3 (26 931 to 44 332 voxels per subject, 93 to 100 % of it) and
    never value 1. So 2 is myocardium, and 3 is the left ventricle's blood pool. The centroid of value 1 lies 36 to
    42 mm to the right and 15 to 23 mm to the front of that of value 3. So 1 is the right ventricle.

    same_voxels: accept labels that have the image's shape and lost its geometry; each of them is named. The public
    download has one. Raises InputError if a folder is missing or a training image has no scribble, and what copy_case
    raises.
    """
    src = Path(src)
    root = next((folder for folder in (src, src / "MSCMR_dataset") if (folder / "train" / "images").is_dir()), None)
    if root is None:
        raise InputError(
            f"{src}: has no train/images. Give the folder of CycleMix's MSCMR_dataset (train, val, TestSet)."
        )
    parts = {part: _subjects(root / part / "images") for part in ("train", "val", "TestSet")}
    if not parts["train"]:
        raise InputError(f"{root / 'train' / 'images'}: has no files such as subject1_DE.nii.gz. Add the images.")
    for case in parts["train"]:
        scribble = _label(root, "train", case, "scribble")
        if not scribble.is_file():
            raise InputError(f"{scribble}: no such file, but train/images has {case}. Add it, or remove the image.")

    _say_others(root, parts)

    def copy(item: tuple[str, str]) -> list[Path]:
        part, case = item
        scribble = _label(root, part, case, "scribble") if part == "train" else None
        truth = _label(root, part, case, "manual")
        return copy_case(
            folder,
            case,
            parts[part][case],
            scribble,
            truth if os.path.lexists(truth) else None,
            IGNORE,
            held_out=part == "TestSet",
            same_voxels=same_voxels,
        )

    with atomic_folder(dst) as folder:
        cases = [(part, case) for part, cases in parts.items() for case in cases]
        say_moved([path for moved in for_each("importing MSCMR", copy, cases) for path in moved])
        write_blanks(folder, IGNORE)
        groups = {case: case.split("_")[0] for cases in parts.values() for case in cases}
        write_description(folder, "MSCMR", ("LGE",), CLASSES, groups, **ABOUT)
        train, val, test = (list(parts[part]) for part in ("train", "val", "TestSet"))
        rows = {"25-5-15": [{"name": "25-5-15", "train": train, "val": val, "test": test}], "tuning": [_tuning(train)]}
        write_splits(folder, rows, "25-5-15")


def _tuning(train: list[str]) -> dict:
    """The split for choosing settings: a seeded fifth of the scribbled subjects is for validation, on its scribbles."""
    held = set(
        np.random.RandomState(0).permutation(sorted(train))[: len(train) // 5].tolist()
    )  # the legacy stream is frozen
    return {
        "name": "tuning",
        "train": [case for case in train if case not in held],
        "val": [case for case in train if case in held],
        "test": [],
    }


def _label(root: Path, part: str, case: str, kind: str) -> Path:
    return root / part / "labels" / f"{case}_{kind}.nii.gz"


def _say_others(root: Path, parts: dict[str, dict[str, Path]]) -> None:
    """Name the files beside the images and labels that are read."""
    others = []
    for part, cases in parts.items():
        known = set(cases.values()) | {
            _label(root, part, case, kind) for case in cases for kind in ("scribble", "manual")
        }
        folders = (root / part / "images", root / part / "labels")
        others += [path for folder in folders for path in sorted(folder.glob("[!.]*")) if path not in known]
    if others:
        say(f"{root}: {counted(len(others), 'file')} not imported: {first_names([path.name for path in others])}")


def _subjects(images: Path) -> dict[str, Path]:
    paths = sorted(images.glob("[!.]*.nii.gz")) if images.is_dir() else []
    return {match[1]: path for path in paths if (match := IMAGE.fullmatch(path.name))}
