"""Augmentation of whole batches, on their device."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError
from .labels import UNLABELED, annotated_box


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


def check_box(box: str) -> None:
    """Raises InputError for a box that `foreground_augmentation` does not have."""
    if box not in ("annotated", "foreground"):
        raise InputError(
            f"box is '{box}'; it is 'annotated' (all scribble) or 'foreground' (foreground scribble only)."
        )


def foreground_augmentation(
    image: Tensor, scribble: Tensor, pseudo: Tensor, box: str = "annotated", donor: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """FADC: every sample's scribble box is filled with the content of a donor's box (EFFDNet, MICCAI 2025).

    image [N, C, H, W], scribble and pseudo [N, H, W]. The donor's box is resized (nearest) to the recipient's, in all
    three alike. `box`: bounding box of all annotated pixels, background scribble included ("annotated", the released
    code), or of foreground scribble only ("foreground", a reading of the paper). `donor` [N]: indices into the batch; by
    default drawn with replacement among the samples that have a box. Samples without a box stay as they are.
    """
    check_box(box)
    boxes, found = annotated_box(scribble, foreground_only=box == "foreground")
    count = len(image)
    if donor is None:
        donor = (torch.rand(count, count, device=image.device) + found).argmax(1)
    source, inside = [], []
    for low, high, size in ((0, 2, image.shape[2]), (1, 3, image.shape[3])):
        position = torch.arange(size, device=image.device)
        offset = position - boxes[:, low, None]
        length = (boxes[:, high] - boxes[:, low]).clamp(min=1)[:, None]
        theirs = (boxes[donor, high] - boxes[donor, low]).clamp(min=1)[:, None]
        nearest = torch.div((2 * offset + 1) * theirs, 2 * length, rounding_mode="floor")
        source.append((boxes[donor, low, None] + nearest).clamp(0, size - 1))
        inside.append((position >= boxes[:, low, None]) & (position < boxes[:, high, None]))
    pasted = inside[0][:, :, None] & inside[1][:, None, :] & (found & found[donor])[:, None, None]
    who, row, column = donor[:, None, None], source[0][:, :, None], source[1][:, None, :]
    return (
        torch.where(pasted[:, None], image.movedim(1, -1)[who, row, column].movedim(-1, 1), image),
        torch.where(pasted, scribble[who, row, column], scribble),
        torch.where(pasted, pseudo[who, row, column], pseudo),
    )
