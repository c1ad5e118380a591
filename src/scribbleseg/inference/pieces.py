"""The largest connected piece of each class of a mask."""

import numpy as np
from scipy.ndimage import find_objects, label


def keep_largest(mask: np.ndarray) -> None:
    """Turn all but the largest connected piece of each foreground class into background, in place.

    mask: integers of any shape, 0 is background. Pieces that touch at a corner are one. Of pieces of equal size the
    first in memory order stays.
    """
    touching = np.ones([3] * mask.ndim)
    for value, box in enumerate(find_objects(mask), 1):
        if box is None:
            continue
        part = mask[box]
        pieces, many = label(part == value, touching)
        if many > 1:
            sizes = np.bincount(pieces.ravel())
            sizes[0] = 0
            part[(pieces > 0) & (pieces != sizes.argmax())] = 0
