"""Any network of MONAI by name, 2-D or 3-D, as a backbone, with the maps that methods read of those that are listed."""

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import InputError, nearest
from .trial import SIZE, try_out


class Maps(NamedTuple):
    """The modules whose maps are read: `features` is the input of a module, `encoder` has the outputs, by stride."""

    features: str
    encoder: dict[int, str]


def _nested(depth: int) -> str:
    """The first block at a depth of the networks that MONAI builds from skip connections in skip connections."""
    return "model" + depth * ".1.submodule" + ".0"


MAPS = {
    "AHNet": Maps("final", {}),
    "AttentionUnet": Maps("model.2", {2**level: _nested(level) for level in range(4)}),
    "BasicUNet": Maps("final_conv", {1: "conv_0"} | {2**level: f"down_{level}" for level in range(1, 5)}),
    "BasicUNetPlusPlus": Maps("final_conv_0_4", {2**level: f"conv_{level}_0" for level in range(5)}),
    "DynUNet": Maps("output_block", {1: "input_block", 2: "downsamples.0", 4: "downsamples.1", 8: "downsamples.2"}),
    "FlexibleUNet": Maps("segmentation_head", {}),
    "HighResNet": Maps("blocks.11", {}),
    "MedNeXt": Maps("out_0", {2**level: f"enc_stages.{level}" for level in range(4)}),
    "SegResNet": Maps("conv_final.2", {2**level: f"down_layers.{level}" for level in range(4)}),
    "SegResNetDS": Maps("up_layers.2.head", {2**level: f"encoder.layers.{level}.blocks" for level in range(4)}),
    "UNet": Maps("model.2", {2 ** (level + 1): _nested(level) for level in range(4)}),
    "VNet": Maps("out_tr", {1: "in_tr", 2: "down_tr32", 4: "down_tr64", 8: "down_tr128", 16: "down_tr256"}),
}

# what a constructor needs beside channels and classes
ARGUMENTS: dict[str, dict[str, Any]] = {
    "UNet": {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2), "num_res_units": 2},
    "AttentionUnet": {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2)},
    "DynUNet": {
        "kernel_size": (3, 3, 3, 3, 3),
        "strides": (1, 2, 2, 2, 2),
        "upsample_kernel_size": (2, 2, 2, 2),
        "filters": (16, 32, 64, 128, 256),
    },
    "FlexibleUNet": {"backbone": "efficientnet-b0"},
}


class MonaiNetwork(nn.Module):
    """A MONAI network as built by `monai.networks.nets.NAME(spatial_dims, in_channels, out_channels)`.

    `size` is that of the slices or volumes on which it is tried out. It gives logits only: methods that need a feature
    map refuse it. Raises InputError without MONAI, for an unknown
    name, for a network that these arguments do not build, and for one that does not map a slice or volume to class
    scores.
    """

    def __init__(self, name: str, channels: int, classes: int, size: tuple[int, ...] = SIZE[2]):
        super().__init__()
        self.dims = dims = len(size)
        try:
            from monai.networks import nets
        except ImportError as error:
            raise InputError(f"network 'monai:{name}' needs MONAI. Run: pip install 'scribbleseg[monai]'") from error
        known = [key for key, value in vars(nets).items() if isinstance(value, type) and issubclass(value, nn.Module)]
        if name not in known:
            raise InputError(f"MONAI has no network '{name}'. {nearest(name, known)}")
        try:
            self.net = getattr(nets, name)(
                spatial_dims=dims, in_channels=channels, out_channels=classes, **ARGUMENTS.get(name, {})
            )
            advice = "Try monai:BasicUNet or monai:UNet."
            try_out(self.net, f"MONAI's {name}", channels, classes, size, advice, _alone)
        except ImportError as error:
            raise InputError(
                f"MONAI's {name} needs a package that is not installed. It says: {str(error).splitlines()[0]} "
                "Install it, or try monai:BasicUNet or monai:UNet."
            ) from error
        except TypeError as error:
            raise InputError(
                f"MONAI's {name} cannot be built from channels and classes alone ({error}). "
                "Try monai:BasicUNet or monai:UNet."
            ) from error

    def forward(self, x: Tensor) -> Tensor:
        return _alone(self.net(x)).float()


class MonaiBackbone(MonaiNetwork):
    """A MONAI network of `MAPS`: methods can read its feature map, and SCN the encoder's map of a stride.

    `map_widths` is stride → channels of the encoder's maps, `described` says in words which map the features are.
    """

    def __init__(self, name: str, channels: int, classes: int, size: tuple[int, ...] = SIZE[2]):
        super().__init__(name, channels, classes, size)
        self.at = MAPS[name]
        self.net.eval()
        with torch.no_grad():
            maps, features, _ = self._read(torch.zeros(1, channels, *size))
        self.net.train()
        self.map_widths = {stride: value.shape[1] for stride, value in maps.items()}
        self.strides = {stride: (stride,) * len(size) for stride in maps}
        part = "full" if features.shape[-1] == size[-1] else f"1/{size[-1] // features.shape[-1]}"
        self.described = f"the input of {self.at.features}: {features.shape[1]} channels at {part} resolution"

    def _read(self, x: Tensor) -> tuple[dict[int, Tensor], Tensor, Tensor]:
        features: list[Tensor] = []
        maps: dict[int, Tensor] = {}
        head = self.net.get_submodule(self.at.features)
        hooks = [head.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))]
        for stride, path in self.at.encoder.items():
            block = self.net.get_submodule(path)
            hooks.append(block.register_forward_hook(functools.partial(_keep, maps, stride)))
        try:
            logits = self(x)
        finally:
            for hook in hooks:
                hook.remove()
        return maps, features[0], logits

    def maps_features_and_logits(self, x: Tensor) -> tuple[dict[int, Tensor], Tensor, Tensor]:
        """Stride → the encoder's map; the features, interpolated to the size of x if they are coarser; the logits."""
        maps, features, logits = self._read(x)
        if features.shape[2:] != x.shape[2:]:
            features = F.interpolate(features, x.shape[2:], mode="bilinear" if self.dims == 2 else "trilinear")
        return maps, features, logits

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.maps_features_and_logits(x)[1:]


def _alone(scores: Any) -> Any:
    """The tensor of a list of one: some networks can return scores of several depths."""
    return scores[0] if isinstance(scores, list) and len(scores) == 1 else scores


def _keep(maps: dict[int, Tensor], stride: int, module: nn.Module, inputs: tuple, output: Tensor) -> None:
    maps[stride] = output
