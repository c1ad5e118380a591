"""The grid on which a run sees a volume: there and, for probabilities, back."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.depth import deepen_image, network_depth
from ..data.preparation import network_shape, resample_image
from .plan import Plan


def grid_shape(plan: Plan, shape: tuple[int, ...], spacing: tuple[float, float, float]) -> tuple[int, int, int]:
    """Slices, rows and columns as a run sees a volume of this shape [D, H, W] and spacing in the same order."""
    depth, rows, columns = shape
    if plan.preparation == "slices":
        return depth, plan.size, plan.size
    between, *pixel = spacing if plan.fitted.unit == "mm" else (1.0, 1.0, 1.0)
    if plan.dims == 3:
        depth = network_depth(depth, between, plan.between)
    return depth, *network_shape((rows, columns), (pixel[0], pixel[1]), plan.fitted.pixel)


def on_grid(plan: Plan, image: np.ndarray, spacing: tuple[float, float, float]) -> Tensor:
    """[channels, D, H, W] normalised → what the network reads: [d, channels, h, w], in 3-D [1, channels, d, h, w]."""
    depth, *size = grid_shape(plan, image.shape[1:], spacing)
    planes = resample_image(image, (size[0], size[1]))
    return planes if plan.dims == 2 else deepen_image(planes, depth).movedim(0, 1)[None]


def spread(parts: Iterator[Tensor], depth: int, shape: tuple[int, int, int], batch: int) -> Iterator[Tensor]:
    """Probabilities of a volume on its own grid, [K, ≤ batch, H, W], slice after slice.

    parts: scores as of `read`, [1, K, n, h, w], together `depth` slices. shape: slices, rows and columns of the volume.
    Linear along each axis; only the slices that are still needed are kept.
    """
    place = (((torch.arange(shape[0]) + 0.5) * depth / shape[0]) - 0.5).clamp(0, depth - 1)
    lower = place.floor().long()
    upper, share = (lower + 1).clamp(max=depth - 1), (place - lower).view(-1, 1, 1)
    held, begun = next(parts)[0], 0
    for start in range(0, shape[0], batch):
        some = slice(start, start + batch)
        while begun + held.shape[1] <= upper[some][-1]:
            held = torch.cat([held, next(parts)[0]], 1)
        passed = int(lower[start]) - begun
        held, begun = held[:, passed:], begun + passed
        one, other, weight = lower[some] - begun, upper[some] - begun, share[some].to(held.device)
        mixed = held[:, one] * (1 - weight) + held[:, other] * weight
        if mixed.shape[2:] != shape[1:]:
            mixed = F.interpolate(mixed, shape[1:], mode="bilinear", align_corners=False)
        yield mixed
