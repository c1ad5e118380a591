"""Labels: values, recoding, boxes."""

import torch
from torch import Tensor

UNLABELED = 255


def annotated_box(label: Tensor, foreground_only: bool = False) -> tuple[Tensor, Tensor]:
    """Bounding box of each slice's annotated pixels.

    label [N, H, W], integer, UNLABELED where nothing was drawn. Returns (box [N, 4] = top, left, bottom, right with
    exclusive ends, found [N] bool). A slice without a pixel has box 0 and found False. No host synchronisation.
    """
    mask = label != UNLABELED
    if foreground_only:
        mask = mask & (label != 0)
    ends = []
    for dim in (2, 1):  # rows first, then columns
        line = mask.any(dim)
        size = line.shape[1]
        position = torch.arange(size, device=label.device)
        low = torch.where(line, position, size).amin(1)
        high = torch.where(line, position + 1, 0).amax(1)
        ends.append((low, high))
    (top, bottom), (left, right) = ends
    found = mask.flatten(1).any(1)
    box = torch.stack([top, left, bottom, right], 1)
    return box * found[:, None], found
