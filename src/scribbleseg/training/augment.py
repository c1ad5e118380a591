"""Augmentation of whole batches, on their device."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.labels import UNLABELED


def random_affine(count: int, device: torch.device, max_degrees: float = 20.0) -> Tensor:
    """The comparison's augmentation as matrices [count, 2, 3]: with p = .5 a quarter turn and a flip, otherwise with p = .5 a rotation.

    Quarter turns k ∈ {0..3} and the flipped axis are uniform, the angle is uniform in ± max_degrees [WSL4MIS].
    """
    uniform = torch.rand(5, count, device=device)
    turned, rotated = uniform[0] < 0.5, uniform[1] < 0.5
    quarter = (uniform[2] * 4).floor() * (math.pi / 2)
    free = (uniform[3] * 2 - 1) * math.radians(max_degrees) * rotated
    angle = torch.where(turned, quarter, free)
    flip_x = torch.where(turned & (uniform[4] < 0.5), -1.0, 1.0)
    flip_y = torch.where(turned & (uniform[4] >= 0.5), -1.0, 1.0)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return torch.stack([cos * flip_x, -sin * flip_y, zero, sin * flip_x, cos * flip_y, zero], 1).view(count, 2, 3)


def warp(image: Tensor, labels: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Apply one affine matrix per sample: bilinear for image [N, C, H, W] (0 outside), nearest for labels [N, M, H, W] (UNLABELED outside)."""
    grid = F.affine_grid(matrix, list(image.shape), align_corners=False)
    image = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    shifted = F.grid_sample(
        (labels - UNLABELED).float(), grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    return image, shifted.long() + UNLABELED
