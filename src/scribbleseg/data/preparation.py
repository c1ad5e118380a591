"""Prepare a scan for the network: intensity, pixel size and image size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.labels import UNLABELED
from .intensity import Intensity, robust_range

EMPTY = 0.05  # of a channel's range above its lowest value: what is no brighter is air
BUSY = 0.005  # share of a row that has to be brighter, so that the row is not empty
MOST_SCALE = 16  # by how much a volume may be enlarged or made smaller along an axis; beyond, a unit of length is wrong
MARGIN = 4  # pixels that are kept around what is not empty


@dataclass(frozen=True)
class Fitted:
    """What the training cases of a run decided. It is kept in config.json, and prediction reads it there."""

    pixel: float = 0.0  # side of a pixel that the network sees
    unit: str = "mm"  # of the side: mm, or voxels where the files have no spacing
    enclosure: str = "off"  # hull | off, and ring in older runs: what counts as enclosed (data/enclosure.py)
    closed: float = 0.0  # share of the slices with foreground strokes whose background strokes enclose them
    plane: str = "spacing"  # one of volume.PLANES: the plane that slices are cut in
    intensity: tuple[Intensity, ...] = ()  # of each channel; none: as the papers
    crop: bool = False  # whether empty rows and columns around the body are cut off
    locate: bool = False  # whether slices are cut to where rings lie, which a small network finds
    keep_strokes: bool = False  # whether every drawn pixel survives where slices are made smaller
    bare: float | None = None  # share of a batch's slices that have no stroke; None: drawn like all others


PAPERS = Fitted()  # what the papers do with a scan


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
    """[D, H, W] uint8 with UNLABELED → [D, *shape]: a pixel takes the class that most of its drawn pixels have.

    A stroke is a set of points, so one drawn pixel is enough. If classes are level, the rarer one wins; a class that a
    slice would lose keeps its pixels. A label that is enlarged takes the nearest value instead.
    """
    if shape[0] >= label.shape[1] and shape[1] >= label.shape[2]:
        return resample_label(label, shape)
    depth, row, column = np.nonzero(label != UNLABELED)
    drawn = label[depth, row, column].astype(np.int64)
    place = (depth * shape[0] + row * shape[0] // label.shape[1]) * shape[1] + column * shape[1] // label.shape[2]
    often = np.bincount(drawn, minlength=UNLABELED)
    keys, counts = np.unique(place * UNLABELED + drawn, return_counts=True)
    order = np.lexsort((-often[keys % UNLABELED], counts))  # the winner comes last
    keys = keys[order]
    found = np.full(len(label) * shape[0] * shape[1], UNLABELED, np.uint8)
    found[keys // UNLABELED] = keys % UNLABELED
    lost = _classes_of(label) & ~_classes_of(found.reshape(len(label), *shape))
    if lost.any():
        rescued = keys[lost[keys // UNLABELED // (shape[0] * shape[1]), keys % UNLABELED]]
        found[rescued // UNLABELED] = rescued % UNLABELED
    return torch.from_numpy(found.reshape(len(label), *shape))


def _classes_of(label: np.ndarray) -> np.ndarray:
    """Which classes each slice of [D, H, W] holds, bool [D, UNLABELED + 1]."""
    return np.stack([np.bincount(part.ravel(), minlength=UNLABELED + 1) > 0 for part in label])


def lost_strokes(label: np.ndarray, shrunk: np.ndarray) -> tuple[int, int]:
    """How many (slice, class) pairs that were drawn in `label` are missing in `shrunk`, and how many were drawn.

    Both [D, ·, ·], uint8 with UNLABELED.
    """
    drawn = _classes_of(label)[:, :UNLABELED]
    return int((drawn & ~_classes_of(shrunk)[:, :UNLABELED]).sum()), int(drawn.sum())


def resize_image(image: np.ndarray, size: int) -> Tensor:
    """[channels, D, H, W] → float32 [D, channels, size, size], as `resample_image`."""
    return resample_image(image, (size, size))


def resize_label(label: np.ndarray, size: int) -> Tensor:
    """[D, H, W], uint8 or int32 → [D, size, size] of the same type, nearest neighbour."""
    return resample_label(label, (size, size))


def content_box(channels: Sequence[np.ndarray]) -> tuple[slice, slice]:
    """Rows and columns of the channels [D, H, W], as they are in the file, that hold more than air, with a MARGIN.

    A voxel is empty if no channel is brighter there than a twentieth of its range (`robust_range`). A row or column is
    empty if .5 % of its voxels at most are not. If all are empty, nothing is cut off.
    """
    full: np.ndarray = np.zeros(channels[0].shape, bool)
    for channel in channels:
        low, high = robust_range(channel)
        full |= channel > low + EMPTY * (high - low)
    sides = []
    for side, axes in ((1, (0, 2)), (2, (0, 1))):
        size, busy = full.shape[side], np.nonzero(full.mean(axes) > BUSY)[0]
        ends = (0, size) if not len(busy) else (busy[0] - MARGIN, busy[-1] + 1 + MARGIN)
        sides.append(slice(int(max(0, ends[0])), int(min(size, ends[1]))))
    return sides[0], sides[1]


def enclosing_box(box: tuple[slice, slice], drawn: np.ndarray) -> tuple[slice, slice]:
    """The box, made larger so that it holds every voxel of `drawn`, bool [D, H, W]."""
    sides = []
    for side, axes in zip(box, ((0, 2), (0, 1))):
        places = np.nonzero(drawn.any(axes))[0]
        ends = (side.start, side.stop) if not len(places) else (places[0], places[-1] + 1)
        sides.append(slice(int(min(side.start, ends[0])), int(max(side.stop, ends[1]))))
    return sides[0], sides[1]
