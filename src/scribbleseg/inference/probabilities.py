"""Class probabilities of a volume, some slices after the other, over flips or shifts and over several models."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.device import free_memory
from ..data.raster import spread
from ..networks.windows import read
from ..training.batches import layout_of
from ..training.plan import Plan
from .models import Model

SHIFT = 0.05  # of a side
BLOCK = 2**28  # bytes of the probabilities that are computed at a time


@dataclass(frozen=True)
class View:
    """A slice as the network sees it once more: flipped, or shifted; what leaves on one side enters on the other."""

    flips: tuple[int, ...] = ()
    shift: tuple[int, int] = (0, 0)

    def of(self, image: Tensor) -> Tensor:
        turned = image.flip(self.flips)
        return turned.roll(self.shift, (-2, -1)) if any(self.shift) else turned

    def back(self, probs: Tensor) -> Tensor:
        rows, columns = self.shift
        return probs.roll((-rows, -columns), (-2, -1)).flip(self.flips)


FLIPS = (View(), View(flips=(-2,)), View(flips=(-1,)), View(flips=(-2, -1)))


def shifts(side: int) -> tuple[View, ...]:
    """A slice as it is, and shifted by a twentieth of a side, up, down, left and right."""
    step = max(1, round(SHIFT * side))
    return (View(), *(View(shift=shift) for shift in ((step, 0), (-step, 0), (0, step), (0, -step))))


def averaged(plan: Plan) -> str:
    """What --tta averages over: flips, if the training flipped slices, else shifts."""
    return "flips" if plan.preparation == "slices" and plan.recipe.augmentation == "papers" else "shifts"


def views(plan: Plan, tta: bool) -> tuple[View, ...]:
    """What probabilities are averaged over: one view, or with `tta` those that `averaged` names."""
    if not tta:
        return (View(),)
    return FLIPS if averaged(plan) == "flips" else shifts(plan.size)


def volume_probs(
    model: Model, image: np.ndarray, spacing: tuple[float, float, float], device: torch.device, batch: int, tta: bool
) -> Iterator[Tensor]:
    """Class probabilities float32 [K, D, H, W] of a normalised image [channels, D, H, W], `batch` slices at a time.

    They are computed on the grid that the network sees, of whole slices or blended windows, and resampled to the
    image's (linear). spacing: of slices, rows and columns, mm.
    """
    plan, shape = model.plan, image.shape[1:]
    layout, autocast = layout_of(plan.dims), model.dtype != torch.float32
    seen, resident = views(plan, tta), device.type == "cpu"

    def score(part: Tensor) -> Tensor:
        part = part.to(device, memory_format=layout)
        with torch.autocast(device.type, model.dtype, enabled=autocast):
            probs = average_softmax(model.network, part, seen)
        return probs if resident else probs.cpu()

    if plan.dims == 3:
        volume = plan.raster.image(image, spacing)
        depth, rows, columns = volume.shape[2:]
        sums = len(plan.classes) * plan.depth * rows * columns * 4  # of the windows, in bytes; a few are needed
        resident = resident or 8 * sums < free_memory(device)
        parts = read(score, volume, plan.patch)
        yield from (part.cpu() for part in spread(parts, depth, (shape[0], shape[1], shape[2]), batch))
        return
    resident = True
    for start in range(0, shape[0], batch):
        slices = plan.raster.image(image[:, start : start + batch], spacing)
        probs = torch.cat(list(read(score, slices, plan.patch)), 2)
        if probs.shape[2:] != shape[1:]:
            probs = F.interpolate(probs, shape[1:], mode="bilinear", align_corners=False)
        yield probs.cpu().movedim(1, 0)


@torch.no_grad()
def mean_probs(
    models: Sequence[Model],
    images: Sequence[np.ndarray],
    spacing: tuple[float, float, float],
    device: torch.device,
    batch: int = 32,
    tta: bool = False,
) -> Iterator[np.ndarray]:
    """Mean over the models of `volume_probs`, float32 [K, ≤ batch, H, W] of some slices after the other.

    images: one per model, of one shape, normalised as its run has it. spacing: of slices, rows and columns, mm.
    """
    parts = (
        volume_probs(model, image, spacing, device, batch, tta) for model, image in zip(models, images, strict=True)
    )
    for found in zip(*parts):
        yield np.asarray(sum(found) / len(models))


@dataclass(frozen=True)
class Segmented:
    """A volume's label, uint8 [D, H, W], and what else was asked for: float32 [K, D, H, W] and [D, H, W]."""

    label: np.ndarray
    probs: np.ndarray | None
    entropy: np.ndarray | None


def segment(
    models: Sequence[Model],
    images: Sequence[np.ndarray],
    spacing: tuple[float, float, float],
    device: torch.device,
    batch: int = 32,
    tta: bool = False,
    probabilities: bool = False,
    uncertainty: bool = False,
    advance: Callable[[int], None] = lambda slices: None,
) -> Segmented:
    """The most probable class of every voxel by `mean_probs`, at most `batch` slices at a time.

    Fewer where their probabilities would exceed 256 MiB. Probabilities of all slices are in memory only if they are
    asked for. `advance` is called with the number of slices that are done. Raises ValueError if a probability is not
    finite.
    """
    shape, classes = images[0].shape[1:], len(models[0].plan.classes)
    found = Segmented(
        np.empty(shape, np.uint8),
        np.empty((classes, *shape), np.float32) if probabilities else None,
        np.empty(shape, np.float32) if uncertainty else None,
    )
    grids = [model.plan.raster.shape(shape, spacing) for model in models]
    pixels = max(rows * columns for _, rows, columns in (shape, *grids))
    batch = max(1, min(batch, shape[0], BLOCK // (classes * pixels * 4)))
    start = 0
    for probs in mean_probs(models, images, spacing, device, batch, tta):
        part = slice(start, start := start + probs.shape[1])
        if not np.isfinite(probs).all():
            raise ValueError("NaN or infinite")
        found.label[part] = probs.argmax(0)
        if found.probs is not None:
            found.probs[:, part] = probs
        if found.entropy is not None:
            found.entropy[part] = entropy(probs)
        advance(probs.shape[1])
    return found


def average_softmax(network: nn.Module, image: Tensor, seen: Sequence[View]) -> Tensor:
    """Mean softmax over views of [N, C, *space], each turned back."""
    parts = (view.back(network(view.of(image)).softmax(1)) for view in seen)
    return functools.reduce(torch.add, parts) / len(seen)


def entropy(probs: np.ndarray) -> np.ndarray:
    """−Σ p ln p / ln K over the first axis, float32 in [0, 1]: 0 where one class is certain, 1 where all are equal."""
    bounded = np.clip(probs, np.finfo(np.float32).tiny, 1)
    return np.clip(-(bounded * np.log(bounded)).sum(0) / math.log(len(probs)), 0, 1).astype(np.float32)
