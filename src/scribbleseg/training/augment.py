"""Augmentation of whole batches, on their device."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..core.own_code import NAME, find

AUGMENTATIONS = ("papers", "upright")
Augmentation = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # image, labels → image, labels, as `warp` has them


def is_name(name: str) -> bool:
    """Whether a text can be the name of an augmentation: one of ours, or package.module:function. Imports nothing."""
    return name in AUGMENTATIONS or NAME.fullmatch(name) is not None


def own_function(name: str) -> Any:
    """The function of a user's own augmentation, imported. Raises InputError for what is no function."""
    function = find("augmentation", name)
    if not inspect.isfunction(function):
        raise InputError(f"augmentation '{name}': {name.rpartition(':')[2]} is no function.")
    return function


def own_augmentation(name: str) -> Augmentation:
    """The same, held to what it has to return: image and labels of the shapes and types that it was given."""
    function = own_function(name)

    def checked(image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        wanted = [(tuple(value.shape), value.dtype) for value in (image, labels)]
        found = function(image, labels)
        pair = isinstance(found, tuple) and len(found) == 2 and all(isinstance(value, Tensor) for value in found)
        got = [(tuple(value.shape), value.dtype) for value in found] if pair else type(found).__name__
        if got != wanted:
            raise InputError(
                f"augmentation '{name}' returned {got}; expected image and labels as they came, {wanted}. Correct it."
            )
        return found

    return checked


def random_affine(count: int, device: torch.device, max_degrees: float = 20.0) -> Tensor:
    """Random affine matrices [count, 2, 3] of the comparison's augmentation [WSL4MIS].

    With p = .5 a quarter turn k ∈ {0..3} and a flip of one axis, k and axis uniform; otherwise with p = .5 a rotation
    by an angle that is uniform in ± max_degrees.
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


def upright_affine(
    count: int,
    device: torch.device,
    max_degrees: float = 20.0,
    scales: tuple[float, float] = (0.8, 1.25),
    max_shift: float = 0.1,
) -> Tensor:
    """Random affine matrices [count, 2, 3] without flips and quarter turns: scans of one kind lie the same way round.

    Angle uniform in ± max_degrees, scale log-uniform, shift uniform in ± max_shift of a side.
    """
    turn = patch_affine(count, device, max_degrees, scales)
    shift = (torch.rand(count, 2, 1, device=device) * 2 - 1) * 2 * max_shift
    return torch.cat([turn, shift], 2)


def patch_affine(
    count: int, device: torch.device, max_degrees: float = 30.0, scales: tuple[float, float] = (0.8, 1.25)
) -> Tensor:
    """Rotation by an angle that is uniform in ± max_degrees, times a scale that is log-uniform: [count, 2, 2]."""
    uniform = torch.rand(2, count, device=device)
    angle = (uniform[0] * 2 - 1) * math.radians(max_degrees)
    low, high = map(math.log, scales)
    scale = (low + uniform[1] * (high - low)).exp()
    cos, sin = scale * angle.cos(), scale * angle.sin()
    return torch.stack([cos, -sin, sin, cos], 1).view(count, 2, 2)


def random_intensity(image: Tensor) -> Tensor:
    """Gamma, contrast, brightness and noise, drawn for each sample of [N, C, ...], on any scale.

    x ← l + s (a y^γ + b + σ ε) with y = (x − l) / s, l and s: lowest value and range of the sample's channel. ln γ is
    uniform in ±.4, a in 1 ± .2, b in ±.1, σ in 0 to .05. A constant channel stays as it is.
    """
    uniform = torch.rand(4, len(image), *[1] * (image.ndim - 1), device=image.device) * 2 - 1
    gamma, contrast, shift, noise = (0.4 * uniform[0]).exp(), 1 + 0.2 * uniform[1], 0.1 * uniform[2], uniform[3]
    low, high = (value.view(*image.shape[:2], *[1] * (image.ndim - 2)) for value in image.flatten(2).aminmax(dim=2))
    span = high - low
    unit = ((image - low) / span.clamp(min=1e-6)).clamp(min=1e-4)
    changed = contrast * unit**gamma + shift + 0.05 * noise.abs() * torch.randn_like(image)
    return low + span * changed


def random_sharpness(image: Tensor) -> Tensor:
    """Of the samples [N, C, ..., H, W], blur a fifth and show a fourth at half of their resolution.

    Blur: Gaussian in the plane, σ uniform in .5 to 1 pixels, p = .2. Resolution: the mean of 2 × 2 pixels, interpolated
    back, p = .25.
    """
    flat = image.reshape(len(image), -1, *image.shape[-2:])
    choice, width = torch.rand(2, len(flat), 1, 1, 1, device=image.device).unbind()
    sigma = 0.5 + 0.5 * width
    offsets = torch.arange(-2, 3, device=image.device)
    kernel = torch.softmax(-(offsets**2) / (2 * sigma**2), -1).expand(-1, flat.shape[1], 1, -1).reshape(-1, 1, 1, 5)
    planes = F.pad(flat.reshape(1, -1, *flat.shape[-2:]), (2, 2, 2, 2), mode="replicate")
    across = F.conv2d(planes, kernel, groups=len(kernel))
    blurred = F.conv2d(across, kernel.transpose(2, 3), groups=len(kernel)).view_as(flat)
    coarse = F.interpolate(F.avg_pool2d(flat, 2), flat.shape[-2:], mode="bilinear", align_corners=False)
    changed = torch.where(choice < 0.2, blurred, torch.where(choice > 0.75, coarse, flat))
    return changed.view_as(image)


def warp(image: Tensor, labels: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Apply one affine matrix [2, 3] per sample.

    image [N, C, H, W] is interpolated bilinearly, 0 outside; labels [N, M, H, W] take the nearest value, UNLABELED
    outside.
    """
    grid = F.affine_grid(matrix, list(image.shape), align_corners=False)
    image = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    shifted = F.grid_sample(
        (labels - UNLABELED).float(), grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    return image, shifted.long() + UNLABELED
