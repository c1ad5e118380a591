"""The U-Net of WSL4MIS, which the papers share."""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dropout import Dropout
from .encoder_decoder import EncoderDecoder


class Block(nn.Sequential):
    """conv3×3, BN, LeakyReLU, dropout, conv3×3, BN, LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, dropout: float):
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.01, inplace=True),  # its gradient needs the sign alone
            Dropout(dropout),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.LeakyReLU(0.01, inplace=True),
        )


class _Joined(torch.autograd.Function):
    """`torch.cat` along the channels, whose gradients are whole tensors: slices of one are slow in all that follows."""

    @staticmethod
    def forward(ctx: Any, skip: Tensor, up: Tensor) -> Tensor:
        ctx.widths = skip.shape[1], up.shape[1]
        return torch.cat([skip, up], 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in gradient.split(ctx.widths, 1))


class UNet(EncoderDecoder):
    """Channels 16-32-64-128-256; max-pool down; 1×1 convolution and bilinear ×2 (align_corners) up; head conv3×3.

    Logits are float32 also under autocast. H and W are multiples of 16.
    """

    dims = 2

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: tuple[int, ...] = (16, 32, 64, 128, 256),
        dropout: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5),
    ):
        super().__init__()
        self.widths = widths
        self.map_widths = {2**level: width for level, width in enumerate(widths)}
        self.encoder = nn.ModuleList(map(Block, (channels, *widths), widths, dropout))
        self.reduce = nn.ModuleList(nn.Conv2d(deep, wide, 1) for wide, deep in pairwise(widths))
        self.decoder = nn.ModuleList(Block(2 * wide, wide, 0.0) for wide in widths[:-1])
        self.head = nn.Conv2d(widths[0], classes, 3, padding=1)

    def encode(self, x: Tensor) -> list[Tensor]:
        """The encoder's maps at strides 1, 2, 4, 8, 16."""
        maps = [self.encoder[0](x)]
        for block in self.encoder[1:]:
            maps.append(block(F.max_pool2d(maps[-1], 2)))
        return maps

    def decoder_maps(self, maps: list[Tensor]) -> list[Tensor]:
        """The decoder's maps at strides 8, 4, 2, 1, from the encoder's."""
        decoded = [maps[-1]]
        for skip, reduce, block in reversed(list(zip(maps, self.reduce, self.decoder))):
            up = F.interpolate(reduce(decoded[-1]), scale_factor=2, mode="bilinear", align_corners=True)
            decoded.append(block(_Joined.apply(skip, up)))
        return decoded[1:]

    def decode(self, maps: list[Tensor]) -> Tensor:
        """The input of the head, [N, widths[0], H, W]."""
        return self.decoder_maps(maps)[-1]
