"""Prepare a scan for the network: intensity, pixel size and image size."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.labels import UNLABELED


@dataclass(frozen=True)
class Fitted:
    """What the training cases of a run decided. It is kept in config.json, and prediction reads it there."""

    pixel: float = 0.0  # side of a pixel that the network sees
    unit: str = "mm"  # of the side: mm, or voxels where the files have no spacing
    enclosure: str = "off"  # hull | ring | off: what counts as enclosed (data/enclosure.py)
    closed: float = 0.0  # share of the slices with foreground strokes whose background strokes form a closed ring


def network_shape(shape: tuple[int, int], spacing: tuple[float, float], pixel: float) -> tuple[int, int]:
    """Rows and columns of a slice whose pixels have the side `pixel`; shape and spacing are (rows, columns)."""
    rows, columns = (max(1, round(length * side / pixel)) for length, side in zip(shape, spacing))
    return rows, columns


def resample_image(image: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """[channels, D, H, W] → float32 [D, channels, *shape], bilinear with antialiasing."""
    stack = torch.from_numpy(np.ascontiguousarray(image.swapaxes(0, 1)))
    if tuple(stack.shape[2:]) == shape:
        return stack
    return F.interpolate(stack, shape, mode="bilinear", antialias=True, align_corners=False)


def resample_label(label: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """[D, H, W] integer → [D, *shape] of the same type, nearest neighbour."""
    stack = torch.from_numpy(np.ascontiguousarray(label))
    if tuple(stack.shape[1:]) == shape:
        return stack
    rows, columns = (((torch.arange(n) + 0.5) * length / n).long() for n, length in zip(shape, stack.shape[1:]))
    return stack[:, rows][:, :, columns]


def resample_strokes(label: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """[D, H, W] uint8 with UNLABELED → [D, *shape]: every drawn pixel marks the pixel that holds it.

    A stroke is a set of points and loses none. Where classes meet in one pixel, the class with fewer pixels wins.
    A label that is enlarged takes the nearest value instead.
    """
    if shape[0] >= label.shape[1] and shape[1] >= label.shape[2]:
        return resample_label(label, shape)
    found = np.full((len(label), *shape), UNLABELED, np.uint8)
    values, counts = np.unique(label[label != UNLABELED], return_counts=True)
    for value in values[np.argsort(-counts)]:
        depth, row, column = np.nonzero(label == value)
        found[depth, row * shape[0] // label.shape[1], column * shape[1] // label.shape[2]] = value
    return torch.from_numpy(found)


def resize_image(image: np.ndarray, size: int) -> Tensor:
    """[channels, D, H, W] → float32 [D, channels, size, size], as `resample_image`."""
    return resample_image(image, (size, size))


def resize_label(label: np.ndarray, size: int) -> Tensor:
    """[D, H, W], uint8 or int32 → [D, size, size] of the same type, nearest neighbour."""
    return resample_label(label, (size, size))


def grey_range(image: np.ndarray) -> tuple[float, float]:
    """The volume's minimum and 99th percentile. If both are equal (an almost empty volume): minimum and maximum."""
    low, high = float(image.min()), float(np.percentile(image, 99))
    return low, high if high > low else float(image.max())


def normalise(image: np.ndarray) -> np.ndarray:
    """Clip at the volume's 99th percentile, then min-max to [0, 1]: the preparation of the WSL4MIS ACDC files."""
    low, high = grey_range(image)
    return (np.minimum(image, high) - low) / (high - low)
