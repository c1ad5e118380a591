"""The slices of cases as a method trains on them, and augmented batches of them."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from ..core import distributed
from ..core.device import free_memory
from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..core.parallel import ahead
from ..core.progress import Progress
from ..data.cache import cached
from ..data.case import load_volume
from ..data.dataset import Dataset
from ..data.preparation import resize_image, resize_label
from ..data.voxels import Batch, Slices, Stack
from ..methods import own_code
from ..methods.base import Method
from .augment import warp
from .plan import Plan


def build_slices(dataset: Dataset, cases: tuple[str, ...], method: Method | None, size: int) -> tuple[Slices, Tensor]:
    """Read, prepare and resize cases in parallel; returns their slices on the CPU, and the case (by position) of each.

    Without a method (for validation) the label is what was drawn. `truth` is UNLABELED for a case without a dense mask,
    and None if no case has one. Slices that do not fit into memory are put into a mapped file.
    """
    cache = dataset.folder / ".scribbleseg"
    code = None if method is None else own_code(f"{type(method).__module__}:{type(method).__qualname__}")

    def load(name: str) -> tuple[Tensor, dict[str, Tensor], Tensor | None, dict[str, int]]:
        volume = load_volume(dataset, dataset.case(name))
        targets = {"label": volume.scribble}
        if method is not None:
            key = method.target_key(volume)
            key = None if key is None else key | {"code": code}
            targets = cached(cache, volume, key, lambda: method.targets(volume))
        notes = method.notes(volume) if method is not None else {}
        truth = None if volume.truth is None else resize_label(volume.truth, size)
        return (
            resize_image(volume.image, size),
            {key: resize_label(value, size) for key, value in targets.items()},
            truth,
            notes,
        )

    shown = distributed.rank() == 0
    stacks: dict[str, Stack] = {}
    counts, has_truth, limit = [], False, free_memory(torch.device("cpu")) / 5
    said: Counter[str] = Counter()
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool, Progress("reading cases", len(cases), "case", shown=shown) as bar:
        for image, targets, truth, notes in ahead(pool, load, cases, 2 * cores):
            has_truth |= truth is not None
            unknown = torch.full(image[:, 0].shape, UNLABELED, dtype=torch.uint8)
            for name, part in {"image": image, **targets, "truth": unknown if truth is None else truth}.items():
                stacks.setdefault(name, Stack(cache, limit)).append(part)
            counts.append(len(image))
            said += Counter(notes)
            bar.advance()
    for text, count in said.items() if shown else ():
        print(f"{text}: {count}", file=sys.stderr)
    if shown and stacks["image"].file is not None:
        print(
            f"the slices take {sum(stack.bytes for stack in stacks.values()) / 2**30:.1f} GiB, too much for memory: "
            f"they are kept in a file under {cache}",
            file=sys.stderr,
        )
    maps = {name: stack.tensor() for name, stack in stacks.items()}
    image, truth = maps.pop("image"), maps.pop("truth") if has_truth else None
    maps.pop("truth", None)
    return Slices(image, maps.pop("label"), maps, truth), torch.repeat_interleave(
        torch.arange(len(counts)), torch.tensor(counts)
    )


def read_training(dataset: Dataset, plan: Plan, method: Method, device: torch.device) -> Slices:
    """The slices that a run trains on, on the device if they fit there. Says what was left out.

    Raises InputError unless every class is drawn in them.
    """
    if distributed.rank() == 0:
        _say_what_is_left_out(dataset, plan)
    slices, _ = build_slices(dataset, plan.fold.train, method, plan.size)
    check_trainable(slices, plan.classes, dataset.folder)
    return resident(slices, device)


def _say_what_is_left_out(dataset: Dataset, plan: Plan) -> None:
    if unread := dataset.unread():
        print(f"{dataset.folder}: {unread}", file=sys.stderr)
    bare = [name for name in plan.fold.train if dataset.case(name).scribble is None]
    if bare:
        count = f"{len(bare)} of {len(plan.fold.train)}"
        print(f"{count} training cases have no scribble (first: {bare[0]})", file=sys.stderr)


def check_trainable(slices: Slices, classes: Sequence[str], folder: Path) -> None:
    """Raises InputError unless every class is drawn somewhere in the training cases."""
    counts = [torch.bincount(part.flatten(), minlength=UNLABELED + 1) for part in slices.label.split(1024)]
    missing = [name for name, pixels in zip(classes, torch.stack(counts).sum(0).tolist()) if not pixels]
    if set(classes[1:]) <= set(missing):
        raise InputError(
            f"{folder}: no training case has a foreground scribble. "
            f"Draw some, or check that the ignore value ({len(classes)}) is not used for all."
        )
    if missing:
        way_out = "" if classes[0] in missing else ", or take the class out of dataset.json"
        names = ", ".join(missing)
        raise InputError(f"{folder}: no training case has a scribble of class {names}. Draw some{way_out}.")


def resident(slices: Slices, device: torch.device) -> Slices:
    """The slices on the device if that leaves half its free memory to the network; else as they are, with a message."""
    size = sum(layer.nbytes for layer in slices.layers())
    if device.type == "cpu" or size < free_memory(device) / 2:
        return slices.to(device)
    print(f"the slices take {size / 2**30:.1f} GiB, too much for {device}: they stay in main memory", file=sys.stderr)
    return slices


def augment_slices(slices: Slices, matrix: Tensor, layout: torch.memory_format = torch.channels_last) -> Batch:
    """The slices as a batch, each under its affine matrix [N, 2, 3]."""
    image, *layers = slices.layers()
    image, labels = warp(image, torch.stack([layer.long() for layer in layers], 1), matrix)
    label, *others = labels.unbind(1)
    truth = None if slices.truth is None else others.pop()
    return Batch(image.contiguous(memory_format=layout), label, dict(zip(slices.maps, others)), truth)


def most_drawn(slices: Slices, count: int, device: torch.device) -> Batch:
    """The slices with most foreground scribble, as they are."""
    drawn = torch.cat([((part != UNLABELED) & (part != 0)).flatten(1).sum(1) for part in slices.label.split(1024)])
    some = slices.take(drawn.topk(min(count, len(drawn)), sorted=True).indices).to(device)
    maps = {name: value.long() for name, value in some.maps.items()}
    truth = None if some.truth is None else some.truth.long()
    return Batch(some.image.contiguous(memory_format=torch.channels_last), some.label.long(), maps, truth)


def epoch_order(count: int, epoch: int, seed: int) -> Tensor:
    """A permutation of `count` slices, fixed by (epoch, seed), so that a resumed run draws the same batches."""
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
