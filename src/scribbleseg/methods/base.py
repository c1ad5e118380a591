"""The method contract: what the training loop asks of a method, and nothing else."""

from typing import Any

import numpy as np
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.recipe import Recipe
from ..data.case import Volume
from ..data.voxels import Batch, Slices, Voxels
from .options import checked


class Method(nn.Module):
    """Owns `network` (what is evaluated, saved and shipped) and whatever else it trains or keeps.

    A subclass takes its options as keyword-only arguments; their defaults are the paper's, and `Annotated` says
    what they may be. A method never touches the optimiser, files or logs. Outside of `sweep`, which is between the
    steps, it never touches the device, calls `.item()` or branches on a tensor's value. Raises InputError for an
    option that is not allowed, and for a network that lacks what `needs` names or has other dimensions than `dims`.
    """

    recipe = Recipe()
    network_name = "unet"  # the network that is built when the user names none
    needs: tuple[str, ...] = ()  # the network's attributes that the method uses, beside its forward pass
    reads_enclosure = False  # whether `losses` has a term for the enclosed background (losses/enclosure.py)
    dims: tuple[int, ...] = (2,)  # (2, 3): `losses` takes batches of volumes too
    learns_from_bare = True  # whether a slice without any stroke teaches it something
    later: tuple[str, ...] = ()  # options that came later: runs from before them were trained with their defaults
    sweeps = 0  # how many times during a run `sweep` is called, evenly spread, at least 100 iterations apart

    network: Any  # a Module: [N, channels, *space] → logits [N, classes, *space]; the space is H, W or D, H, W

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, network: nn.Module):
        super().__init__()
        lacking = [name for name in self.needs if not hasattr(network, name)]
        if lacking:
            raise InputError(
                f"{type(self).__name__} needs a network with {', '.join(self.needs)}; {type(network).__name__} has no "
                f"{', '.join(lacking)}. Use --network {self.network_name}, or another method."
            )
        space = getattr(network, "dims", 2)
        if space not in self.dims:
            raise InputError(
                f"{type(self).__name__} works in {' and '.join(f'{dims}-D' for dims in self.dims)}; "
                f"{type(network).__name__} is {space}-D. Use another network, or another method."
            )
        self.network = network

    def targets(self, volume: Volume) -> dict[str, np.ndarray]:
        """What a case is trained on, integer [D, H, W] each; "label" is required. Called once per case."""
        return {"label": volume.scribble}

    def target_key(self, volume: Volume) -> dict[str, object] | None:
        """What expensive `targets` depend on beside the case's image and scribble, as JSON values.

        The loop keeps such targets on disk under this key. None: the targets are cheap and never kept.
        """
        return None

    def notes(self, volume: Volume) -> dict[str, int]:
        """Counts that the user should know of a case's targets, by name; the loop prints their sums over cases."""
        return {}

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        """Named, already weighted terms; the loop sums and logs them.

        `progress`: 0-d tensor, 0 at the first step, 1 at the end. With several processes each calls this with
        its part of the batch: sums over the whole batch (`batch_sum` of core.distributed) are allowed here and
        nowhere else.
        """
        raise InputError(
            f"{type(self).__name__} defines no losses(self, batch, progress). CONTRIBUTING.md shows a method."
        )

    def after_step(self, progress: Tensor) -> None:
        """After each optimiser step: teacher update and the like."""

    def sweep(self, slices: Slices | Voxels, progress: Tensor) -> None:
        """A pass over all training slices, `sweeps` times in a run; two passes are at least 100 iterations apart.

        Voxels: what runs on patches train on.
        """

    def resume(self, slices: Slices | Voxels) -> None:
        """After the state of an earlier run was loaded: write into `slices.maps` again what its sweeps had written."""

    def monitor(self) -> dict[str, Tensor]:
        """0-d tensors for the log, beside the losses (thresholds, coverage), from the latest `losses` call."""
        return {}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Named [N, H, W] maps of a batch for the report, in the order to draw them.

        Float images, bool masks and integer labels; one named `x_y` is drawn over `x_image`, where there is one.
        Called a few times in a run on the same slices, not
        augmented, in eval mode, without gradients. Its random numbers come from a generator with the run's seed
        and leave the training's untouched.
        """
        return {}
