"""Which files are masks, which belong together, and what their values are called."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..data.volume import ENDINGS, ending, read_label


def list_masks(path: Path) -> dict[str, Path]:
    """Case name → file, of a file or of the volumes of a folder.

    The probability and entropy maps that `predict` writes beside a mask are not masks and left out. Raises InputError
    for a path that does not exist, a folder without masks and two files of one case.
    """
    if path.is_file():
        return {_stem(path): path}
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder.")
    files: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if file.name.startswith(".") or not file.name.lower().endswith(ENDINGS):
            continue
        if _stem(file) in files:
            raise InputError(
                f"{path}: {files[_stem(file)].name} and {file.name} are the same case. Remove one of the two."
            )
        files[_stem(file)] = file
    masks = {name: file for name, file in files.items() if not _is_map(name, files)}
    if not masks:
        raise InputError(f"{path}: no masks in this folder; expected files ending in {', '.join(ENDINGS)}.")
    return masks


def _stem(path: Path) -> str:
    return path.name[: -len(ending(path))]


def _is_map(name: str, files: dict[str, Path]) -> bool:
    owners = [name[:at] for at in range(len(name)) if name[at:] == "_entropy" or name.startswith("_prob_", at)]
    return any(owner in files for owner in owners)


def class_names(path: Path, labels: Mapping[str, object]) -> tuple[str, ...]:
    """The foreground classes that a dataset.json names, by value. Raises InputError unless these are 1, 2, … ."""
    values = {value: name for name, value in labels.items() if name != "ignore" and isinstance(value, int)}
    if len(values) != len(labels.keys() - {"ignore"}) or sorted(values) != list(range(len(values))) or len(values) < 2:
        raise InputError(
            f"{path}: labels are {labels}; expected 0 (background), 1, 2, … "
            "Correct them, or name the classes with --class-name."
        )
    return tuple(values[value] for value in range(1, len(values)))


def numbered_classes(paths: Sequence[Path]) -> tuple[str, ...]:
    """class_1, class_2, … up to the highest value in the masks.

    Raises InputError where no mask has foreground, and for a value that no class has.
    """

    def highest_in(path: Path) -> int:
        try:
            return int(read_label(path)[0].max())
        except InputError:  # is said when the case is scored
            return 1

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        highest = max(pool.map(highest_in, paths))
    if highest < 1:
        raise InputError(
            f"{paths[0].parent}: no mask has any foreground, so there is nothing to compare with. "
            "Is this the folder of the dense masks?"
        )
    if highest >= UNLABELED:
        raise InputError(
            f"{paths[0].parent}: a mask has the value {highest}; expected classes up to {UNLABELED - 1}. Correct the "
            "masks, or name the classes with --class-name."
        )
    return tuple(f"class_{value}" for value in range(1, highest + 1))


def check_values(label: np.ndarray, path: Path, names: Sequence[str]) -> None:
    """Raises InputError for a value that is neither background nor one of the classes."""
    for value in (int(label.min()), int(label.max())):
        if not 0 <= value <= len(names):
            known = ", ".join(f"{number} {name}" for number, name in enumerate(("background", *names)))
            raise InputError(
                f"{path}: has value {value}; expected {known}. "
                "Give dense masks of these classes, not scribbles with an ignore value; --class-name names every class."
            )
