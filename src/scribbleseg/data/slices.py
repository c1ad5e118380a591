"""All slices of a set of cases as tensors, and batches drawn from them."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..labels import UNLABELED


def resize_image(image: np.ndarray, size: int) -> Tensor:
    """[channels, D, H, W] → float32 [D, channels, size, size], bilinear with antialiasing."""
    stack = torch.from_numpy(np.ascontiguousarray(image.swapaxes(0, 1)))
    if stack.shape[2:] == (size, size):
        return stack
    return F.interpolate(stack, (size, size), mode="bilinear", antialias=True, align_corners=False)


def resize_label(label: np.ndarray, size: int) -> Tensor:
    """[D, H, W], uint8 or int32 → [D, size, size] of the same type, nearest neighbour."""
    stack = torch.from_numpy(np.ascontiguousarray(label))
    if stack.shape[1:] == (size, size):
        return stack
    rows, columns = (((torch.arange(size) + 0.5) * length / size).long() for length in stack.shape[1:])
    return stack[:, rows][:, :, columns]


def epoch_order(count: int, epoch: int, seed: int) -> Tensor:
    """A permutation of `count` slices, the same for the same (epoch, seed): a resumed run draws what it would have drawn."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


class Sampler:
    """Slice numbers of batch `iteration`: consecutive entries of shuffled epochs; a batch may span two epochs."""

    def __init__(self, count: int, batch: int, seed: int):
        self.count, self.batch, self.seed = count, batch, seed
        self._orders: dict[int, Tensor] = {}

    def __call__(self, iteration: int) -> Tensor:
        start = iteration * self.batch
        epochs = range(start // self.count, (start + self.batch - 1) // self.count + 1)
        self._orders = {epoch: self._orders[epoch] if epoch in self._orders else epoch_order(self.count, epoch, self.seed) for epoch in epochs}
        joined = torch.cat([self._orders[epoch] for epoch in epochs])
        offset = start - epochs[0] * self.count
        return joined[offset : offset + self.batch]


def stack_labels(labels: Iterable[Tensor | None], shapes: Iterable[torch.Size]) -> Tensor | None:
    """Concatenate per-case labels; a case without one is UNLABELED throughout; None when no case has one."""
    labels = list(labels)
    if all(label is None for label in labels):
        return None
    return torch.cat([torch.full(shape, UNLABELED, dtype=torch.uint8) if label is None else label for label, shape in zip(labels, shapes)])
