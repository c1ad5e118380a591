"""The method contract: what the training loop asks of a method, and nothing else."""

import numpy as np
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.recipe import Recipe
from ..data.case import Volume
from ..data.voxels import Batch, Slices


class Method(nn.Module):
    """Owns `network` (what is evaluated, saved and shipped) and whatever else it trains or keeps.

    A subclass takes its hyperparameters as keyword-only arguments; their defaults are the paper's. It never touches the
    optimiser, the device, files or logs, never calls `.item()` and never branches on a tensor's value.
    """

    recipe = Recipe()
    network_name = "unet"  # what is built when the user names no network
    sweeps = 0  # how many times during a run `sweep` is called, evenly spread, 100 iterations apart at least

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def targets(self, volume: Volume) -> dict[str, np.ndarray]:
        """What a case is trained on, integer [D, H, W] each; "label" is required. Called once per case before training."""
        return {"label": volume.scribble}

    def notes(self, volume: Volume) -> dict[str, int]:
        """What the user should hear about a case's targets, as counts; the loop adds them up over cases and prints them."""
        return {}

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        """Named, already weighted terms; the loop sums and logs them. `progress`: 0-d tensor, 0 at the first step, 1 at the end."""
        raise InputError(
            f"{type(self).__name__} defines no losses(self, batch, progress). CONTRIBUTING.md shows a method."
        )

    def after_step(self, progress: Tensor) -> None:
        """After each optimiser step: teacher update and the like."""

    def sweep(self, slices: Slices, progress: Tensor) -> None:
        """A pass over all training slices, `sweeps` times in a run (fewer in a run of fewer than 100 iterations each)."""

    def resume(self, slices: Slices) -> None:
        """After the state of an earlier run was loaded: write into `slices.maps` again what its sweeps had written."""

    def monitor(self) -> dict[str, Tensor]:
        """0-d tensors for the log, beside the losses (thresholds, coverage, ...), from the latest `losses` call."""
        return {}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Named [N, H, W] maps of a batch for the report, in the order to draw them: float images, bool masks, integer labels.

        Called a few times in a run on the same slices, not augmented, in eval mode, without gradients, with a forked and seeded RNG.
        """
        return {}


def dense(volume: Volume, method: str) -> np.ndarray:
    """The dense mask of a case, for methods that train on it. Raises InputError when there is none."""
    if volume.truth is None:
        raise InputError(
            f"{volume.case.id}: {method} trains on dense masks, and labelsTr_dense has none for this case. Add it, or use a scribble method."
        )
    return volume.truth
