"""A network of a user's own, named package.module:Class."""

from torch import nn

from ..core.errors import InputError
from ..core.own_code import find
from .trial import try_out

BUILT = "It is called with the numbers of channels and classes."
MAPS = "forward(image) returns one tensor, [N, classes, *space] for an image [N, channels, *space]."


def own_network(name: str, channels: int, classes: int, dims: int, size: tuple[int, ...]) -> nn.Module:
    """`Class(channels, classes)`, tried out on a slice or volume of this size. Importing the class runs its code.

    Raises InputError for what cannot be imported or is no Module, for a network of other dimensions (its attribute
    `dims`, 2 where it has none), and for one that does not map a slice or volume to class scores.
    """
    kind = find("network", name)
    if not isinstance(kind, type) or not issubclass(kind, nn.Module):
        raise InputError(
            f"network '{name}': {name.rpartition(':')[2]} is no network. Derive the class from torch.nn.Module."
        )
    try:
        network: nn.Module = kind(channels, classes)
    except Exception as error:  # whatever the code of others raises
        raise InputError(f"network '{name}' cannot be built ({error}). {BUILT}") from error
    space = getattr(network, "dims", 2)
    if space != dims:
        raise InputError(f"network '{name}' is {space}-D, as its `dims` says, and not {dims}-D. Use another network.")
    try:
        try_out(network, f"network '{name}'", channels, classes, size, MAPS)
    except ImportError as error:
        raise InputError(f"network '{name}' needs a package that is missing ({error}). Install it.") from error
    return network
