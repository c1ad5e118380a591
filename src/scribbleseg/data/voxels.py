"""Training slices as tensors: in memory, on the device or in a mapped file."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError


@dataclass(frozen=True)
class Batch:
    """A drawn and augmented batch, on the training device."""

    image: Tensor  # float [N, channels, H, W], in [0, 1]
    label: Tensor  # int64 [N, H, W]: 0..C, UNLABELED where nothing is known
    maps: dict[str, Tensor] = field(default_factory=dict)  # other targets of the method, int64 [N, H, W]
    truth: Tensor | None = None  # dense label where there is one, for monitoring only: no loss may read it


@dataclass
class Slices:
    """All training slices, not augmented: on the training device or, if they do not fit, in memory or a mapped file."""

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


class Stack:
    """Tensors joined along their first axis: in memory, or in a mapped file once they exceed `limit` bytes.

    The file is in `folder`, has no name and is deleted when the process ends. If memory is short, the system drops
    pages of the file and reads them again when they are needed.
    """

    def __init__(self, folder: Path, limit: float):
        self.folder, self.limit = folder, limit
        self.parts: list[Tensor] = []
        self.rows, self.bytes = 0, 0
        self.file: IO[bytes] | None = None

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
                    f"{self.folder}: the slices do not fit into memory, and no file can be made here "
                    f"({error.strerror}). Change its permissions, copy the data set, or train at a smaller --size."
                ) from error
        if self.file is not None:
            self._spill(self.file)

    def tensor(self) -> Tensor:
        """All parts joined. The stack is empty afterwards."""
        if self.file is None:
            whole, self.parts = torch.cat(self.parts), []
            return whole
        shape = (self.rows, *self.shape)
        with self.file:
            return torch.from_numpy(np.memmap(self.file, self.dtype, "r+", shape=shape))

    def _spill(self, file: IO[bytes]) -> None:
        self.shape, self.dtype = tuple(self.parts[0].shape[1:]), self.parts[0].numpy().dtype
        try:
            for part in self.parts:
                file.write(part.numpy().data)
            file.flush()
        except OSError as error:
            raise InputError(
                f"{self.folder}: the slices do not fit into memory, nor on this disk ({error}). "
                "Free some space, or train at a smaller --size."
            ) from error
        self.parts = []
