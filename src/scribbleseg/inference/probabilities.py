"""Class probabilities of a volume: slice by slice, over flips and over several models."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.preparation import resize_image
from .models import Model

FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))


@torch.no_grad()
def predict_volume(
    network: nn.Module,
    image: np.ndarray,
    size: int,
    device: torch.device,
    dtype: torch.dtype,
    batch: int = 32,
    tta: bool = False,
) -> np.ndarray:
    """Class probabilities float32 [K, D, H, W] of a normalised image [channels, D, H, W].

    `batch` slices at a time are resized to `size`, segmented, and their probabilities resized back (bilinear).
    """
    planes = []
    for part in resize_image(image, size).split(batch):
        part = part.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            probs = average_softmax(network, part, FLIPS if tta else FLIPS[:1])
        if probs.shape[2:] != image.shape[2:]:
            probs = F.interpolate(probs, image.shape[2:], mode="bilinear", align_corners=False)
        planes.append(probs.cpu())
    return torch.cat(planes).movedim(1, 0).numpy()


def mean_probs(
    models: Sequence[Model], image: np.ndarray, device: torch.device, batch: int = 32, tta: bool = False
) -> np.ndarray:
    """Mean over the models of `predict_volume`, each at its own size, float32 [K, D, H, W]."""
    found = (predict_volume(m.network, image, m.plan.size, device, m.dtype, batch, tta) for m in models)
    return np.asarray(sum(found) / len(models))


def average_softmax(network: nn.Module, image: Tensor, flips: Sequence[tuple[int, ...]]) -> Tensor:
    """Mean softmax over flips of [N, C, H, W], each turned back."""
    return sum(network(image.flip(dims)).softmax(1).flip(dims) for dims in flips) / len(flips)


def entropy(probs: np.ndarray) -> np.ndarray:
    """−Σ p ln p / ln K over the first axis, float32 in [0, 1]: 0 where one class is certain, 1 where all are equal."""
    bounded = np.clip(probs, np.finfo(np.float32).tiny, 1)
    return np.clip(-(bounded * np.log(bounded)).sum(0) / math.log(len(probs)), 0, 1).astype(np.float32)
