"""The networks by name. A third party's network is named `package.module:Class`."""

from torch import nn

from ..core.errors import InputError, nearest


def is_own(name: str) -> bool:
    """Whether a network is one of ours or of MONAI's, so that no other code is imported for it."""
    return ":" not in name or name.startswith("monai:")


def build_network(
    name: str,
    channels: int,
    classes: int,
    dims: int = 2,
    anisotropy: float = 1.0,
    size: tuple[int, ...] | None = None,
) -> nn.Module:
    """A network [N, channels, *space] → logits [N, classes, *space]: `unet`, `scribformer`, `unet3d`, `monai:NAME`, or
    `package.module:Class`, which is imported.

    dims: axes of the space; only MONAI's networks are made for either number. anisotropy: of `unet3d`, the distance of
    the slices over the side of a pixel. size: of the slices or volumes, on which a network that is not ours is tried
    out. Ours and the networks of MONAI that `monai.MAPS` lists have
    `features_and_logits(x)`: a feature map [N, F, *space] and the logits. Features are the input of the U-Nets' last
    convolution, the inputs of both heads of ScribFormer side by side, and what `monai.MAPS` says. Raises InputError for
    another name, and for a network of other dimensions.
    """
    if dims != {"unet": 2, "scribformer": 2, "unet3d": 3}.get(name, dims):
        raise InputError(
            f"network '{name}' is not {dims}-D. Leave --network out, or use {'unet' if dims == 2 else 'unet3d'} or "
            "monai:NAME."
        )
    if name == "unet":
        from .unet import UNet

        return UNet(channels, classes)
    if name == "scribformer":
        from .scribformer import ScribFormerNetwork

        return ScribFormerNetwork(channels, classes)
    if name == "unet3d":
        from .unet3d import UNet3D

        return UNet3D(channels, classes, anisotropy)
    if name.startswith("monai:"):
        from .monai import MAPS, MonaiBackbone, MonaiNetwork
        from .trial import SIZE

        name = name.removeprefix("monai:")
        return (MonaiBackbone if name in MAPS else MonaiNetwork)(name, channels, classes, size or SIZE[dims])
    if not is_own(name):
        from .own import own_network
        from .trial import SIZE

        return own_network(name, channels, classes, dims, size or SIZE[dims])
    raise InputError(f"no network '{name}'. {nearest(name, ['unet', 'unet3d', 'scribformer', 'monai:BasicUNet'])}")


def start_anew(network: nn.Module) -> None:
    """Draw the weights of every layer again, in place, as PyTorch does when the layer is made."""
    for module in network.modules():
        reset = getattr(module, "reset_parameters", None)
        if reset is not None:
            reset()
