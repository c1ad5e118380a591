"""The method contract: what the training loop asks of a method, and nothing else."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ..data.dataset import Volume
from ..errors import InputError


@dataclass(frozen=True)
class Batch:
    """A drawn and augmented batch, on the training device."""

    image: Tensor  # float [N, channels, H, W], in [0, 1]
    label: Tensor  # int64 [N, H, W]: 0..C, UNLABELED where nothing is known
    maps: dict[str, Tensor] = field(
        default_factory=dict
    )  # the method's further targets, int64 [N, H, W], augmented alike
    truth: Tensor | None = None  # dense label where there is one, for monitoring only: no loss may read it


@dataclass
class Slices:
    """Training slices, not augmented: all of them on the training device; on the host, in memory or in a mapped file, where they do not fit."""

    image: Tensor  # float [N, channels, H, W]
    label: Tensor  # uint8 [N, H, W]
    maps: dict[str, Tensor]  # uint8 or int32 [N, H, W]; a sweep may write into them
    truth: Tensor | None  # uint8 [N, H, W], UNLABELED for cases without a dense mask

    def to(self, device: torch.device) -> "Slices":
        maps = {name: value.to(device) for name, value in self.maps.items()}
        return Slices(
            self.image.to(device), self.label.to(device), maps, None if self.truth is None else self.truth.to(device)
        )

    def take(self, index: Tensor) -> "Slices":
        """The slices of these numbers, copied."""
        maps = {name: value[index] for name, value in self.maps.items()}
        return Slices(self.image[index], self.label[index], maps, None if self.truth is None else self.truth[index])

    def layers(self) -> list[Tensor]:
        """Image, label, maps, and the truth where there is one."""
        return [self.image, self.label, *self.maps.values(), *([] if self.truth is None else [self.truth])]


@dataclass(frozen=True)
class Recipe:
    """How a method is trained, as its paper has it. Printed with the results."""

    optimizer: str = "sgd"  # sgd | adam | adamw
    lr: float = 0.01
    schedule: str = "poly"  # poly (power .9 per iteration) | cosine | onecycle | step | constant
    weight_decay: float = 1e-4
    batch: int = 12
    iterations: int = 60_000
    step_at: tuple[float, ...] = ()  # schedule="step": the shares of the run after which the rate is multiplied by
    gamma: float = 0.1
    ema: float = 0.0  # above 0: what is evaluated is the exponential mean of the weights with this decay


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
