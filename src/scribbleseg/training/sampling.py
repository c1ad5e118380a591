"""Which slices or patches make the batch of an iteration."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.labels import UNLABELED
from ..data.voxels import Slices, Voxels


def epoch_order(count: int, epoch: int, seed: int) -> Tensor:
    """A permutation of `count` slices, fixed by (epoch, seed), so that a resumed run draws the same batches."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


class Sampler:
    """Slice numbers of batch `iteration`: consecutive entries of shuffled epochs; a batch may span two epochs.

    `groups`: slice numbers, and how many of a batch come from each of them.
    """

    def __init__(self, groups: Sequence[tuple[Tensor, int]], seed: int):
        self.groups, self.seed = [(numbers, share) for numbers, share in groups if share], seed
        self._orders: dict[tuple[int, int], Tensor] = {}

    def __call__(self, iteration: int) -> Tensor:
        return torch.cat([self._draw(group, iteration) for group in range(len(self.groups))])

    def _draw(self, group: int, iteration: int) -> Tensor:
        numbers, share = self.groups[group]
        count, start = len(numbers), iteration * share
        epochs = range(start // count, (start + share - 1) // count + 1)
        for key in [key for key in self._orders if key[0] == group and key[1] not in epochs]:
            del self._orders[key]
        for epoch in epochs:
            if (group, epoch) not in self._orders:
                self._orders[group, epoch] = numbers[epoch_order(count, epoch, self.seed)]
        joined = torch.cat([self._orders[group, epoch] for epoch in epochs])
        offset = start - epochs[0] * count
        return joined[offset : offset + share]


def make_sampler(slices: Slices | Voxels, batch: int, seed: int, bare: float | None = None) -> Sampler:
    """A sampler of all slices alike (bare None), or with slices without strokes in at most a share `bare` of a batch.

    If less of the slices have no strokes, the batch has as many as there are. `bare` 0: they are never drawn. Each
    class that `rare_slices` finds has a place of its own in every batch, or the rarest ones, in half of it.
    """
    everything = torch.arange(len(slices))
    if bare is None:
        return Sampler([(everything, batch)], seed)
    without = bare_slices(slices)
    drawn, empty = everything[~without], everything[without]
    rare = [] if isinstance(slices, Voxels) else rare_slices(slices, batch)[: batch // 2]
    share = min(round(min(bare, len(empty) / len(slices)) * batch), batch - 1 - len(rare)) if len(drawn) else batch
    return Sampler([(drawn, batch - share - len(rare)), (empty, share), *((numbers, 1) for numbers in rare)], seed)


def rare_slices(slices: Slices, batch: int) -> list[Tensor]:
    """The numbers of the slices of each foreground class that less than one of `batch` slices shows; rarest first.

    So few that a batch would often have none. A class that is never drawn is left out.
    """
    counts = [torch.bincount(part.flatten(), minlength=UNLABELED + 1) > 0 for part in slices.label.cpu()]
    drawn = torch.stack(counts)[:, 1:UNLABELED]
    often = drawn.sum(0)
    rare = ((often > 0) & (often * batch < len(slices))).nonzero()[:, 0]
    return [drawn[:, number].nonzero()[:, 0] for number in rare[often[rare].argsort()]]


def bare_slices(slices: Slices | Voxels) -> Tensor:
    """Which slices have nothing that a loss on labels can use: no stroke, and no enclosed background. bool [N]."""
    if isinstance(slices, Voxels):
        return (slices.count.sum(1) == 0).cpu()
    known = [slices.label, *([slices.maps["enclosure"]] if "enclosure" in slices.maps else [])]
    return (
        torch.stack(
            [torch.cat([(part == UNLABELED).flatten(1).all(1) for part in layer.split(1024)]) for layer in known]
        )
        .all(0)
        .cpu()
    )
