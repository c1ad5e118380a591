"""Train the locator of a run: what lies inside of the strokes' rings, in whole slices."""

import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import distributed
from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..core.progress import Progress
from ..data.case import Locate
from ..data.dataset import Dataset
from ..data.reading import read_rings
from ..networks.locator import LOCATOR, SIDE, Locator, attach
from .augment import random_intensity, upright_affine, warp
from .checkpoint import open_weights
from .plan import Plan

ITERATIONS, BATCH, LR, WEIGHT_DECAY = 300, 12, 3e-3, 0.01  # AdamW, one cycle


def find_locator(
    network: nn.Module, dataset: Dataset, plan: Plan, seed: int, stored: dict | None, init: Path | None
) -> Locate:
    """Give the network of a run its locator, from the checkpoint `stored` or trained now; returns what it does.

    From that of the run `init`, if it has one, the training takes a quarter of the iterations. Raises InputError for a
    checkpoint without one, and what `load_volume` raises.
    """
    locator = attach(network, len(plan.channels))
    locator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if stored is None:
        iterations = min(ITERATIONS, plan.recipe.iterations)
        if init is not None and _taken_over(locator, init / "last.safetensors"):
            iterations = math.ceil(iterations / 4)
        fit_locator(locator, *read_rings(dataset, plan.fold.train, plan.fitted, SIDE), iterations, seed)
    else:
        start = f"network.{LOCATOR}."
        tensors = {key.removeprefix(start): value for key, value in stored["method"].items() if key.startswith(start)}
        try:
            locator.load_state_dict(tensors)
        except RuntimeError as error:
            raise InputError(
                "The checkpoint has no network that finds where rings lie, which config.json counts on. Do both belong "
                "to one run?"
            ) from error
    locator.eval().requires_grad_(False)
    return locator.box


def fit_locator(locator: Locator, image: Tensor, inside: Tensor, iterations: int, seed: int) -> None:
    """Train a locator on the CPU, on slices as of `read_rings`; without any, all is inside."""
    if not len(image):
        with torch.no_grad():
            weight, bias = locator.network.head.parameters()
            weight.zero_()
            bias.copy_(torch.tensor([0.0, 1.0]))
        return
    shown = distributed.rank() == 0
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        optimizer = torch.optim.AdamW(locator.parameters(), LR, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=iterations)
        with Progress("learning where rings lie", iterations, "it", shown=shown) as bar:
            for _ in range(iterations):
                some = torch.randint(len(image), (BATCH,))
                step(locator, optimizer, image[some], inside[some])
                schedule.step()
                bar.advance()


def step(locator: Locator, optimizer: torch.optim.Optimizer, image: Tensor, inside: Tensor) -> None:
    """One step of its training, on slices [N, channels, 64, 64] and what lies inside of their rings, [N, 64, 64]."""
    slices, target = warp(image, inside[:, None], upright_affine(len(image), image.device))
    slices = random_intensity(slices).contiguous(memory_format=torch.channels_last)
    loss = F.cross_entropy(locator(slices), target[:, 0], ignore_index=UNLABELED)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def seconds_of(channels: int, iterations: int) -> float:
    """How long the training of a locator takes on this machine, from the second of two steps on random slices."""
    with torch.random.fork_rng([]):
        locator = Locator(channels).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(locator.parameters())
        image, inside = torch.rand(BATCH, channels, SIDE, SIDE), torch.zeros(BATCH, SIDE, SIDE, dtype=torch.long)
        for _ in range(2):
            began = time.perf_counter()
            step(locator, optimizer, image, inside)
            seconds = time.perf_counter() - began
    return seconds * min(ITERATIONS, iterations)


def _taken_over(locator: Locator, weights: Path) -> bool:
    """Whether the file has a locator of this shape, whose weights are then taken."""
    with open_weights(weights) as file:
        names = [name for name in file.keys() if name.split(".")[0] == LOCATOR]
        tensors = {name.removeprefix(f"{LOCATOR}."): file.get_tensor(name) for name in names}
    if not tensors:
        return False
    locator.load_state_dict(tensors)
    return True
