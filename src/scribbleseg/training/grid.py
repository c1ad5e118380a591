"""The grid on which a run sees a volume: there and, for probabilities, back."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import InputError
from ..data.depth import deepen_image, network_depth
from ..data.preparation import MOST_SCALE, network_shape, resample_image
from .dims import LARGEST
from .plan import Plan


def check_scale(what: object, plan: Plan, shape: tuple[int, ...], spacing: tuple[float, float, float]) -> None:
    """Raises InputError for a volume [D, H, W] whose voxels are far larger or smaller than those of the run.

    what: names the volume in the message. Its size, its unit of length or the run's config.json is wrong then, and the
    network would see nothing in it, or more than fits into memory.
    """
    found = grid_shape(plan, shape, spacing)
    if plan.preparation == "slices":
        if plan.size > 1024 and plan.size > MOST_SCALE * max(shape[1:]):
            raise InputError(
                f"{what}: has slices of {shape[1]} × {shape[2]} pixels, and the run makes {plan.size}² of them. Use "
                "another run."
            )
        return
    unit = " mm" if plan.fitted.unit == "mm" else " voxels"
    own = spacing if plan.fitted.unit == "mm" else (1.0, 1.0, 1.0)
    steps = (plan.between if plan.dims == 3 else own[0], plan.fitted.pixel, plan.fitted.pixel)
    if not all(1 / MOST_SCALE <= one / other <= MOST_SCALE for one, other in zip(own, steps)) or max(found) > LARGEST:
        shown = [" × ".join(f"{length:.4g}" for length in lengths) for lengths in (own, steps)]
        raise InputError(
            f"{what}: has voxels of {shown[0]}{unit}, and the run makes {' × '.join(map(str, found))} voxels of "
            f"{shown[1]}{unit} of it. Is its unit of length right? If it is, use a run on scans like this one."
        )


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
