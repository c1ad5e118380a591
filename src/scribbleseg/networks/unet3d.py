"""A 3-D U-Net of MONAI's DynUNet blocks, with thick slices halved later than their pixels."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from ..core.errors import InputError
from .encoder_decoder import EncoderDecoder

WIDTHS = (16, 32, 64, 128, 256)
THICK = 2**0.5  # slices whose distance is more than this times the pixel's side are not yet halved


def depth_strides(anisotropy: float, levels: int = len(WIDTHS)) -> tuple[int, ...]:
    """How each step from a level to the next halves the slices: 2 or 1; rows and columns are halved in every step.

    anisotropy: distance of the slices over the side of a pixel. Slices are halved once the pixels of a level are about
    as large as their distance, as nnU-Net does.
    """
    strides: list[int] = []
    for level in range(levels - 1):
        distance = anisotropy * 2 ** (sum(strides) - len(strides))
        strides.append(2 if distance <= THICK * 2**level else 1)
    return tuple(strides)


class UNet3D(EncoderDecoder):
    """Two convolutions, instance norm and LeakyReLU per block; strided convolutions down, transposed ones up.

    image [N, channels, D, H, W] → logits [N, classes, D, H, W], float32 also under autocast. D is a multiple of the
    product of `depth_strides`, H and W of 2 to the number of steps. Kernels are 1 × 3 × 3 where slices are still thick.
    Raises InputError without MONAI.
    """

    dims = 3

    def __init__(self, channels: int, classes: int, anisotropy: float = 1.0, widths: Sequence[int] = WIDTHS):
        super().__init__()
        try:
            from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetOutBlock, UnetUpBlock
        except ImportError as error:
            raise InputError("network 'unet3d' needs MONAI. Run: pip install 'scribbleseg[monai]'") from error
        self.widths = tuple(widths)
        steps = [(depth, 2, 2) for depth in depth_strides(anisotropy, len(widths))]
        self.map_widths = {2**level: width for level, width in enumerate(widths)}
        self.strides = {2**level: tuple(map(math.prod, zip((1, 1, 1), *steps[:level]))) for level in range(len(widths))}
        kernels = [(3 if depth == 2 else 1, 3, 3) for depth, *_ in steps] + [(3, 3, 3)]
        self.encoder = nn.ModuleList(
            UnetBasicBlock(3, inputs, outputs, kernel, step, "instance")
            for inputs, outputs, kernel, step in zip((channels, *widths), widths, kernels, [(1, 1, 1), *steps])
        )
        self.decoder = nn.ModuleList(
            UnetUpBlock(3, widths[level + 1], widths[level], kernels[level], 1, steps[level], "instance")
            for level in range(len(steps))
        )
        self.head = UnetOutBlock(3, widths[0], classes)

    def encode(self, x: Tensor) -> list[Tensor]:
        """The encoder's maps, the finest first."""
        maps = [self.encoder[0](x)]
        for block in self.encoder[1:]:
            maps.append(block(maps[-1]))
        return maps

    def decode(self, maps: list[Tensor]) -> Tensor:
        """The input of the head, [N, widths[0], D, H, W]."""
        x = maps[-1]
        for block, skip in zip(reversed(self.decoder), reversed(maps[:-1])):
            x = block(x, skip)
        return x
