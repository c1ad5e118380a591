"""The slices of cases as a method trains on them, and augmented batches of them."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..core import distributed
from ..core.console import say
from ..core.device import free_memory
from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..core.parallel import ahead
from ..core.progress import Progress
from ..data.cache import cached
from ..data.case import Volume, load_volume
from ..data.dataset import Dataset
from ..data.enclosure import enclosure
from ..data.intensity import unit_range
from ..data.preparation import (
    PAPERS,
    Fitted,
    network_shape,
    resample_image,
    resample_label,
    resample_strokes,
    resize_image,
    resize_label,
)
from ..data.voxels import Batch, Slices, Stack, Voxels
from ..methods import own_code
from ..methods.base import Method
from .augment import patch_affine, random_intensity, warp
from .plan import Plan

ON_STROKES = 1 / 2  # share of the patches that are centred on a stroke


def build_slices(
    dataset: Dataset, cases: tuple[str, ...], method: Method | None, size: int, fitted: Fitted = PAPERS
) -> tuple[Slices, Tensor]:
    """Read, prepare and resize cases in parallel; returns their slices on the CPU, and the case (by position) of each.

    Without a method (for validation) the label is what was drawn. `truth` is UNLABELED for a case without a dense mask,
    and None if no case has one. Slices that do not fit into memory are put into a mapped file.
    """
    cache = dataset.folder / ".scribbleseg"
    code = None if method is None else own_code(f"{type(method).__module__}:{type(method).__qualname__}")

    def load(name: str) -> tuple[Tensor, dict[str, Tensor], Tensor | None, dict[str, int]]:
        volume = load_volume(dataset, dataset.case(name), fitted)
        targets, notes = {"label": volume.scribble}, {}
        if method is not None:
            seen = for_targets(volume, fitted)
            key = method.target_key(seen)
            key = None if key is None else key | {"code": code}
            targets, notes = cached(cache, seen, key, lambda: method.targets(seen)), method.notes(seen)
        shrink = resample_strokes if fitted.keep_strokes else resample_label
        maps = {key: shrink(value, (size, size)) for key, value in targets.items()}
        if fitted.enclosure != "off":
            enclosed = enclosure(volume.scribble, dataset.reach(volume.grid), fitted.enclosure)
            maps["enclosure"] = resize_label(enclosed, size)
        truth = None if volume.truth is None else resize_label(volume.truth, size)
        return resize_image(volume.image, size), maps, truth, notes

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
        say(f"{text}: {count}")
    if shown and stacks["image"].file is not None:
        say(
            f"the slices take {sum(stack.bytes for stack in stacks.values()) / 2**30:.1f} GiB, too much for memory: "
            f"they are kept in a file under {cache}"
        )
    maps = {name: stack.tensor() for name, stack in stacks.items()}
    image, truth = maps.pop("image"), maps.pop("truth") if has_truth else None
    maps.pop("truth", None)
    return Slices(image, maps.pop("label"), maps, truth), torch.repeat_interleave(
        torch.arange(len(counts)), torch.tensor(counts)
    )


def for_targets(volume: Volume, fitted: Fitted) -> Volume:
    """The volume as `targets` expects it, each channel in [0, 1], whatever the network sees."""
    return replace(volume, image=unit_range(volume.image)) if fitted.intensity else volume


def read_training(dataset: Dataset, plan: Plan, method: Method, device: torch.device) -> Slices | Voxels:
    """The slices that a run trains on, on the device if they fit there. Says what was left out.

    Raises InputError unless every class is drawn in them.
    """
    if distributed.rank() == 0:
        _say_what_is_left_out(dataset, plan)
    if plan.preparation == "patches":
        voxels = build_voxels(dataset, plan.fold.train, method, plan.fitted)
        check_trainable(voxels.label[None], plan.classes, dataset.folder)
        return voxels.to(device)
    slices, _ = build_slices(dataset, plan.fold.train, method, plan.size, plan.fitted)
    check_trainable(slices.label, plan.classes, dataset.folder)
    return resident(slices, device)


def build_voxels(dataset: Dataset, cases: tuple[str, ...], method: Method, fitted: Fitted) -> Voxels:
    """Read cases in parallel and lay their slices, at the network's pixel size, one behind the other."""

    def load(name: str) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        volume = load_volume(dataset, dataset.case(name), fitted)
        spacing = dataset.spacing_of(volume.grid)
        shape = network_shape(volume.image.shape[2:], spacing, fitted.pixel)
        targets = {
            name: resample_strokes(value, shape) for name, value in method.targets(for_targets(volume, fitted)).items()
        }
        if fitted.enclosure != "off":
            enclosed = enclosure(volume.scribble, dataset.reach(volume.grid), fitted.enclosure)
            targets["enclosure"] = resample_label(enclosed, shape)
        truth = None if volume.truth is None else resample_label(volume.truth, shape)
        return resample_image(volume.image, shape).half(), targets, truth

    images, labels, truths, shapes = [], [], [], []
    cores = os.cpu_count() or 1
    with (
        ThreadPoolExecutor(cores) as pool,
        Progress("reading cases", len(cases), "case", distributed.rank() == 0) as bar,
    ):
        for image, targets, truth in ahead(pool, load, cases, 2 * cores):
            images.append(image.transpose(0, 1).flatten(1))
            labels.append({name: value.flatten() for name, value in targets.items()})
            truths.append(torch.full_like(labels[-1]["label"], UNLABELED) if truth is None else truth.flatten())
            shapes += [tuple(image.shape[2:])] * len(image)
            bar.advance()
    maps = {name: torch.cat([part[name] for part in labels]) for name in labels[0]}
    known = any(dataset.case(name).truth is not None for name in cases)
    return lay_out(torch.cat(images, 1), maps, torch.cat(truths) if known else None, shapes, len(dataset.classes))


