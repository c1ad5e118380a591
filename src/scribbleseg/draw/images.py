"""The images of a data set, read when they are asked for, and their planes as the page shows them."""

import functools
import threading
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError, counted
from ..data.case import difference
from ..data.dataset import Case, Dataset
from ..data.volume import PICTURES, Grid, check_unit, ending, read_components, read_volume
from .planes import Plane, planes

SAMPLE = 200_000  # voxels from which the first grey window is chosen
CT_BELOW = -500  # a scan with values below this is in Hounsfield units
CT_WINDOW = (-160.0, 240.0)  # soft tissue
COLOUR_WINDOW = {"low": 0.0, "high": 255.0, "least": 0.0, "most": 255.0, "ct": False}
KEPT = 2  # volumes in memory, beside those of one case


class Images:
    """The images of the cases. An uncompressed NIfTI file is mapped, not read. Several threads may use it."""

    def __init__(self, dataset: Dataset):
        self.channels, self.cut = len(dataset.channels), dataset.plane or "spacing"
        self.unit = dataset.spacing_unit
        self.lock = threading.Lock()  # a volume is read once, also if six slices of it are asked for at once
        self.opened = functools.lru_cache(maxsize=KEPT + self.channels)(_open)

    def channel(self, case: Case, number: int) -> tuple[np.ndarray, Grid]:
        """The voxels [D, H, W] of one channel, in the file's type or float32, and the grid of the first channel.

        Raises InputError for what training would refuse too.
        """
        number = within("channel", number, self.channels)
        single = len(case.images) == 1  # also a coloured picture, whose colours are its channels
        with self.lock:
            parts, grid = self.opened(case.images[0], None, self.cut, self.channels if single else 1)
            check_unit(case.images[0], grid, self.unit)
            if single or not number:
                return parts[number], grid
            path = case.images[number]
            parts, other = self.opened(path, grid.order, grid.plane, 1)
            if not other.same_place(grid):
                raise InputError(
                    f"{path}: {difference(other, grid)} than {case.images[0]}. "
                    "All channels of a case need the same grid; resample one."
                )
        return parts[0], grid

    def grid(self, case: Case) -> Grid:
        return self.channel(case, 0)[1]

    def coloured(self, case: Case) -> bool:
        """Whether the case is a picture with red, green and blue."""
        return len(case.images) == 1 and self.channels == 3 and self.channel(case, 0)[0].dtype == np.uint8

    def windows(self, case: Case) -> list[dict[str, Any]]:
        """The first grey window of each channel; of a coloured picture also that of its colours."""
        found = [grey_window(self.channel(case, number)[0]) for number in range(self.channels)]
        return found + [COLOUR_WINDOW] * self.coloured(case)

    def planes(self, case: Case) -> tuple[Plane, Plane, Plane]:
        return planes(self.grid(case), upright=ending(case.images[0]) not in PICTURES)

    def plane(self, case: Case, axis: int) -> Plane:
        return self.planes(case)[within("axis", axis, 3)]

    def shown(self, case: Case, channel: int, axis: int, index: int) -> np.ndarray:
        """A plane of one channel: uint8, int16 or float32 [rows, columns].

        One channel further are the colours of a picture, uint8 [rows, columns, 3].
        """
        if channel == self.channels and self.coloured(case):
            return np.stack([self.shown(case, number, axis, index) for number in range(self.channels)], -1)
        voxels, _ = self.channel(case, channel)
        shown = self.plane(case, axis).take(voxels, within("slice", index, voxels.shape[axis]))
        kept = {"b1": np.uint8, "u1": np.uint8, "i1": np.int16, "i2": np.int16}
        return np.ascontiguousarray(shown, kept.get(shown.dtype.str[1:], np.float32))


def grey_window(voxels: np.ndarray) -> dict[str, Any]:
    """Where black and white lie at first, the range of the scan, and whether it is in Hounsfield units."""
    sample = voxels[tuple(slice(None, None, max(1, round((voxels.size / SAMPLE) ** (1 / 3)))) for _ in range(3))]
    low, high = (float(value) for value in np.percentile(sample, (0.5, 99.5)))
    least, most = float(sample.min()), float(sample.max())
    ct = least < CT_BELOW and bool(voxels.dtype.kind in "if")
    if ct:
        low, high = CT_WINDOW
    return {"low": low, "high": max(high, low + 1e-6), "least": least, "most": most, "ct": ct}


def within(what: str, value: int, size: int) -> int:
    """The value. Raises InputError if it is not from 0 to below `size`."""
    if not 0 <= value < size:
        raise InputError(f"{what} {value}: expected 0 to {size - 1}.")
    return value


def _open(path: Path, order: tuple[int, int, int] | None, plane: str, count: int) -> tuple[list[np.ndarray], Grid]:
    """The components [D, H, W] of a file, as many as `count`."""
    if count == 1:
        voxels, grid = read_volume(path, order, plane)
        parts = [voxels]
    else:
        parts, grid = read_components(path, order, plane)
    if len(parts) != count:
        raise InputError(f"{path}: has {counted(len(parts), 'channel')}; expected {count}, as dataset.json says.")
    return [_readable(path, part) for part in parts], grid


def _readable(path: Path, voxels: np.ndarray) -> np.ndarray:
    if voxels.dtype.itemsize == 8 or voxels.dtype.kind == "f":
        voxels = voxels if voxels.dtype == np.float32 else voxels.astype(np.float32)
        bad = sum(plane.size - int(np.isfinite(plane).sum()) for plane in voxels)
        if bad:
            raise InputError(f"{path}: {bad} voxels are NaN or infinite. Replace them in the file, then try again.")
    return voxels
