"""What a run knows at an iteration: everything that a checkpoint holds."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..core import distributed
from ..core.errors import InputError
from ..data.voxels import Slices, Voxels
from ..methods.base import Method
from .average import Average


class Tally:
    """Sums of what the steps returned, their number and seconds, since the last line of the log."""

    def __init__(self, device: torch.device):
        self.device = device
        self.reset()

    def reset(self) -> None:
        self.sums, self.steps, self.seconds = torch.zeros((), device=self.device), 0, 0.0

    def add(self, row: Tensor) -> None:
        self.sums = self.sums + row
        self.steps += 1

    def means(self) -> list[float]:
        """Mean of each value over steps and processes. Every process has to call it."""
        return distributed.process_mean(self.sums / self.steps).tolist()


class State:
    """Method (network, teacher, thresholds), optimiser, mean of the weights, iteration, best Dice, tally."""

    def __init__(self, method: Method, optimizer: torch.optim.Optimizer, average: Average | None, device: torch.device):
        self.method, self.optimizer, self.average, self.device = method, optimizer, average, device
        self.iteration, self.best = 0, -1.0
        self.tally = Tally(device)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated, saved and shipped: the mean of the weights where the recipe asks for it."""
        return self.method.network if self.average is None else self.average.network

    def stored(self) -> dict:
        """The content of RUN/resume.pt."""
        stored = {
            "iteration": self.iteration,
            "best": self.best,
            "unlogged": (self.tally.sums.cpu(), self.tally.steps, self.tally.seconds),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        if self.average is not None:
            stored["average"] = self.average.state_dict()
        if self.device.type == "cuda":
            stored["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        return stored

    def restore(self, stored: dict, slices: Slices | Voxels, path: Path) -> None:
        """Go on from `stored`, the content of `path`.

        A run may go on on another kind of device than it began on; its random numbers are others then. Raises
        InputError when the checkpoint belongs to another architecture.
        """
        try:
            self.method.load_state_dict(stored["method"])
            self._restore_optimizer(stored["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(stored["average"])
            sums, steps, seconds = stored["unlogged"]
            self.tally.sums, self.tally.steps, self.tally.seconds = sums.to(self.device), int(steps), float(seconds)
            torch.Generator().set_state(stored["rng"])  # whether it is one
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()
            raise InputError(
                f"{path}: this checkpoint belongs to another architecture than {type(self.method).__name__} on "
                f"{type(self.method.network).__name__} ({reason}). "
                "Do config.json and resume.pt belong to one run?"
            ) from error
        self.iteration, self.best = stored["iteration"], stored["best"]
        self.method.resume(slices)
        torch.set_rng_state(stored["rng"])
        if self.device.type == "cuda" and "cuda_rng" in stored:
            torch.cuda.set_rng_state(stored["cuda_rng"], self.device)

    def _restore_optimizer(self, stored: dict) -> None:
        """Moments and rates from the checkpoint; how a step is computed stays this device's (fused, capturable)."""
        groups = [
            before | {key: own[key] for key in ("fused", "capturable", "foreach") if key in own}
            for before, own in zip(stored["param_groups"], self.optimizer.param_groups, strict=True)
        ]
        self.optimizer.load_state_dict({**stored, "param_groups": groups})
