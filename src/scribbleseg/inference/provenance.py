"""made_by.json, the note beside predictions: what made them, and a checksum of every file that `predict` wrote."""

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from ..core.atomic import atomic_file
from ..core.errors import InputError
from ..core.json_file import read_json

MADE_BY = "made_by.json"


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def written(folder: Path) -> dict[str, str]:
    """File name → checksum of the files that `predict` wrote into a folder, now or earlier, and that still exist.

    Empty where there is no note. Raises InputError for a made_by.json that is not such a note.
    """
    note = folder / MADE_BY
    said = read_json(note) if note.is_file() else {}
    sums = said.get("sha256", {}) if isinstance(said, dict) else None
    if not isinstance(sums, dict):
        raise InputError(
            f'{note}: is not the note of `scribbleseg predict`: expected "sha256": {{file: checksum}}. '
            "Remove it; the files in the folder then count as yours."
        )
    return {name: value for name, value in sums.items() if (folder / name).is_file()}


def changed(folder: Path, among: Collection[str] | None = None) -> list[str]:
    """The files, of all or `among` these, that are no longer what `predict` wrote."""
    return [
        name
        for name, value in written(folder).items()
        if (among is None or name in among) and checksum(folder / name) != value
    ]


def write_note(folder: Path, said: dict, new: Sequence[Path] = (), began_ns: int | None = None) -> int:
    """Write the note with checksums of the `new` files and of earlier ones; returns its modification time in ns.

    `began_ns` sets that time, so that the note stays older than the predictions that it is about.
    """
    note = folder / MADE_BY
    sums = written(folder) | {path.name: checksum(path) for path in new}
    with atomic_file(note) as partial:
        partial.write_text(json.dumps({**said, "sha256": sums}, indent=1) + "\n", encoding="utf-8")
        if began_ns is not None:
            os.utime(partial, ns=(began_ns, began_ns))
    return note.stat().st_mtime_ns
