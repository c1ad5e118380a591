"""Resample volumes along the axis of their slices, for networks that see all three axes."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.labels import UNLABELED


def network_depth(slices: int, distance: float, between: float) -> int:
    """How many slices a volume has when they are `between` apart. distance: of its own slices."""
    return max(1, round(slices * distance / between))


def deepen_image(image: Tensor, depth: int) -> Tensor:
    """float [D, channels, h, w] → [depth, channels, h, w], linear with antialiasing."""
    if len(image) == depth:
        return image
    flat = image.flatten(1)[None, None]
    return F.interpolate(flat, (depth, flat.shape[3]), mode="bilinear", antialias=True)[0, 0].view(
        depth, *image.shape[1:]
    )


def deepen_label(label: Tensor, depth: int) -> Tensor:
    """Integer [D, h, w] → [depth, h, w], nearest neighbour."""
    return label[((torch.arange(depth) + 0.5) * len(label) / depth).long()]


def deepen_strokes(label: Tensor, depth: int) -> Tensor:
    """uint8 [D, h, w] with UNLABELED → [depth, h, w]: every drawn voxel marks the voxel that holds it.

    Where classes meet in one voxel, the class with fewer voxels wins. With more slices than before, each slice of
    strokes goes to the nearest new one alone: the others between have no strokes.
    """
    found = torch.full((depth, *label.shape[1:]), UNLABELED, dtype=torch.uint8)
    drawn, places = label.numpy(), found.numpy()
    values, counts = np.unique(drawn[drawn != UNLABELED], return_counts=True)
    for value in values[np.argsort(-counts)]:
        old, row, column = np.nonzero(drawn == value)
        places[((2 * old + 1) * depth) // (2 * len(drawn)), row, column] = value
    return found
