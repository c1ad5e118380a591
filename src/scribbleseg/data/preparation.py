"""Prepare a scan for the network: intensity and size."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def resize_image(image: np.ndarray, size: int) -> Tensor:
    """[channels, D, H, W] → float32 [D, channels, size, size], bilinear with antialiasing."""
    stack = torch.from_numpy(np.ascontiguousarray(image.swapaxes(0, 1)))
    if stack.shape[2:] == (size, size):
        return stack
    return F.interpolate(stack, (size, size), mode="bilinear", antialias=True, align_corners=False)


def resize_label(label: np.ndarray, size: int) -> Tensor:
    """[D, H, W], uint8 or int32 → [D, size, size] of the same type, nearest neighbour."""
    stack = torch.from_numpy(np.ascontiguousarray(label))
    if stack.shape[1:] == (size, size):
        return stack
    rows, columns = (((torch.arange(size) + 0.5) * length / size).long() for length in stack.shape[1:])
    return stack[:, rows][:, :, columns]


def grey_range(image: np.ndarray) -> tuple[float, float]:
    """The volume's minimum and 99th percentile. If both are equal (an almost empty volume): minimum and maximum."""
    low, high = float(image.min()), float(np.percentile(image, 99))
    return low, high if high > low else float(image.max())


def normalise(image: np.ndarray) -> np.ndarray:
    """Clip at the volume's 99th percentile, then min-max to [0, 1]: the preparation of the WSL4MIS ACDC files."""
    low, high = grey_range(image)
    return (np.minimum(image, high) - low) / (high - low)
