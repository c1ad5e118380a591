"""The slices of cases as a method trains on them, and augmented batches of them."""

import functools
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core import distributed
from ..core.console import say
from ..core.device import free_memory
from ..core.errors import InputError, first_names
from ..core.labels import UNLABELED
from ..core.parallel import ahead
from ..core.progress import Progress
from ..data.cache import cached
from ..data.case import Locate, Volume, load_volume, read_scribble
from ..data.dataset import Dataset
from ..data.depth import deepen_image, deepen_label, deepen_strokes
from ..data.enclosure import enclosure
from ..data.intensity import unit_range
from ..data.nifti import AS_ITK, two_places
from ..data.preparation import (
    PAPERS,
    Fitted,
    resample_image,
    resample_label,
    resample_strokes,
    resize_image,
    resize_label,
)
from ..data.voxels import Batch, Slices, Stack, Voxels, lay_out
from ..methods import own_code
from ..methods.base import Method
from .augment import Augmentation, patch_affine, random_intensity, random_sharpness, warp
from .dims import between_slices, depth_multiple, most_voxels, patch_of_volume, slice_side
from .grid import check_scale, grid_shape
from .plan import Plan

OUTSIDE = 1 / 8  # share of a patch's side by which it may leave the slice or volume


def build_slices(
    dataset: Dataset,
    cases: tuple[str, ...],
    method: Method | None,
    size: int,
    fitted: Fitted = PAPERS,
    locate: Locate | None = None,
) -> tuple[Slices, Tensor]:
    """Read, prepare and resize cases in parallel; returns their slices on the CPU, and the case (by position) of each.

    Without a method (for validation) the label is what was drawn. `truth` is UNLABELED for a case without a dense mask,
    and None if no case has one. Slices that do not fit into memory are put into a mapped file.
    """
    cache = dataset.folder / ".scribbleseg"
    code = None if method is None else own_code(f"{type(method).__module__}:{type(method).__qualname__}")

    twice: list[str] = []

    def load(name: str) -> tuple[Tensor, dict[str, Tensor], Tensor | None, dict[str, int]]:
        volume = load_volume(dataset, dataset.case(name), fitted, locate)
        if two_places(volume.grid.header):
            twice.append(name)
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
    with ThreadPoolExecutor(cores) as pool, Progress("reading cases", len(cases), "cases", shown=shown) as bar:
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
    if twice and shown:
        say(f"{first_names(sorted(twice))}: {AS_ITK}")
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


def read_training(
    dataset: Dataset, plan: Plan, method: Method, device: torch.device, locate: Locate | None = None
) -> Slices | Voxels:
    """The slices that a run trains on, on the device if they fit there. Says what was left out.

    locate: where the slices are cut.

    Raises InputError unless every class is drawn in them.
    """
    if distributed.rank() == 0:
        _say_what_is_left_out(dataset, plan)
    if plan.preparation == "patches":
        voxels = build_voxels(dataset, plan, method)
        check_trainable(voxels.label[None], plan.classes, dataset.folder)
        return voxels.to(device)
    slices, _ = build_slices(dataset, plan.fold.train, method, plan.size, plan.fitted, locate)
    check_trainable(slices.label, plan.classes, dataset.folder)
    return resident(slices, device)


def build_voxels(dataset: Dataset, plan: Plan, method: Method) -> Voxels:
    """Read the training cases in parallel and lay their slices, in 3-D the whole cases, one behind the other.

    They are on the network's grid. A stroke is a set of points, of which none is lost; other targets are areas.
    """
    cases, fitted = plan.fold.train, plan.fitted

    twice: list[str] = []

    def load(name: str) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        volume = load_volume(dataset, dataset.case(name), fitted)
        if two_places(volume.grid.header):
            twice.append(name)
        check_scale(volume.case.images[0], plan, volume.image.shape[1:], volume.grid.spacing_mm)
        depth, *size = grid_shape(plan, volume.image.shape[1:], volume.grid.spacing_mm)
        shape = size[0], size[1]

        def area(label: np.ndarray) -> Tensor:
            return deepen_label(resample_label(label, shape), depth)

        targets = {
            name: deepen_strokes(resample_strokes(value, shape), depth) if value is volume.scribble else area(value)
            for name, value in method.targets(for_targets(volume, fitted)).items()
        }
        if fitted.enclosure != "off":
            targets["enclosure"] = area(enclosure(volume.scribble, dataset.reach(volume.grid), fitted.enclosure))
        truth = None if volume.truth is None else area(volume.truth)
        return deepen_image(resample_image(volume.image, shape), depth).half(), targets, truth

    images, labels, truths, shapes = [], [], [], []
    cores = os.cpu_count() or 1
    with (
        ThreadPoolExecutor(cores) as pool,
        Progress("reading cases", len(cases), "cases", shown=distributed.rank() == 0) as bar,
    ):
        for image, targets, truth in ahead(pool, load, cases, 2 * cores):
            images.append(image.transpose(0, 1).flatten(1))
            labels.append({name: value.flatten() for name, value in targets.items()})
            truths.append(torch.full_like(labels[-1]["label"], UNLABELED) if truth is None else truth.flatten())
            slices, size = len(image), tuple(image.shape[2:])
            shapes += [(slices, *size)] if plan.dims == 3 else [size] * slices
            bar.advance()
    if twice and distributed.rank() == 0:
        say(f"{first_names(sorted(twice))}: {AS_ITK}")
    maps = {name: torch.cat([part[name] for part in labels]) for name in labels[0]}
    known = any(dataset.case(name).truth is not None for name in cases)
    return lay_out(torch.cat(images, 1), maps, torch.cat(truths) if known else None, shapes, len(dataset.classes))


