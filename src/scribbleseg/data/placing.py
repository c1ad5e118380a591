"""Put a label on the grid of its image by the geometry of both, without interpolation."""

import numpy as np

from .volume import APART, Grid


def place(label: np.ndarray, own: Grid, image: Grid, fill: int) -> tuple[np.ndarray, int] | None:
    """The label [x, y, z] on the image's voxels, `fill` where it does not reach, and how many voxels fell outside.

    The label's grid may be smaller than the image's, turned or mirrored, but its voxels must lie on the image's. None
    if they lie between. Voxels outside count only if they have another value than `fill`.
    """
    to_image = np.linalg.solve(image.affine, own.affine)
    turn = np.rint(to_image[:3, :3])
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(own.sizes) - 1)
    start = np.rint(to_image[:3, 3])
    exact = corners @ to_image[:3, :3].T + to_image[:3, 3]
    whole = corners @ turn.T + start
    is_turn = (np.abs(turn).sum(0) == 1).all() and (np.abs(turn).sum(1) == 1).all()
    if not is_turn or np.abs(exact - whole).max() > APART:
        return None
    axes = np.abs(turn).argmax(1)
    turned = label.transpose(axes)
    turned = turned[tuple(slice(None, None, int(turn[row, axis])) for row, axis in enumerate(axes))]
    first = whole.min(0).astype(int)
    placed = np.full(image.sizes, fill, label.dtype)
    here, there = [], []
    for low, length, size in zip(first, turned.shape, image.sizes):
        begin, end = max(0, low), max(0, low, min(size, low + length))
        here.append(slice(begin, end))
        there.append(slice(min(begin - low, length), min(end - low, length)))
    inside = turned[tuple(there)]
    placed[tuple(here)] = inside
    return placed, int((label != fill).sum() - (inside != fill).sum())
