"""Where in a scan the strokes' rings would lie: a narrow U-Net on small slices, and the box around what it finds."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import InputError
from .unet import UNet

SIDE = 64  # of the slices that it sees, pixels
LOCATOR = "locator"  # the name of the module in a network that has one
LEFT_OUT = 0.01  # share of what it finds that may lie before the box on an axis, and behind it
MARGIN = 0.06  # of a slice's side, around the box


class Locator(nn.Module):
    """Tells the inside of rings from what lies outside, in slices resized to 64² pixels: logits [N, 2, 64, 64]."""

    def __init__(self, channels: int):
        super().__init__()
        self.network = UNet(channels, 2, widths=(8, 16, 32, 64, 128), dropout=(0.0,) * 5)

    def forward(self, slices: Tensor) -> Tensor:
        logits: Tensor = self.network(slices)
        return logits

    def counts(self, image: Tensor) -> Tensor:
        """In how many of the slices [N, channels, H, W] each of the 64² pixels is inside: int64 [64, 64]."""
        small = F.interpolate(image, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        return self(small).argmax(1).sum(0)

    @torch.no_grad()
    def box(self, image: np.ndarray) -> tuple[slice, slice]:
        """Rows and columns that hold what is found in the slices of a scan, and a margin; all where nothing is found.

        image: float32 [channels, D, H, W], as the network of the run sees it. On each axis 1 % of the pixels that are
        found may lie before the box, and 1 % behind it, so that specks do not count. For inference: in eval mode.
        """
        device = next(self.parameters()).device
        slices = torch.from_numpy(np.ascontiguousarray(image.swapaxes(0, 1)))
        counts = torch.stack([self.counts(part.to(device)) for part in slices.split(32)]).sum(0)
        rows, columns = (
            slice(max(0, math.floor(first * length)), min(length, math.ceil(last * length)))
            for (first, last), length in zip(spans(counts).tolist(), image.shape[2:])
        )
        return rows, columns


def attach(network: nn.Module, channels: int) -> Locator:
    """Give a network a locator, not trained. Raises InputError for one of somebody else that has such a name itself."""
    if hasattr(network, LOCATOR):
        raise InputError(
            f"the network {type(network).__name__} has an attribute {LOCATOR!r}, which slices cut to rings need. "
            "Rename it, or use --preparation slices."
        )
    locator = Locator(channels)
    network.add_module(LOCATOR, locator)
    return locator


def spans(counts: Tensor) -> Tensor:
    """Where the middle 98 % of the counts [64, 64] lie on both axes, with the margin: [2, 2], shares of a side.

    The whole side where all counts are 0.
    """
    counts = counts + (counts.sum() == 0)
    share = torch.stack([counts.sum(1), counts.sum(0)]).cumsum(1) / counts.sum()
    first, last = (share < LEFT_OUT).sum(1), (share < 1 - LEFT_OUT).sum(1) + 1
    return torch.stack([first / SIDE - MARGIN, last / SIDE + MARGIN], 1)
