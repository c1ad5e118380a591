"""The slicing plane of a data set: where strokes are flat, else across the largest spacing."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from ..core.labels import UNLABELED
from .volume import PLANES, Grid

STROKES_AT_MOST = 0.2  # of the voxels: with more, the label is a mask, which says nothing about planes
ANISOTROPIC = 3.0  # largest over second largest spacing, from which slices are thick [nnU-Net]
FEWEST = 8  # slices: with fewer across one axis, nobody drew across another
CLEAR = 0.5  # the flat axis touches at most this share of what each other axis touches


def touching(label: np.ndarray) -> tuple[float, float, float] | None:
    """Share of the drawn voxels whose next voxel along each axis has the same class; label [x, y, z] with UNLABELED.

    A stroke that was drawn in slices touches little across them. None without strokes and for masks.
    """
    place = np.nonzero(label != UNLABELED)
    count = len(place[0])
    if not count or count > STROKES_AT_MOST * label.size:
        return None
    shares = []
    for axis, size in enumerate(label.shape):
        inside = place[axis] + 1 < size
        here = tuple(part[inside] for part in place)
        there = tuple(part + (number == axis) for number, part in enumerate(here))
        shares.append(float((label[here] == label[there]).sum()) / count)
    return shares[0], shares[1], shares[2]


def flat_axis(label: np.ndarray) -> int | None:
    """The file axis across which strokes are clearly flat; None if there is none, as in masks and single dots."""
    shares = touching(label)
    if shares is None:
        return None
    first, second, _ = np.argsort(shares)
    few = min(label.shape) < FEWEST and label.shape[first] > min(label.shape)
    return int(first) if shares[first] <= CLEAR * shares[second] and shares[second] > 0 and not few else None


def choose_plane(found: Iterable[tuple[Grid, int | None]]) -> str:
    """The first of PLANES that agrees with the flat axes of most cases; "spacing" unless that is more than half.

    found: grid and flat axis of each case. A case with thick slices (ANISOTROPIC) counts as drawn on them, because
    there its other planes show little.
    """
    cases = [(grid, grid.across("spacing") if _thick(grid) else axis) for grid, axis in found]
    votes = Counter({plane: sum(grid.across(plane) == axis for grid, axis in cases) for plane in PLANES})
    best = max(PLANES, key=lambda plane: votes[plane])
    return best if 2 * votes[best] > len(cases) else "spacing"


def _thick(grid: Grid) -> bool:
    _, medium, large = sorted(np.linalg.norm(grid.affine[:3, :3], axis=0))
    return bool(large >= ANISOTROPIC * medium)
