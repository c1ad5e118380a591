"""Networks by name."""

from torch import nn

from ..core.errors import InputError, nearest


def build_network(name: str, channels: int, classes: int) -> nn.Module:
    """A 2-D network [N, channels, H, W] → logits [N, classes, H, W]: `unet`, `scribformer`, or `monai:NAME`.

    All but the networks of MONAI that `monai.MAPS` does not list have `features_and_logits(x)`: a feature map
    [N, F, H, W] and the logits. Features are the input of the U-Net's last convolution, the inputs of both heads of
    ScribFormer side by side, and what `monai.MAPS` says. Raises InputError for another name.
    """
    if name == "unet":
        from .unet import UNet

        return UNet(channels, classes)
    if name == "scribformer":
        from .scribformer import ScribFormerNetwork

        return ScribFormerNetwork(channels, classes)
    if name.startswith("monai:"):
        from .monai import MAPS, MonaiBackbone, MonaiNetwork

        name = name.removeprefix("monai:")
        return (MonaiBackbone if name in MAPS else MonaiNetwork)(name, channels, classes)
    raise InputError(f"no network '{name}'. {nearest(name, ['unet', 'scribformer', 'monai:BasicUNet'])}")


def start_anew(network: nn.Module) -> None:
    """Draw the weights of every layer again, in place, as PyTorch does when the layer is made."""
    for module in network.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
