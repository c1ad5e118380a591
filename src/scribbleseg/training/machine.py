"""What a training runs on: device, number format, and how a step is executed."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..config import Train
from ..core import distributed
from ..core.device import pick_device, pick_precision
from ..core.errors import InputError
from ..core.recipe import Recipe
from .augment import AUGMENTATIONS


@dataclass(frozen=True)
class Machine:
    """Settled once, before the data are read."""

    device: torch.device
    dtype: torch.dtype
    compiled: bool  # torch.compile of the losses
    recorded: bool  # the step is recorded as a CUDA graph and replayed
    deterministic: bool

    @property
    def autocast(self) -> torch.autocast:
        """The context in which networks compute: `dtype` where it is not float32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def pick_machine(config: Train, recipe: Recipe, dims: int = 2) -> Machine:
    """Resolve `auto` for this process. Raises InputError for a device that is not here, and for 3-D bfloat16 on a CPU.

    compile="auto": a step is compiled on CUDA if the run has 5000 iterations or more, which pays for the minutes that
    compiling takes. On CPUs compiled steps were slower (docs/speed.md). graph="auto": a step is recorded on CUDA.
    Deterministic runs and runs of several processes are not recorded, and are compiled only with compile="on". Steps
    with an augmentation of the user's own are not recorded: it may draw random numbers that a replay would repeat.
    In 3-D a CPU computes in float32: with bfloat16 the gradient of a convolution's weight reads memory that nobody has
    written, wherever a map has two slices (PyTorch 2.13, oneDNN).
    """
    device = pick_device(distributed.own_device(config.device))
    able = device.type == "cuda" and distributed.processes() == 1 and not config.deterministic
    pays = able and recipe.iterations >= 5000 and importlib.util.find_spec("triton") is not None
    compiled = pays if config.compile == "auto" else config.compile == "on"
    recorded = able and config.graph == "auto" and recipe.augmentation in AUGMENTATIONS
    precision = config.precision
    if dims == 3 and device.type == "cpu":
        if precision == "bfloat16":
            raise InputError(
                "--precision bfloat16: in 3-D PyTorch's gradients are wrong on a CPU (docs/preparation.md). "
                "Use float32, or leave it out."
            )
        precision = "float32"
    return Machine(device, pick_precision(precision, device), compiled, recorded, config.deterministic)


@contextmanager
def determinism(on: bool) -> Iterator[None]:
    """Inside the block PyTorch uses deterministic algorithms, or else the fastest that cuDNN finds."""
    if on:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = not on
    torch.use_deterministic_algorithms(on)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
