"""Training slices as tensors, and patches of them: in memory, on the device or in a mapped file."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.labels import UNLABELED


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

    def __len__(self) -> int:
        return len(self.label)

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


@dataclass
class Voxels:
    """Training slices of different sizes in one flat buffer, from which patches are drawn. P pixels in all, N slices.

    A slice's drawn pixels are listed class by class, so that a patch can be centred on a stroke.
    """

    image: Tensor  # float16 [channels, P]
    label: Tensor  # uint8 [P], UNLABELED where nothing was drawn
    maps: dict[str, Tensor]  # uint8 [P]
    truth: Tensor | None  # uint8 [P]
    start: Tensor  # int64 [N]: where a slice begins
    shape: Tensor  # int64 [N, 2]: its rows and columns
    points: Tensor  # int64 [Q]: drawn pixels, by slice and class, as places in the buffer
    first: Tensor  # int64 [N, K]: where the points of a class begin
    count: Tensor  # int64 [N, K]: how many there are

    def __len__(self) -> int:
        return len(self.start)

    def layers(self) -> list[Tensor]:
        """Image, label, maps, and the truth where there is one."""
        return [self.image, self.label, *self.maps.values(), *([] if self.truth is None else [self.truth])]

    def to(self, device: torch.device) -> "Voxels":
        def move(value: Tensor) -> Tensor:
            return value.to(device)

        maps = {name: move(value) for name, value in self.maps.items()}
        truth = None if self.truth is None else move(self.truth)
        places = (self.start, self.shape, self.points, self.first, self.count)
        return Voxels(move(self.image), move(self.label), maps, truth, *map(move, places))

    def centres(self, index: Tensor, on_strokes: float) -> Tensor:
        """A place (row, column) in each slice, float [n, 2]: with probability `on_strokes` a drawn pixel, else any.

        The class of the drawn pixel is uniform among those of the slice. Slices without strokes give any place.
        """
        uniform = torch.rand(4, len(index), device=index.device)
        shape, count = self.shape[index], self.count[index]
        chosen = (torch.rand(count.shape, device=index.device) * (count > 0)).argmax(1, keepdim=True)
        many = count.gather(1, chosen)[:, 0]
        which = self.first[index].gather(1, chosen)[:, 0] + (uniform[0] * many).long().clamp(max=many - 1)
        place = self.points[which.clamp(min=0, max=len(self.points) - 1)] - self.start[index]
        drawn = torch.stack([place // shape[:, 1], place % shape[:, 1]], 1).float()
        anywhere = uniform[1:3].T * shape
        return torch.where(((uniform[3] < on_strokes) & (many > 0))[:, None], drawn, anywhere)

    def patches(self, index: Tensor, centre: Tensor, matrix: Tensor, size: int) -> Batch:
        """Patches [n, ·, size, size] of the slices `index` around `centre` [n, 2], each under its matrix [n, 2, 2].

        The matrix maps a patch's (row, column), counted from its middle, to the slice's. The image is interpolated
        bilinearly, 0 outside of the slice; labels take the nearest value, UNLABELED outside.
        """
        side = torch.arange(size, device=index.device) - (size - 1) / 2
        grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).view(-1, 2)
        place = torch.einsum("nij,pj->npi", matrix, grid) + centre[:, None]
        shape, start = self.shape[index][:, None], self.start[index][:, None]
        corner = place.floor()
        weight = place - corner
        image: Tensor | float = 0.0
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            near = corner.long() + torch.tensor((down, right), device=index.device)
            flat, inside = _flat(near, shape, start)
            part = (weight[..., 0] if down else 1 - weight[..., 0]) * (weight[..., 1] if right else 1 - weight[..., 1])
            image = image + self.image[:, flat].float() * (part * inside)
        flat, inside = _flat(place.round().long(), shape, start)

        def take(layer: Tensor) -> Tensor:
            return torch.where(inside, layer[flat].long(), UNLABELED).view(-1, size, size)

        assert isinstance(image, Tensor)
        image = image.view(len(image), -1, size, size).transpose(0, 1)
        maps = {name: take(layer) for name, layer in self.maps.items()}
        return Batch(image, take(self.label), maps, None if self.truth is None else take(self.truth))


def _flat(place: Tensor, shape: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Places in the buffer of (row, column) [n, p, 2], moved into the slice, and which of them were inside."""
    inside = ((place >= 0) & (place < shape)).all(-1)
    row, column = torch.minimum(place.clamp(min=0), shape - 1).unbind(-1)
    return start + row * shape[..., 1] + column, inside
