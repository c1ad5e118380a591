"""Try out a network whose code is not ours: it has to map a slice or volume to class scores of its size."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import InputError

SIZE = {2: (128, 128), 3: (32, 64, 64)}  # of the slice or volume, where that of the training is not known yet


@torch.no_grad()
def try_out(
    network: nn.Module,
    name: str,
    channels: int,
    classes: int,
    size: tuple[int, ...],
    advice: str,
    unpack: Callable[[Any], Any] = lambda scores: scores,
) -> None:
    """One forward pass in eval mode: nothing is drawn, no statistics move. The network is in training mode afterwards.

    name: of the network in an error, such as "MONAI's UNet". size: of the slice or volume. unpack: what takes the
    scores out of the network's output. Raises InputError, which ends with `advice`, and ImportError for a package that
    is missing.
    """
    what = "a slice" if len(size) == 2 else "a volume"
    try:
        scores = unpack(network.eval()(torch.zeros(1, channels, *size)))
    except ImportError:
        raise
    except Exception as error:  # whatever the code of others raises
        shown = " × ".join(map(str, size))
        raise InputError(
            f"{name} does not run on {what} of {shown} ({type(error).__name__}: {error}). {advice}"
        ) from error
    network.train()
    found = tuple(scores.shape) if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
    if found != (1, classes, *size):
        raise InputError(f"{name} maps {what} to {found}, not to {(1, classes, *size)}. {advice}")
