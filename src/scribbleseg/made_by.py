"""made_by.json, the note beside predictions: what made them, and a checksum of every file that `scribbleseg predict` wrote there."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from .atomic import atomic_file
from .data.dataset import read_json
from .errors import InputError

MADE_BY = "made_by.json"


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def written(folder: Path) -> dict[str, str]:
    """File name → checksum, of what `predict` wrote into a folder, earlier predictions too, and is still there; empty where no note says so."""
    note = folder / MADE_BY
    sums = read_json(note).get("sha256", {}) if note.is_file() else {}
    return {name: value for name, value in sums.items() if (folder / name).is_file()}


def changed(folder: Path) -> list[str]:
    """The files that are no longer what `predict` wrote."""
    return [name for name, value in written(folder).items() if checksum(folder / name) != value]


def check_replaceable(files: Sequence[Path]) -> None:
    """Raises InputError for a file that is there and is not what `predict` wrote: a scan, a mask drawn by hand, a prediction corrected since."""
    known = {folder: written(folder) for folder in {path.parent for path in files}}
    for path in files:
        if path.is_file() and known[path.parent].get(path.name) != checksum(path):
            raise InputError(f"{path}: is there already, and is not what predict wrote. Move it elsewhere, choose another OUTPUT, or replace it with --overwrite of predict.")


def write_note(folder: Path, said: dict, sums: dict[str, str], began_ns: int | None = None) -> int:
    """Write the note; returns its time of modification in nanoseconds, which `began_ns` sets: it stays older than its predictions."""
    note = folder / MADE_BY
    with atomic_file(note) as partial:
        partial.write_text(json.dumps({**said, "sha256": sums}, indent=1) + "\n", encoding="utf-8")
        if began_ns is not None:
            os.utime(partial, ns=(began_ns, began_ns))
    return note.stat().st_mtime_ns
