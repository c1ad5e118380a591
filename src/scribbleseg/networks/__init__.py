"""Networks by name."""

from torch import nn

from ..core.errors import InputError, nearest


def build_network(name: str, channels: int, classes: int) -> nn.Module:
    """A 2-D network [N, channels, H, W] → logits [N, classes, H, W]: `unet`, `scribformer`, or `monai:NAME`.

    Every network has `features_and_logits(x)`: the input of its last convolution, [N, F, H, W], and its logits.
    ScribFormer's features are the inputs of both its heads, side by side. Raises InputError for another name.
    """
    if name == "unet":
        from .unet import UNet

        return UNet(channels, classes)
    if name == "scribformer":
        from .scribformer import ScribFormerNetwork

        return ScribFormerNetwork(channels, classes)
    if name.startswith("monai:"):
        from .monai import MonaiNetwork

        return MonaiNetwork(name.removeprefix("monai:"), channels, classes)
    raise InputError(f"no network '{name}'. {nearest(name, ['unet', 'scribformer', 'monai:BasicUNet'])}")


def start_anew(network: nn.Module) -> None:
    """Draw the weights of every layer again, in place, as PyTorch does when the layer is made."""
    for module in network.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
