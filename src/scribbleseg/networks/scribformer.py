"""ScribFormer's network (Li et al., TMI 2024): Conformer-S encoder, CNN decoder, Transformer decoder and CAM branch."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .unet import Block


def convolution(inputs: int, outputs: int, size: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, then batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs, eps=1e-6)
    )


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions around a residual. Returns (output, input of the last 1×1).

    `coupled` is added before the 3×3 convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, project: bool = False):
        super().__init__()
        inner = outputs // 4
        self.reduce = convolution(inputs, inner)
        self.middle = convolution(inner, inner, 3, stride)
        self.expand = convolution(inner, outputs)
        self.shortcut = convolution(inputs, outputs, 1, stride) if project else nn.Identity()

    def forward(self, x: Tensor, coupled: Tensor | None = None) -> tuple[Tensor, Tensor]:
        inner = self.reduce(x).relu_()
        if coupled is not None:
            inner = inner + coupled
        inner = self.middle(inner).relu_()
        return (self.expand(inner) + self.shortcut(x)).relu_(), inner


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP of four times the width.

    Each residual branch is dropped per sample with probability `drop`.
    """

    def __init__(self, dim: int, drop: float):
        super().__init__()
        self.drop = drop
        self.norms = nn.ModuleList(nn.LayerNorm(dim, eps=1e-6) for _ in range(2))
        self.attention = nn.MultiheadAttention(dim, dim // 64, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norms[0](tokens)
        tokens = tokens + self.keep(self.attention(x, x, x, need_weights=False)[0])
        return tokens + self.keep(self.mlp(self.norms[1](tokens)))

    def keep(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop == 0:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop
        return branch * kept / (1 - self.drop)


class CoupledBlock(nn.Module):
    """A CNN block and a Transformer block with feature coupling both ways (Conformer, ICCV 2021).

    Down: 1×1 convolution, average pool to the tokens' grid, LayerNorm, GELU, added to the patch tokens. Up: 1×1
    convolution, batch normalisation, ReLU, nearest-neighbour to the map's size, added inside a second bottleneck.
    """

    def __init__(self, inputs: int, outputs: int, dim: int, drop: float, stride: int = 1, last: bool = False):
        super().__init__()
        inner = outputs // 4
        self.cnn = Bottleneck(inputs, outputs, stride, project=inputs != outputs)
        self.down = nn.Conv2d(inner, dim, 1)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.transformer = TransformerBlock(dim, drop)
        self.up = nn.Sequential(nn.Conv2d(dim, inner, 1), nn.BatchNorm2d(inner, eps=1e-6), nn.ReLU())
        self.fuse = Bottleneck(outputs, outputs, project=last)

    def forward(self, x: Tensor, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        x, inner = self.cnn(x)
        patches = F.adaptive_avg_pool2d(self.down(inner), grid).flatten(2).transpose(1, 2)
        # nothing is added to the class token
        tokens = self.transformer(tokens + F.pad(F.gelu(self.norm(patches)), (0, 0, 1, 0)))
        up = self.up(as_map(tokens, grid))
        return self.fuse(x, F.interpolate(up, size=inner.shape[2:]))[0], tokens


def as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens [N, 1 + h·w, dim] without the class token → [N, dim, h, w]."""
    return tokens[:, 1:].transpose(1, 2).unflatten(2, grid)


class Encoder(nn.Module):
    """x → (CNN maps of `widths` at strides 1, 2, 4, 8, 16, token map at stride 16).

    A third of the blocks lies at each of the strides 4, 8, 16.
    """

    def __init__(self, channels: int, widths: tuple[int, ...], dim: int, depth: int, drop: float):
        super().__init__()
        self.stage = depth // 3
        self.stem = nn.ModuleList(Bottleneck(i, o, project=True) for i, o in zip((channels, *widths), widths[:3]))
        self.patches = nn.Conv2d(widths[2], dim, 4, 4)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.first = TransformerBlock(dim, 0.0)
        outputs = [widths[2 + block // self.stage] for block in range(1, depth)]
        self.blocks = nn.ModuleList(
            CoupledBlock(i, o, dim, drop * block / (depth - 1), stride=1 + (i != o), last=block == depth - 1)
            for block, (i, o) in enumerate(zip((widths[2], *outputs), outputs), 1)
        )

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        maps: list[Tensor] = []
        for block in self.stem:
            x = block(F.max_pool2d(x, 3, 2, 1) if maps else x)[0]
            maps.append(x)
        maps.pop()  # the map at stride 4 is taken after its coupled blocks
        patches = self.patches(x)
        grid = patches.shape[2:]
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        tokens = self.first(tokens)
        for number, block in enumerate(self.blocks, 2):
            x, tokens = block(x, tokens, grid)
            if number % self.stage == 0:
                maps.append(x)
        return maps, as_map(tokens, grid)


class Modulation(nn.Module):
    """Channel, then spatial attention A, each applied as the density of N(mean A, std A) at A (AMR, AAAI 2022)."""

    def __init__(self, width: int):
        super().__init__()
        self.channel = nn.Sequential(nn.Linear(width, width // 16), nn.ReLU(), nn.Linear(width // 16, width))
        self.spatial = convolution(2, 1, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = x * density(self.channel(x.mean((2, 3))))[:, :, None, None]
        return x * density(self.spatial(torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)))


def density(attention: Tensor) -> Tensor:
    """The normal density of each value under its sample's mean and standard deviation, both without gradient."""
    values = attention.float()
    axes = tuple(range(1, values.dim()))
    mean = values.mean(axes, keepdim=True).detach()
    std = values.std(axes, keepdim=True, correction=0).detach().clamp(min=1e-3)
    return torch.exp(-((values - mean) / std).square() / 2) / (std * math.sqrt(2 * math.pi))


class CamBranch(nn.Module):
    """Class activation maps of the five CNN levels, brought to stride 16: a list of [N, classes, H/16, W/16]."""

    def __init__(self, widths: tuple[int, ...], classes: int):
        super().__init__()
        self.modulations = nn.ModuleList(map(Modulation, widths))
        self.heads = nn.ModuleList(nn.Conv2d(width, classes, 1, bias=False) for width in widths)
        self.down = nn.ModuleList(nn.Sequential(*convolution(classes, classes, 7, 2), nn.ReLU()) for _ in widths[1:])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        cams = []
        for level, (x, modulation, head) in enumerate(zip(maps, self.modulations, self.heads)):
            cam = head(modulation(x)).relu()
            for down in self.down[level:]:
                cam = down(cam)
            cams.append(cam)
        return cams


class Heads(nn.Module):
    """Features of both decoders side by side → log of the mean of their two softmaxes, [N, classes, H, W]."""

    def __init__(self, widths: tuple[int, int], classes: int):
        super().__init__()
        self.widths = widths
        self.convolutions = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in widths)

    def both(self, features: Tensor) -> list[Tensor]:
        """The logits of the CNN decoder and of the Transformer decoder, float32."""
        return [head(part).float() for head, part in zip(self.convolutions, features.split(self.widths, 1))]

    def forward(self, features: Tensor) -> Tensor:
        cnn, transformer = self.both(features)
        return torch.logaddexp(cnn.log_softmax(1), transformer.log_softmax(1)) - math.log(2)


class ScribFormerNetwork(nn.Module):
    """softmax(network(x)) is the mean of the two decoders' softmaxes (CNN, Transformer). H and W are multiples of 16.

    Default sizes are the public code's: `depth` Transformer blocks of `dim` with heads of 64, CNN widths from
    `width` to 16 times that, stochastic depth up to `drop`. `depth` is at least 6 and a multiple of 3.
    """

    dims = 2

    def __init__(
        self, channels: int, classes: int, width: int = 64, dim: int = 384, depth: int = 12, drop: float = 0.1
    ):
        super().__init__()
        widths = tuple(width * factor for factor in (1, 2, 4, 8, 16))
        self.encoder = Encoder(channels, widths, dim, depth, drop)
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, wide, 2, 2) for wide, deep in pairwise(widths))
        self.decoder = nn.ModuleList(Block(2 * wide, wide, 0.0) for wide in widths[:-1])
        token_widths = (dim, 4 * width, 2 * width, width, width // 2)
        self.token_decoder = nn.Sequential(
            *(nn.ConvTranspose2d(deep, wide, 2, 2) for deep, wide in pairwise(token_widths))
        )
        self.head = Heads((width, width // 2), classes)
        self.cam = CamBranch(widths, classes)
        # all else keeps PyTorch's start, as in the public code
        for part in (self.encoder, self.cam.modulations, self.cam.heads):
            part.apply(initialise)
        nn.init.trunc_normal_(self.encoder.class_token, std=0.02)

    def decode(self, maps: list[Tensor], tokens: Tensor) -> Tensor:
        x = maps[-1]
        for skip, up, block in reversed(list(zip(maps, self.up, self.decoder))):
            x = block(torch.cat([skip, up(x)], 1))
        return torch.cat([x, self.token_decoder(tokens)], 1)

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.decode(*self.encoder(x))
        return features, self.head(features)

    def forward(self, x: Tensor) -> Tensor:
        return self.features_and_logits(x)[1]

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """For training: logits of the CNN decoder, of the Transformer decoder, and the five levels' activation maps."""
        maps, tokens = self.encoder(x)
        cnn, transformer = self.head.both(self.decode(maps, tokens))
        return cnn, transformer, self.cam(maps)


def initialise(module: nn.Module) -> None:
    """Conformer's initialisation of one layer."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.MultiheadAttention):
        nn.init.trunc_normal_(module.in_proj_weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