def lay_out(
    image: Tensor, maps: dict[str, Tensor], truth: Tensor | None, shapes: list[tuple[int, ...]], classes: int
) -> Voxels:
    """Voxels of slices that lie one behind the other, with the list of their drawn pixels."""
    shape = torch.tensor(shapes)
    start = torch.cat([torch.zeros(1, dtype=torch.long), shape.prod(1).cumsum(0)[:-1]])
    label = maps.pop("label")
    points = (label != UNLABELED).nonzero()[:, 0]
    owner = (torch.searchsorted(start, points, right=True) - 1) * classes + label[points].long()
    owner, order = owner.sort(stable=True)
    count = torch.bincount(owner, minlength=len(start) * classes)
    first = (count.cumsum(0) - count).view(len(start), classes)
    return Voxels(image, label, maps, truth, start, shape, points[order], first, count.view(len(start), classes))


def _say_what_is_left_out(dataset: Dataset, plan: Plan) -> None:
    for message in dataset.left_out():
        say(f"{dataset.folder}: {message}")
    bare = [name for name in plan.fold.train if dataset.case(name).scribble is None]
    if bare:
        count = f"{len(bare)} of {len(plan.fold.train)}"
        say(f"{count} training cases have no scribble (first: {bare[0]})")


def check_trainable(label: Tensor, classes: Sequence[str], folder: Path) -> None:
    """Raises InputError unless every class is drawn somewhere in the label [N, ...] of the training cases."""
    counts = [torch.bincount(part.flatten(), minlength=UNLABELED + 1) for part in label.split(1024)]
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
    say(f"the slices take {size / 2**30:.1f} GiB, too much for {device}: they stay in main memory")
    return slices


def augment_slices(slices: Slices, matrix: Tensor, layout: torch.memory_format = torch.channels_last) -> Batch:
    """The slices as a batch, each under its affine matrix [N, 2, 3]."""
    image, *layers = slices.layers()
    image, labels = warp(image, torch.stack([layer.long() for layer in layers], 1), matrix)
    label, *others = labels.unbind(1)
    truth = None if slices.truth is None else others.pop()
    return Batch(image.contiguous(memory_format=layout), label, dict(zip(slices.maps, others)), truth)


def draw_patches(voxels: Voxels, index: Tensor, part: slice, size: int, layout: torch.memory_format) -> Batch:
    """Patches of the slices `index`, half of them centred on a stroke, rotated, scaled, with other intensities.

    Random numbers of place and shape are drawn for the whole batch, even if this process has only a `part` of it.
    """
    centre, matrix = voxels.centres(index, ON_STROKES)[part], patch_affine(len(index), index.device)[part]
    batch = voxels.patches(index[part], centre, matrix, size)
    return replace(batch, image=random_intensity(batch.image).contiguous(memory_format=layout))


def most_drawn(slices: Slices | Voxels, count: int, device: torch.device, size: int = 0) -> Batch:
    """The slices with most foreground scribble, as they are; of Voxels the patch in the middle of a slice."""
    if isinstance(slices, Voxels):
        index = slices.count[:, 1:].sum(1).topk(min(count, len(slices)), sorted=True).indices
        straight = torch.eye(2, device=index.device).expand(len(index), 2, 2)
        batch = slices.patches(index, slices.shape[index] / 2 - 0.5, straight, size)
        return replace(batch, image=batch.image.contiguous(memory_format=torch.channels_last))
    drawn = torch.cat([((part != UNLABELED) & (part != 0)).flatten(1).sum(1) for part in slices.label.split(1024)])
    some = slices.take(drawn.topk(min(count, len(drawn)), sorted=True).indices).to(device)
    maps = {name: value.long() for name, value in some.maps.items()}
    truth = None if some.truth is None else some.truth.long()
    return Batch(some.image.contiguous(memory_format=torch.channels_last), some.label.long(), maps, truth)


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

    If less of the slices have no strokes, the batch has as many as there are. `bare` 0: they are never drawn.
    """
    everything = torch.arange(len(slices))
    if bare is None:
        return Sampler([(everything, batch)], seed)
    without = bare_slices(slices)
    drawn, empty = everything[~without], everything[without]
    share = min(round(min(bare, len(empty) / len(slices)) * batch), batch - 1) if len(drawn) else batch
    return Sampler([(drawn, batch - share), (empty, share)], seed)


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
