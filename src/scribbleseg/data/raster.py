"""The grid on which a network sees a volume: there and, for probabilities, back."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import InputError
from .depth import deepen_image, deepen_label, network_depth
from .preparation import MOST_SCALE, network_shape, resample_image, resample_label

LARGEST = 16384  # pixels of a side

Spacing = tuple[float, float, float]  # of slices, rows and columns, mm


@dataclass(frozen=True)
class Raster:
    """Slices resized to squares of `side` pixels; or, where `side` is 0, pixels of one size, in 3-D voxels."""

    side: int = 0
    pixel: float = 0.0  # side of a pixel
    between: float = 0.0  # distance of slices in 3-D; 0: slices stay as they are
    unit: str = "mm"  # of both; or voxels, where files have no spacing

    def shape(self, shape: tuple[int, ...], spacing: Spacing) -> tuple[int, int, int]:
        """Slices, rows and columns as the network sees a volume of this shape [D, H, W]."""
        depth, rows, columns = shape
        if self.side:
            return depth, self.side, self.side
        between, *pixel = spacing if self.unit == "mm" else (1.0, 1.0, 1.0)
        if self.between:
            depth = network_depth(depth, between, self.between)
        return depth, *network_shape((rows, columns), (pixel[0], pixel[1]), self.pixel)

    def check(self, what: object, shape: tuple[int, ...], spacing: Spacing) -> None:
        """Raises InputError for a volume [D, H, W] whose voxels are far larger or smaller than those of the run.

        what: names the volume in the message. Its size, its unit of length or the run's config.json is wrong then, and
        the network would see nothing in it, or more than fits into memory.
        """
        if self.side:
            if self.side > 1024 and self.side > MOST_SCALE * max(shape[1:]):
                raise InputError(
                    f"{what}: has slices of {shape[1]} × {shape[2]} pixels, and the run makes {self.side}² of them. "
                    "Use another run."
                )
            return
        found = self.shape(shape, spacing)
        unit = " mm" if self.unit == "mm" else " voxels"
        own = spacing if self.unit == "mm" else (1.0, 1.0, 1.0)
        steps = (self.between or own[0], self.pixel, self.pixel)
        fits = all(1 / MOST_SCALE <= one / other <= MOST_SCALE for one, other in zip(own, steps))
        if not fits or max(found) > LARGEST:
            shown = [" × ".join(f"{length:.4g}" for length in lengths) for lengths in (own, steps)]
            raise InputError(
                f"{what}: has voxels of {shown[0]}{unit}, and the run makes {' × '.join(map(str, found))} voxels of "
                f"{shown[1]}{unit} of it. Is its unit of length right? If it is, use a run on scans like this one."
            )

    def image(self, image: np.ndarray, spacing: Spacing) -> Tensor:
        """[channels, D, H, W], normalised → what a network reads: [d, channels, h, w]; 3-D: [1, channels, d, h, w]."""
        depth, *size = self.shape(image.shape[1:], spacing)
        planes = resample_image(image, (size[0], size[1]))
        return deepen_image(planes, depth).movedim(0, 1)[None] if self.between else planes

    def label(self, label: np.ndarray, spacing: Spacing) -> Tensor:
        """Integer [D, H, W] → [d, h, w] of the same type, nearest neighbour."""
        depth, *size = self.shape(label.shape, spacing)
        return deepen_label(resample_label(label, (size[0], size[1])), depth)


def spread(parts: Iterator[Tensor], depth: int, shape: tuple[int, int, int], batch: int) -> Iterator[Tensor]:
    """Probabilities of a volume on its own grid, [K, ≤ batch, H, W], slice after slice.

    parts: scores as of `networks.windows.read`, [1, K, n, h, w], together `depth` slices. shape: slices, rows and
    columns of the volume. Linear along each axis; only the slices that are still needed are kept.
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
