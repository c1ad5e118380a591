"""Any network of MONAI by name, 2-D or 3-D, as a backbone."""

from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError, nearest

# what a constructor needs beside channels and classes
ARGUMENTS: dict[str, dict[str, Any]] = {
    "UNet": {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2), "num_res_units": 2},
    "AttentionUnet": {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2)},
}


class MonaiNetwork(nn.Module):
    """A MONAI network as built by `monai.networks.nets.NAME(spatial_dims, in_channels, out_channels)`.

    The features are the input of its last convolution with `classes` outputs. It has no `encode`: methods that
    need the encoder's maps refuse it. Raises InputError without MONAI, for an unknown name, for a network that
    these arguments do not build, and for one that does not map a slice or volume to class scores.
    """

    def __init__(self, name: str, channels: int, classes: int, dims: int = 2):
        super().__init__()
        self.dims = dims
        try:
            from monai.networks import nets
        except ImportError as error:
            raise InputError(f"network 'monai:{name}' needs MONAI. Run: pip install monai") from error
        known = [key for key, value in vars(nets).items() if isinstance(value, type) and issubclass(value, nn.Module)]
        if name not in known:
            raise InputError(f"MONAI has no network '{name}'. {nearest(name, known)}")
        try:
            self.net = getattr(nets, name)(
                spatial_dims=dims, in_channels=channels, out_channels=classes, **ARGUMENTS.get(name, {})
            )
            self.try_out(name, channels, classes)
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
        convolutions = [
            (path, module)
            for path, module in self.net.named_modules()
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d, nn.ConvTranspose3d))
        ]
        self.last = [path for path, module in convolutions if module.out_channels == classes][-1]

    @torch.no_grad()
    def try_out(self, name: str, channels: int, classes: int) -> None:
        """One slice of 128 × 128, or volume of 32 × 64 × 64, in eval mode: nothing is drawn, no statistics move."""
        what, size = ("a slice", (128, 128)) if self.dims == 2 else ("a volume", (32, 64, 64))
        shown = " × ".join(map(str, size))
        try:
            scores = self.net.eval()(torch.zeros(1, channels, *size))
        except RuntimeError as error:
            raise InputError(
                f"MONAI's {name} does not run on {what} of {shown} ({error}). Try monai:BasicUNet or monai:UNet."
            ) from error
        self.net.train()
        found = tuple(scores.shape) if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
        if found != (1, classes, *size):
            raise InputError(
                f"MONAI's {name} maps {what} to {found}, not to {(1, classes, *size)}. "
                "Try monai:BasicUNet or monai:UNet."
            )

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = []
        hook = self.net.get_submodule(self.last).register_forward_pre_hook(
            lambda module, inputs: kept.append(inputs[0])
        )
        try:
            logits = self(x)
        finally:
            hook.remove()
        return kept[0], logits

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).float()
