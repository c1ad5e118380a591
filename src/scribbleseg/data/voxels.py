"""Training slices and volumes as tensors, and patches of them: in memory, on the device or in a mapped file."""

import itertools
import math
import tempfile
from collections.abc import Iterator, Sequence
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

    image: Tensor  # float [N, channels, *space], in [0, 1]; the space is H, W or in 3-D D, H, W
    label: Tensor  # int64 [N, *space]: 0..C, UNLABELED where nothing is known
    maps: dict[str, Tensor] = field(default_factory=dict)  # other targets of the method, int64 [N, *space]
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

    @property
    def size(self) -> tuple[int, ...]:
        """Rows and columns of a slice."""
        return tuple(self.label.shape[1:])

    def items(self) -> Iterator[tuple[slice, Tensor]]:
        """Where each slice lies in `label`, and its image [1, channels, H, W]."""
        for index in range(len(self)):
            yield slice(index, index + 1), self.image[index : index + 1]

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
    """Training slices, or in 3-D whole cases, of different sizes in one flat buffer, from which patches are drawn.

    P voxels in all, N items with `dims` axes each (rows and columns, in 3-D slices before them). An item's drawn voxels
    are listed class by class, so that a patch can be centred on a stroke.
    """

    image: Tensor  # float16 [channels, P]
    label: Tensor  # uint8 [P], UNLABELED where nothing was drawn
    maps: dict[str, Tensor]  # uint8 [P]; a sweep may write into them
    truth: Tensor | None  # uint8 [P]
    start: Tensor  # int64 [N]: where an item begins
    shape: Tensor  # int64 [N, dims]
    points: Tensor  # int64 [Q]: drawn voxels, by item and class, as places in the buffer
    first: Tensor  # int64 [N, K]: where the points of a class begin
    count: Tensor  # int64 [N, K]: how many there are
    size: tuple[int, ...] = ()  # of the patches that a run draws

    def __len__(self) -> int:
        return len(self.start)

    @property
    def dims(self) -> int:
        return self.shape.shape[1]

    def layers(self) -> list[Tensor]:
        """Image, label, maps, and the truth where there is one."""
        return [self.image, self.label, *self.maps.values(), *([] if self.truth is None else [self.truth])]

    def to(self, device: torch.device) -> "Voxels":
        def move(value: Tensor) -> Tensor:
            return value.to(device)

        return Voxels(
            move(self.image),
            move(self.label),
            {name: move(value) for name, value in self.maps.items()},
            None if self.truth is None else move(self.truth),
            move(self.start),
            move(self.shape),
            move(self.points),
            move(self.first),
            move(self.count),
            self.size,
        )

    def items(self) -> Iterator[tuple[slice, Tensor]]:
        """Where each item lies in `label`, and its image, float [1, channels, *space]."""
        for start, shape in zip(self.start.tolist(), self.shape.tolist()):
            place = slice(start, start + math.prod(shape))
            yield place, self.image[:, place].float().view(1, -1, *shape)

    def anywhere(self, index: Tensor) -> Tensor:
        """A place in each item, float [n, dims], uniform."""
        return torch.rand(len(index), self.dims, device=index.device) * self.shape[index]

    def on_strokes(self, many: int) -> tuple[Tensor, Tensor]:
        """`many` drawn voxels: their items [many], and their places, float [many, dims].

        The class is uniform over all that are drawn anywhere, then the item over those that have it, then the voxel
        over those of the class in the item: a class in few slices is drawn as often as any other.
        """
        device = self.count.device
        drawn = self.count > 0
        chosen = (torch.rand(many, drawn.shape[1], device=device) * drawn.any(0)).argmax(1)
        index = (torch.rand(many, len(drawn), device=device) * drawn.T[chosen]).argmax(1)
        count, first = self.count[index, chosen], self.first[index, chosen]
        which = (torch.rand(many, device=device, dtype=torch.float64) * count).long()
        rest = self.points[first + which] - self.start[index]
        place = []
        for axis in reversed(range(self.dims)):
            side = self.shape[index, axis]
            place.append(rest % side)
            rest = rest // side
        return index, torch.stack(place[::-1], 1).float()

    def inside(self, index: Tensor, place: Tensor, outside: float) -> Tensor:
        """Places [n, dims] moved so that a straight patch lies in its item; `outside` of its sides may hang over.

        Along an axis on which the item is shorter than that, the patch is put in the middle.
        """
        side = torch.tensor(self.size, device=index.device)
        middle = (self.shape[index] - 1) / 2
        room = (middle - (side - 1) / 2 + outside * side).clamp(min=0)
        return torch.minimum(torch.maximum(place, middle - room), middle + room)

    def patches(self, index: Tensor, centre: Tensor, matrix: Tensor) -> Batch:
        """Patches [n, ·, *size] of the items `index` around `centre` [n, dims], each under its matrix [n, dims, dims].

        The matrix maps a place of the patch, counted from its middle, to the item's. The image is interpolated
        linearly, 0 outside of the item; labels take the nearest value, UNLABELED outside.
        """
        sides = [torch.arange(side, device=index.device) - (side - 1) / 2 for side in self.size]
        grid = torch.stack(torch.meshgrid(*sides, indexing="ij"), -1).view(-1, self.dims)
        place = torch.einsum("nij,pj->npi", matrix, grid) + centre[:, None]
        shape, start = self.shape[index][:, None], self.start[index][:, None]
        corner = place.floor()
        weight = place - corner
        image: Tensor | float = 0.0
        for step in itertools.product((0, 1), repeat=self.dims):
            flat, inside = _flat(corner.long() + torch.tensor(step, device=index.device), shape, start)
            part = inside.float()
            for axis, up in enumerate(step):
                part = part * (weight[..., axis] if up else 1 - weight[..., axis])
            image = image + self.image[:, flat].float() * part
        flat, inside = _flat(place.round().long(), shape, start)

        def take(layer: Tensor) -> Tensor:
            return torch.where(inside, layer[flat].long(), UNLABELED).view(-1, *self.size)

        assert isinstance(image, Tensor)
        image = image.view(len(image), -1, *self.size).transpose(0, 1)
        maps = {name: take(layer) for name, layer in self.maps.items()}
        return Batch(image, take(self.label), maps, None if self.truth is None else take(self.truth))


def lay_out(
    image: Tensor, maps: dict[str, Tensor], truth: Tensor | None, shapes: Sequence[tuple[int, ...]], classes: int
) -> Voxels:
    """Voxels of items that lie one behind the other, with the list of their drawn voxels. `maps` holds the label."""
    shape = torch.tensor(shapes)
    start = torch.cat([torch.zeros(1, dtype=torch.long), shape.prod(1).cumsum(0)[:-1]])
    label = maps.pop("label")
    points = (label != UNLABELED).nonzero()[:, 0]
    owner = (torch.searchsorted(start, points, right=True) - 1) * classes + label[points].long()
    owner, order = owner.sort(stable=True)
    count = torch.bincount(owner, minlength=len(start) * classes)
    first = (count.cumsum(0) - count).view(len(start), classes)
    return Voxels(image, label, maps, truth, start, shape, points[order], first, count.view(len(start), classes))


def _flat(place: Tensor, shape: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Places in the buffer of places [n, p, dims] in an item, moved into it, and which of them were inside."""
    inside = ((place >= 0) & (place < shape)).all(-1)
    place = torch.minimum(place.clamp(min=0), shape - 1)
    flat = place[..., 0]
    for axis in range(1, place.shape[-1]):
        flat = flat * shape[..., axis] + place[..., axis]
    return start + flat, inside
