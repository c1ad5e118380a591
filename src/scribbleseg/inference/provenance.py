"""made_by.json, the note beside predictions: what made them, and a checksum of every file that `scribbleseg predict` wrote there."""

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from ..core.atomic import atomic_file
from ..core.errors import InputError
from ..data.dataset import read_json

MADE_BY = "made_by.json"


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def written(folder: Path) -> dict[str, str]:
    """File name → checksum, of what `predict` wrote into a folder, earlier predictions too, and is still there; empty where no note says so.

    Raises InputError for a note that is none.
    """
    note = folder / MADE_BY
    said = read_json(note) if note.is_file() else {}
    sums = said.get("sha256", {}) if isinstance(said, dict) else None
    if not isinstance(sums, dict):
        raise InputError(
            f'{note}: is not the note of `scribbleseg predict`: expected "sha256": {{file: checksum}}. Remove it, and what is in the folder counts as yours.'
        )
    return {name: value for name, value in sums.items() if (folder / name).is_file()}


def changed(folder: Path, among: Collection[str] | None = None) -> list[str]:
    """The files, of all or `among` these, that are no longer what `predict` wrote."""
    return [
        name
        for name, value in written(folder).items()
        if (among is None or name in among) and checksum(folder / name) != value
    ]


def check_replaceable(files: Sequence[Path]) -> None:
    """Raises InputError for a file that is there and is not what `predict` wrote: a scan, a mask drawn by hand, a prediction corrected since."""
    known = {folder: written(folder) for folder in {path.parent for path in files}}
    for path in files:
        if path.is_file() and known[path.parent].get(path.name) != checksum(path):
            raise InputError(
                f"{path}: is there already, and no {MADE_BY} says that predict wrote it as it is. Move it elsewhere, choose another OUTPUT, or give predict --overwrite."
            )


def write_note(folder: Path, said: dict, new: Sequence[Path] = (), began_ns: int | None = None) -> int:
    """Write the note, with checksums of the `new` files and those of before; returns its time of modification in nanoseconds.

    `began_ns` sets that time: the note stays older than the predictions that it is of.
    """
    note = folder / MADE_BY
    sums = written(folder) | {path.name: checksum(path) for path in new}
    with atomic_file(note) as partial:
        partial.write_text(json.dumps({**said, "sha256": sums}, indent=1) + "\n", encoding="utf-8")
        if began_ns is not None:
            os.utime(partial, ns=(began_ns, began_ns))
    return note.stat().st_mtime_ns
