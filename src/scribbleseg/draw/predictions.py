"""The updates of a data set on disk, and what the latest of them predicts for a case."""

import functools
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.json_file import read_json
from ..data.dataset import Case
from ..data.volume import read_volume
from ..inference.guard import output_files
from ..inference.inputs import Job
from .images import Images, within

KEPT = 4  # masks and maps in memory
FAILED = "failed.json"  # what an update writes last of all: case → why it could not be predicted


class Predictions:
    """The folders 1, 2, … of `folder`, one per update. Several threads may use it.

    running: the number of the update that runs, if one does. Of the others only those that were finished count.
    """

    def __init__(self, folder: Path, images: Images, end: str, running: Callable[[], int | None]):
        self.folder, self.images, self.end, self.running = folder, images, end, running
        self.lock = threading.Lock()
        self.opened = functools.lru_cache(maxsize=KEPT)(_open)

    def updates(self) -> list[Path]:
        """The folders of the updates, the latest first."""
        found = [path for path in self.folder.glob("*") if path.name.isdecimal()]
        return sorted(found, key=lambda path: -int(path.name))

    def finished(self) -> list[Path]:
        """The folders of the updates that have trained and predicted to their end, the latest first."""
        return [path for path in self.updates() if (path / FAILED).is_file()]

    def number(self, case: Case) -> int | None:
        """The number of the latest update that has predicted the case: an older prediction stays until then."""
        running = self.running()
        counted = (path for path in self.updates() if (path / FAILED).is_file() or int(path.name) == running)
        found = (path for path in counted if (path / "uncertainty" / f"{case.id}.json").is_file())
        return next((int(path.name) for path in found), None)

    def uncertainty(self, case: Case) -> list[float] | None:
        """Mean entropy of each slice of the latest prediction, 0 to 1; None without a prediction."""
        number = self.number(case)
        place = self.folder / str(number) / "uncertainty" / f"{case.id}.json"
        return None if number is None else read_json(place, list[float])

    def label(self, case: Case) -> np.ndarray:
        """The latest predicted classes, uint8 [D, H, W]. Raises InputError where there are none."""
        return self._volume(case, uncertain=False)

    def shown(self, case: Case, axis: int, index: int, uncertain: bool = False) -> np.ndarray:
        """A plane of the predicted classes, or of the entropy times 255, uint8 [rows, columns]."""
        volume = self._volume(case, uncertain)
        plane = self.images.plane(case, axis)
        return np.ascontiguousarray(plane.take(volume, within("slice", index, volume.shape[axis])))

    def _volume(self, case: Case, uncertain: bool) -> np.ndarray:
        number = self.number(case)
        if number is None:
            raise InputError(f"{case.id}: is not predicted yet. Update the model first.")
        mask = self.folder / str(number) / "predictions" / f"{case.id}{self.end}"
        paths = output_files(Job(case.images, mask), (), probabilities=False, uncertainty=True)
        order = self.images.grid(case).order
        with self.lock:
            return self.opened(paths[uncertain], order)


def _open(path: Path, order: tuple[int, int, int]) -> np.ndarray:
    voxels, _ = read_volume(path, order)
    return np.rint(voxels * 255).astype(np.uint8) if voxels.dtype.kind == "f" else voxels.astype(np.uint8)