def choose_patch(plan: Plan, voxels: Voxels, device: torch.device, side: int | None) -> Plan:
    """The plan with the shape of its patches, as `dims` finds it for these items; `side` is what the user wants."""
    shapes = voxels.shape.cpu()
    if plan.dims == 2:
        return replace(plan, size=slice_side(shapes, plan.size) if side is None else side)
    multiple = depth_multiple(plan.network, plan.anisotropy)
    depth, side = patch_of_volume(shapes, plan.anisotropy, most_voxels(device), multiple, side)
    return replace(plan, depth=depth, size=side)


def slice_distance(dataset: Dataset, plan: Plan) -> float:
    """How far apart slices are for a 3-D network: `between_slices` of the training cases."""
    if plan.fitted.unit != "mm":
        return plan.fitted.pixel
    drawn = [case for case in map(dataset.case, plan.fold.train) if case.scribble is not None]
    grids = [read_scribble(dataset, case, plan.fitted.plane)[1] for case in drawn]
    return between_slices([grid.spacing_mm[0] for grid in grids], plan.fitted.pixel)


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


def layout_of(dims: int) -> torch.memory_format:
    """How images lie in memory: channels last, in 2-D or 3-D."""
    return torch.channels_last if dims == 2 else torch.channels_last_3d


def augment_slices(slices: Slices, matrix: Tensor, layout: torch.memory_format = torch.channels_last) -> Batch:
    """The slices as a batch, each under its affine matrix [N, 2, 3]."""
    return augmented(slices, functools.partial(warp, matrix=matrix), layout)


def augmented(drawn: Slices | Batch, augmentation: Augmentation, layout: torch.memory_format) -> Batch:
    """Slices, or patches of a batch, as the augmentation changes their image and all labels together."""
    layers = [drawn.label, *drawn.maps.values(), *([] if drawn.truth is None else [drawn.truth])]
    image, labels = augmentation(drawn.image, torch.stack([layer.long() for layer in layers], 1))
    label, *others = labels.unbind(1)
    truth = None if drawn.truth is None else others.pop()
    return Batch(image.contiguous(memory_format=layout), label, dict(zip(drawn.maps, others)), truth)


def draw_patches(
    voxels: Voxels, index: Tensor, part: slice, layout: torch.memory_format, straight: bool = False
) -> Batch:
    """Patches, rotated in the plane, scaled, with other intensities and sharpness: every second centred on a stroke.

    The others lie anywhere in the items `index`. A patch leaves its item by an eighth of its sides at most. Random
    numbers of place and shape are drawn for the whole batch, even if this process has only a `part` of it. `straight`:
    patches are cut as they are.
    """
    drawn, stroke = voxels.on_strokes((len(index) + 1) // 2)
    place, index = voxels.anywhere(index), index.clone()
    place[::2], index[::2] = stroke, drawn
    place = voxels.inside(index, place, OUTSIDE)
    if straight:
        return voxels.patches(index[part], place[part], _straight(voxels.dims, index[part]))
    turn = patch_affine(len(index), index.device)
    matrix = turn
    if voxels.dims == 3:  # slices are scaled like the plane, and stay in it
        matrix = turn.new_zeros(len(turn), 3, 3)
        matrix[:, 0, 0], matrix[:, 1:, 1:] = torch.linalg.vector_norm(turn[:, 0], dim=1), turn
    batch = voxels.patches(index[part], place[part], matrix[part])
    image = random_sharpness(random_intensity(batch.image))
    return replace(batch, image=image.contiguous(memory_format=layout))


def _straight(dims: int, index: Tensor) -> Tensor:
    """The matrices of `Voxels.patches` that change nothing, [n, dims, dims]."""
    return torch.eye(dims, device=index.device).expand(len(index), -1, -1)


def most_drawn(slices: Slices | Voxels, count: int, device: torch.device) -> Batch:
    """The slices with most foreground scribble, as they are; of Voxels the patch in the middle of a slice or volume."""
    if isinstance(slices, Voxels):
        index = slices.count[:, 1:].sum(1).topk(min(count, len(slices)), sorted=True).indices
        batch = slices.patches(index, slices.shape[index] / 2 - 0.5, _straight(slices.dims, index))
        return replace(batch, image=batch.image.contiguous(memory_format=layout_of(slices.dims)))
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
