"""The strokes of a data set: read with their version, changed slice by slice, on disk after every change."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..data.case import load_label
from ..data.dataset import Case, Dataset
from ..data.layout import Description, read_description
from ..data.volume import write_volume
from .images import Images, within
from .planes import Plane

NONE_YET = "none"  # version of the strokes of a case without a file
KEPT = 2  # cases in memory


class Conflict(Exception):
    """The strokes of a case are not those that the page has: another tab, person or program has written them."""


@dataclass
class Strokes:
    """The strokes of a case: uint8 [D, H, W] with UNLABELED, labelled voxels per slice and class, and their version."""

    label: np.ndarray
    counts: np.ndarray  # [D, classes]
    version: str


class StrokeFiles:
    """The labels of the cases in labelsTr. Several threads may use it; changes hold its lock."""

    def __init__(self, dataset: Dataset, images: Images):
        self.dataset, self.images = dataset, images
        self.description = dataset.folder / "dataset.json"
        self.described, self.content = version_of(self.description), self._content()
        self.lock = threading.RLock()
        self.known: dict[str, Strokes] = {}  # the cases that were drawn on last

    @property
    def current(self) -> bool:
        """Whether dataset.json still says what was read: another page may have added a class."""
        version = version_of(self.description)
        if version not in (NONE_YET, self.described) and self._content() == self.content:
            self.described = version
        return version == self.described

    def _content(self) -> Description:
        """What dataset.json says, without the number of cases, which changes when another page is closed."""
        return replace(read_description(self.description)[0], numTraining=None)

    def path(self, case: Case) -> Path:
        return self.dataset.folder / "labelsTr" / f"{case.id}{self.dataset.file_ending}"

    def read(self, case: Case) -> Strokes:
        """The strokes of a case as they are on disk now. Raises InputError for a label that does not fit its image."""
        with self.lock:
            version = version_of(self.path(case))
            known = self.known.pop(case.id, None)
            if known is None or known.version != version:
                voxels, _ = self.images.channel(case, 0)
                if version == NONE_YET:
                    label = np.full(voxels.shape, UNLABELED, np.uint8)
                else:
                    label = self.load(case, self.path(case))
                known = Strokes(label, counts(label, len(self.dataset.classes)), version)
            self.known[case.id] = known
            while len(self.known) > KEPT:
                self.known.pop(next(iter(self.known)))
            return known

    def load(self, case: Case, path: Path) -> np.ndarray:
        """A label file of the case, uint8 [D, H, W] with UNLABELED."""
        return load_label(path, self.images.grid(case), case.images[0], self.dataset.ignore, ignored=True)

    def store(self, case: Case, path: Path, label: np.ndarray) -> None:
        """Write a label [D, H, W] with UNLABELED that `load` reads."""
        stored = np.where(label == UNLABELED, np.uint8(self.dataset.ignore), label)
        write_volume(path, stored, self.images.grid(case))

    def shown(self, case: Case, axis: int, index: int) -> tuple[np.ndarray, str]:
        """A plane of the strokes, uint8 [rows, columns] with UNLABELED, and their version."""
        strokes = self.read(case)
        shown = self.images.plane(case, axis).take(strokes.label, within("slice", index, strokes.label.shape[axis]))
        return np.ascontiguousarray(shown), strokes.version

    def save_slice(self, case: Case, index: int, shown: bytes, version: str) -> Strokes:
        """Write one slice of strokes, uint8 bytes as they are shown. The file is replaced at once.

        Raises Conflict if the file is not `version`, InputError for another size and for values that are no class.
        """

        def change(label: np.ndarray, plane: Plane) -> slice:
            part = plane.turn(label[within("slice", index, len(label))])
            if len(shown) != part.size:
                raise InputError(f"{case.id}: got {len(shown)} pixels; a slice has {part.size}. Reload the page.")
            new = np.frombuffer(shown, np.uint8).reshape(part.shape)
            odd = new[(new >= len(self.dataset.classes)) & (new != UNLABELED)]
            if odd.size:
                raise InputError(f"{case.id}: got the value {odd[0]}, which is no class. Reload the page.")
            part[...] = new
            return slice(index, index + 1)

        return self.write(case, version, change)

    def write(self, case: Case, version: str, change: Callable[[np.ndarray, Plane], slice]) -> Strokes:
        """`change` changes the strokes in place and returns the slices that it has changed.

        Raises Conflict if the file is not `version`, InputError if dataset.json has changed or nothing can be written.
        """
        with self.lock:
            now = self.read(case)
            if version != now.version:
                raise Conflict(case.id)
            if not self.current:
                raise InputError("The classes of this data set were changed elsewhere. Reload the page.")
            path = self.path(case)
            self.known.pop(case.id)  # if anything below fails, the strokes are read again from disk
            changed = change(now.label, self.images.plane(case, 0))
            now.counts[changed] = counts(now.label[changed], len(self.dataset.classes))
            self.store(case, path, now.label)
            now.version = version_of(path)
            self.known[case.id] = now
            return now


def version_of(path: Path) -> str:
    """Changes whenever the file is replaced or written, by whomever."""
    try:
        seen = os.stat(path)
    except FileNotFoundError:
        return NONE_YET
    return f"{seen.st_mtime_ns:x}-{seen.st_ino:x}-{seen.st_size:x}"


def counts(label: np.ndarray, classes: int) -> np.ndarray:
    """Labelled voxels per slice and class, int64 [D, classes]."""
    return np.stack([np.bincount(part.ravel(), minlength=classes)[:classes] for part in label])
