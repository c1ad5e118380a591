"""made_by.json, the note beside predictions: what made them, and a checksum of every file that `predict` wrote.

A file is noted before it gets its name, so that a `predict` that was killed in between knows its own files. Until then
an earlier file may have the name: `replaced` in the note holds the earlier checksums.
"""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from msgspec import Struct

from ..core.atomic import atomic_file
from ..core.errors import InputError
from ..core.json_file import read_json

MADE_BY = "made_by.json"


class Note(Struct):
    """made_by.json."""

    runs: list[str] = []
    weights: str = ""
    iterations: list[int] = []
    tta: bool = False
    averaged: str = ""  # with tta: flips, shifts, or both; a note of before 0.2.0 has flips alone
    largest: bool = False
    weights_sha256: list[str] = []
    maker: str = ""  # stands for all of the above
    made: dict[str, str] = {}  # file → its maker, which may be an earlier one
    sha256: dict[str, str] = {}
    replaced: dict[str, str] = {}


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def written(folder: Path) -> dict[str, str]:
    """File name → checksum of the files that `predict` wrote into a folder, now or earlier, and that still exist.

    Empty where there is no note. Raises InputError for a made_by.json that is not such a note.
    """
    there = {path.name for path in folder.glob("*") if path.is_file()}
    return {name: value for name, value in read_note(folder).sha256.items() if name in there}


def read_note(folder: Path) -> Note:
    """The note in a folder, an empty one where there is none. Raises InputError for what is no such note."""
    note = folder / MADE_BY
    try:
        said = read_json(note, Note) if note.is_file() else Note()
    except InputError as error:
        raise InputError(
            f"{note}: is not the note of `scribbleseg predict`. Remove it; the files in the folder then count as yours "
            f"({error})."
        ) from error
    names = [name for name in said.sha256.keys() | said.replaced.keys() if "/" in name or "\0" in name]
    if names:
        raise InputError(f"{note}: names {names[0]!r}; expected files beside it. Remove it.")
    return said


def is_folder(name: str, folder: Path) -> bool:
    """Whether a name in a note means this folder."""
    try:
        return Path(name).resolve() == folder.resolve()
    except (OSError, ValueError):  # what is no name of a folder
        return False


def is_own(path: Path) -> bool:
    """Whether `predict` wrote this file as it is."""
    note = read_note(path.parent)
    known = [sums.get(path.name) for sums in (note.sha256, note.replaced)]
    return path.is_file() and any(known) and checksum(path) in known


def never_written(path: Path) -> bool:
    """Whether the note beside a file does not name it."""
    note = read_note(path.parent)
    return path.name not in note.sha256 and path.name not in note.replaced


def changed(folder: Path, among: Collection[str] | None = None) -> list[str]:
    """The files, of all or `among` these, that are no longer what `predict` wrote."""
    return [name for name in written(folder) if (among is None or name in among) and not is_own(folder / name)]


def write_note(folder: Path, said: dict, new: Mapping[str, str] | None = None, began_ns: int | None = None) -> int:
    """Write the note with the checksums of `new` files (name → checksum) and earlier ones.

    Returns its modification time in ns. `began_ns` sets that time, so that the note stays older than the predictions
    that it is about.
    """
    note = folder / MADE_BY
    sums, new = written(folder), dict(new or {})
    before = {
        name: value
        for name, value in read_note(folder).replaced.items()
        if name in sums and checksum(folder / name) != sums[name]
    }
    before |= {name: checksum(folder / name) for name in new if name in sums and is_own(folder / name)}
    maker = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]
    made = {name: value for name, value in read_note(folder).made.items() if name in sums} | dict.fromkeys(new, maker)
    stored = {**said, "maker": maker, "made": made, "sha256": sums | new} | ({"replaced": before} if before else {})
    with atomic_file(note) as partial:
        partial.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
        if began_ns is not None:
            os.utime(partial, ns=(began_ns, began_ns))
    return note.stat().st_mtime_ns
