"""A data set from a folder of volumes: the images are linked, or copied where links are not possible."""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..core.atomic import atomic_folder
from ..core.console import say
from ..core.errors import InputError, first_names
from ..data.importers.write import write_description
from ..data.layout import read_dataset
from ..data.volume import ITK, NIFTI, ending

RESERVED = ("background", "ignore")


def scribbles_folder(folder: Path) -> Path:
    """Where the data set of a bare folder of volumes lies: beside it."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}_scribbles")


def volumes(folder: Path) -> dict[str, Path]:
    """Case → file. `CASE_0000` is the case CASE.

    Raises InputError for a folder without volumes, for endings that differ, and for two files of one case.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Give a folder of volumes, or a data set.")
    known = NIFTI + ITK
    every = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = [path for path in every if path.name.lower().endswith(known)]
    if not files:
        raise InputError(f"{folder}: no volumes in it; expected files that end in {', '.join(known)}.")
    if odd := [path for path in files if not path.is_file()]:
        raise InputError(
            f"{odd[0]}: is not a file (a folder, or a link to nowhere?). Put the scan there, or remove it."
        )
    if others := [path.name for path in every if path not in files]:
        say(f"{folder}: {len(others)} not shown, no volumes: {first_names(others)}")
    ends = sorted({ending(path) for path in files})
    if len(ends) > 1:
        raise InputError(
            f"{folder}: has files of {len(ends)} kinds, {', '.join(ends)}; a data set has one. "
            "Put each kind into a folder of its own, or convert them."
        )
    found: dict[str, Path] = {}
    for path in files:
        stem = path.name[: -len(ends[0])]
        name, _, channel = stem.rpartition("_")
        if (
            name
            and len(channel) == 4
            and channel.isdecimal()
            and channel != "0000"
            and f"{name}_0000" in {other.name[: -len(ends[0])] for other in files}
        ):
            raise InputError(
                f"{path}: is a second channel of {name}. From a bare folder only scans of one channel are taken. "
                "Make a data set with a dataset.json that names the channels; docs/data.md describes it."
            )
        case = name if channel == "0000" and name else stem
        if case in found:
            raise InputError(f"{path}: would be the same case as {found[case].name}. Rename one of them.")
        found[case] = path
    check_names(found)
    return found


def check_names(names: Iterable[str]) -> None:
    """Raises InputError for a case that the page cannot name: bytes of a file's name that are no text."""
    for name in names:
        if name.encode("utf-8", "replace").decode() != name:
            raise InputError(f"case {name!r}: the name of its files is not UTF-8. Rename them.")


def check_classes(names: Sequence[str]) -> None:
    """Raises InputError for no class, an empty name, two of one name, and names that have a meaning of their own."""
    if not names:
        raise InputError("no class is named; expected at least one structure to segment, such as liver.")
    for name in names:
        if not name.strip() or name != name.strip() or not name.isprintable():
            raise InputError(f"class {name!r}: expected a name of printable letters without spaces around it.")
        if name.lower() in RESERVED:
            raise InputError(f"class '{name}': every data set has '{name.lower()}' already. Name the structures only.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"class '{twice[0]}' is named twice. Name every class once.")


def make_dataset(folder: Path, place: Path, classes: Sequence[str]) -> None:
    """Make the data set `place` from the volumes of `folder`, complete or not at all. Nothing in `folder` changes.

    Raises InputError for what `volumes` and `check_classes` refuse, and if `place` holds anything.
    """
    check_classes(classes)
    found = volumes(folder)
    end = ending(next(iter(found.values())))
    with atomic_folder(place) as partial:
        (partial / "imagesTr").mkdir()
        for case, path in found.items():
            link_or_copy(path, partial / "imagesTr" / f"{case}_0000{end}")
        write_description(partial, folder.resolve().name, ("image",), classes, {}, end=end)


def add_new_volumes(folder: Path, place: Path) -> list[str]:
    """Link the volumes that came into `folder` since the data set was made; returns their cases."""
    dataset = read_dataset(place)
    found = volumes(folder)
    end = ending(next(iter(found.values())))
    new = {case: path for case, path in found.items() if case not in dataset.cases}
    if new and end != dataset.file_ending:
        raise InputError(
            f"{folder}: has {end} files, and its data set {place} has {dataset.file_ending}: "
            f"{first_names(list(new))}. Convert the new files."
        )
    for case, path in new.items():
        link_or_copy(path, place / "imagesTr" / f"{case}_0000{end}")
    return list(new)


def link_or_copy(source: Path, target: Path) -> None:
    """Link a file, or copy it where the file system has no links."""
    source = source.resolve()
    try:
        target.symlink_to(os.path.abspath(source))
    except OSError:
        shutil.copyfile(source, target)
