"""The classes of a data set that is drawn on: which names they may have, and how one is added later."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..core.atomic import atomic_folder
from ..core.errors import InputError
from ..core.json_file import read_json
from ..core.labels import UNLABELED
from ..core.lock import NO_LOCKS, lock
from ..data.layout import alike, read_dataset
from ..data.volume import read_label, write_volume

RESERVED = ("background", "ignore")
LABELS = ("labelsTr", ".scribbleseg/draw/accepted")  # folders of labels in which "not drawn" has a value
CHANGE = Path(".scribbleseg/draw/new_classes")  # the files of a change that is not yet in place throughout
LOCK = Path(".scribbleseg/draw/labels.lock")
DESCRIPTION = "dataset.json"


def check_classes(names: Sequence[str], known: Sequence[str] = ()) -> None:
    """Raises InputError for no class, an empty name, two of one name, and names that have a meaning of their own.

    `known`: the classes that the data set has already. A new one may not be named like them; how they are named is not
    looked at, since their strokes are told apart by their values.
    """
    if not names:
        raise InputError("no class is named; expected at least one structure to segment, such as liver.")
    for index, name in enumerate(names):
        if not name.strip() or name != name.strip() or not name.isprintable():
            raise InputError(f"class {name!r}: expected a name of printable letters without spaces around it.")
        if name.lower() in RESERVED:
            raise InputError(f"class '{name}': every data set has '{name.lower()}' already. Name the structures only.")
        if twins := [other for other in (*known, *names[:index]) if alike((other, name))]:
            also = "" if name in twins else f", as '{twins[0]}' too"
            raise InputError(f"class '{name}' is named twice{also}. Name every class once.")
    if len(known) + len(names) + 2 > UNLABELED:
        raise InputError(f"{len(known) + len(names)} classes; at most {UNLABELED - 2} are supported.")


def add_classes(place: Path, new: Sequence[str]) -> None:
    """Add classes after those of the data set `place`. No stroke changes; the value of "not drawn" moves up.

    All files that change are written beside the old ones before the first takes its place, dataset.json last. Raises
    InputError for what `check_classes` refuses, and for a label that cannot be read.
    """
    with alone(place):
        _add_classes(place, new)


def _add_classes(place: Path, new: Sequence[str]) -> None:
    finish(place)
    dataset = read_dataset(place)
    check_classes(new, dataset.classes[1:])
    before, after = dataset.ignore, dataset.ignore + len(new)
    labels = [path for folder in LABELS for path in sorted((place / folder).glob(f"[!.]*{dataset.file_ending}"))]
    with atomic_folder(place / CHANGE) as partial:
        for path in labels:
            label, grid = read_label(path)
            moved = np.where(label == before, after, label).astype(np.uint8)
            write_volume(partial / path.relative_to(place), moved, grid)
        description = read_json(place / DESCRIPTION)
        values = {name: value for name, value in description["labels"].items() if name != "ignore"}
        values |= {name: before + index for index, name in enumerate(new)}
        description["labels"] = values | {"ignore": after}
        (partial / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    finish(place)


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """One program at a time adds classes to the data set `place`, or labels that say "not drawn" throughout.

    Where the file system has no locks, nobody waits.
    """
    path = place / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = lock(path, wait=True)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise InputError(f"{path}: cannot be written ({error.strerror}). Change its permissions.") from error
        held = None
    try:
        yield
    finally:
        if held is not None:
            path.unlink(missing_ok=True)
            held.close()


def finish(place: Path) -> None:
    """Put the rest of a change in place, if one was cut off."""
    change = place / CHANGE
    if not (change / DESCRIPTION).is_file():
        shutil.rmtree(change, ignore_errors=True)
        return
    for path in sorted(path for folder in LABELS for path in (change / folder).glob("*")):
        os.replace(path, place / path.relative_to(change))
    os.replace(change / DESCRIPTION, place / DESCRIPTION)
    shutil.rmtree(change)
