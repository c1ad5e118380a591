"""All slices of a set of cases as tensors, and batches drawn from them."""

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError


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
        self._orders = {
            epoch: self._orders[epoch] if epoch in self._orders else epoch_order(self.count, epoch, self.seed)
            for epoch in epochs
        }
        joined = torch.cat([self._orders[epoch] for epoch in epochs])
        offset = start - epochs[0] * self.count
        return joined[offset : offset + self.batch]


class Stack:
    """Tensors of equal shape but for their first axis, put one after the other: in memory, or in a mapped file once they are more than `limit` bytes.

    The file lies in `folder`, has no name and goes with the process. With other work in memory pages of it are dropped and read again.
    """

    def __init__(self, folder: Path, limit: float):
        self.folder, self.limit = folder, limit
        self.parts: list[Tensor] = []
        self.file, self.rows, self.bytes = None, 0, 0

    def append(self, part: Tensor) -> None:
        self.parts.append(part)
        self.rows += len(part)
        self.bytes += part.nbytes
        if self.file is None and self.bytes > self.limit:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self.file = tempfile.TemporaryFile(dir=self.folder)
            except OSError as error:
                raise InputError(
                    f"{self.folder}: the slices do not fit into memory, and no file can be made here ({error.strerror}). Change its permissions, copy the data set, or train at a smaller --size."
                ) from error
        if self.file is not None:
            self._spill()

    def tensor(self) -> Tensor:
        """All parts; the stack is empty afterwards."""
        if self.file is None:
            whole, self.parts = torch.cat(self.parts), []
            return whole
        shape = (self.rows, *self.shape)
        with self.file:
            return torch.from_numpy(np.memmap(self.file, self.dtype, "r+", shape=shape))

    def _spill(self) -> None:
        self.shape, self.dtype = tuple(self.parts[0].shape[1:]), self.parts[0].numpy().dtype
        try:
            for part in self.parts:
                self.file.write(part.numpy().data)
            self.file.flush()
        except OSError as error:
            raise InputError(
                f"{self.folder}: the slices do not fit into memory, and not onto this disk ({error}). Free some space, or train at a smaller --size."
            ) from error
        self.parts = []
