"""Class probabilities of a volume: slice by slice, over flips and over several models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.preparation import network_shape, resample_image
from ..training.plan import Plan
from .models import Model

FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))


@torch.no_grad()
def predict_volume(
    network: nn.Module,
    image: np.ndarray,
    size: tuple[int, int],
    device: torch.device,
    dtype: torch.dtype,
    batch: int = 32,
    tta: bool = False,
) -> np.ndarray:
    """Class probabilities float32 [K, D, H, W] of a normalised image [channels, D, H, W].

    `batch` slices at a time are resized to `size`, filled up with zeros to a multiple of 16, segmented, and their
    probabilities resized back (bilinear).
    """
    planes = []
    below, right = (-side % 16 for side in size)
    for part in resample_image(image, size).split(batch):
        part = F.pad(part, (0, right, 0, below)).to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            probs = average_softmax(network, part, FLIPS if tta else FLIPS[:1])
        probs = probs[:, :, : size[0], : size[1]]
        if size != image.shape[2:]:
            probs = F.interpolate(probs, image.shape[2:], mode="bilinear", align_corners=False)
        planes.append(probs.cpu())
    return torch.cat(planes).movedim(1, 0).numpy()


def mean_probs(
    models: Sequence[Model],
    images: Sequence[np.ndarray],
    spacing: tuple[float, float],
    device: torch.device,
    batch: int = 32,
    tta: bool = False,
) -> np.ndarray:
    """Mean over the models of `predict_volume`, each on its own image and at its own size, float32 [K, D, H, W].

    images: of one shape, normalised as each model's run has it. spacing: distance of rows and of columns, mm.
    """
    found = (
        predict_volume(m.network, image, network_size(m.plan, image.shape[2:], spacing), device, m.dtype, batch, tta)
        for m, image in zip(models, images, strict=True)
    )
    return np.asarray(sum(found) / len(models))


@dataclass(frozen=True)
class Segmented:
    """A volume's label, uint8 [D, H, W], and what else was asked for: float32 [K, D, H, W] and [D, H, W]."""

    label: np.ndarray
    probs: np.ndarray | None
    entropy: np.ndarray | None


def segment(
    models: Sequence[Model],
    images: Sequence[np.ndarray],
    spacing: tuple[float, float],
    device: torch.device,
    batch: int = 32,
    tta: bool = False,
    probabilities: bool = False,
    uncertainty: bool = False,
) -> Segmented:
    """The most probable class of every voxel by `mean_probs`, `batch` slices at a time.

    Probabilities of all slices are in memory only if they are asked for. Raises ValueError if one is not finite.
    """
    shape, classes = images[0].shape[1:], len(models[0].plan.classes)
    found = Segmented(
        np.empty(shape, np.uint8),
        np.empty((classes, *shape), np.float32) if probabilities else None,
        np.empty(shape, np.float32) if uncertainty else None,
    )
    batch = min(batch, shape[0])
    for start in range(0, shape[0], batch):
        part = slice(start, start + batch)
        probs = mean_probs(models, [image[:, part] for image in images], spacing, device, batch, tta)
        if not np.isfinite(probs).all():
            raise ValueError("NaN or infinite")
        found.label[part] = probs.argmax(0)
        if found.probs is not None:
            found.probs[:, part] = probs
        if found.entropy is not None:
            found.entropy[part] = entropy(probs)
    return found


def network_size(plan: Plan, shape: tuple[int, ...], spacing: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns at which a run sees slices of this shape and spacing."""
    if plan.preparation == "slices":
        return plan.size, plan.size
    known = spacing if plan.fitted.unit == "mm" else (1.0, 1.0)
    return network_shape((shape[0], shape[1]), known, plan.fitted.pixel)


def average_softmax(network: nn.Module, image: Tensor, flips: Sequence[tuple[int, ...]]) -> Tensor:
    """Mean softmax over flips of [N, C, H, W], each turned back."""
    return sum(network(image.flip(dims)).softmax(1).flip(dims) for dims in flips) / len(flips)


def entropy(probs: np.ndarray) -> np.ndarray:
    """−Σ p ln p / ln K over the first axis, float32 in [0, 1]: 0 where one class is certain, 1 where all are equal."""
    bounded = np.clip(probs, np.finfo(np.float32).tiny, 1)
    return np.clip(-(bounded * np.log(bounded)).sum(0) / math.log(len(probs)), 0, 1).astype(np.float32)
