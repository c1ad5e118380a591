"""The slices of cases as a method trains on them, and augmented batches of them."""

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
from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..core.parallel import ahead, for_each
from ..core.progress import Progress
from ..data.cache import cached
from ..data.case import load_volume, read_scribble
from ..data.dataset import Dataset
from ..data.depth import deepen_image, deepen_label, deepen_strokes
from ..data.enclosure import choose_rule, closed_rings, enclosure
from ..data.preparation import (
    Fitted,
    resample_image,
    resample_label,
    resample_strokes,
    resize_image,
    resize_label,
)
from ..data.volume import read_label
from ..data.voxels import Batch, Slices, Stack, Voxels, lay_out
from ..methods import own_code
from ..methods.base import Method
from .augment import patch_affine, random_intensity, warp
from .dims import between_slices, depth_multiple, most_voxels, patch_of_volume, slice_side
from .grid import grid_shape
from .plan import Plan

OUTSIDE = 1 / 8  # share of a patch's side by which it may leave the slice or volume
STROKES_FILL = 0.75  # of a patch's side


def build_slices(
    dataset: Dataset, cases: tuple[str, ...], method: Method | None, size: int, rule: str = "off"
) -> tuple[Slices, Tensor]:
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
        if rule != "off":
            targets = targets | {"enclosure": enclosure(volume.scribble, dataset.reach(volume.grid), rule)}
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


def read_training(dataset: Dataset, plan: Plan, method: Method, device: torch.device) -> Slices | Voxels:
    """The slices that a run trains on, on the device if they fit there. Says what was left out.

    Raises InputError unless every class is drawn in them.
    """
    if distributed.rank() == 0:
        _say_what_is_left_out(dataset, plan)
    if plan.preparation == "patches":
        voxels = build_voxels(dataset, plan, method)
        check_trainable(voxels.label[None], plan.classes, dataset.folder)
        return voxels.to(device)
    slices, _ = build_slices(dataset, plan.fold.train, method, plan.size, plan.fitted.enclosure)
    check_trainable(slices.label, plan.classes, dataset.folder)
    return resident(slices, device)


def build_voxels(dataset: Dataset, plan: Plan, method: Method) -> Voxels:
    """Read the training cases in parallel and lay their slices, in 3-D the whole cases, one behind the other.

    They are on the network's grid. A stroke is a set of points, of which none is lost; other targets are areas.
    """
    cases, fitted = plan.fold.train, plan.fitted

    def load(name: str) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
        volume = load_volume(dataset, dataset.case(name))
        depth, *size = grid_shape(plan, volume.image.shape[1:], volume.grid.spacing_mm)
        shape = size[0], size[1]

        def area(label: np.ndarray) -> Tensor:
            return deepen_label(resample_label(label, shape), depth)

        targets = {
            name: deepen_strokes(resample_strokes(value, shape), depth) if value is volume.scribble else area(value)
            for name, value in method.targets(volume).items()
        }
        if fitted.enclosure != "off":
            targets["enclosure"] = area(enclosure(volume.scribble, dataset.reach(volume.grid), fitted.enclosure))
        truth = None if volume.truth is None else area(volume.truth)
        return deepen_image(resample_image(volume.image, shape), depth).half(), targets, truth

    images, labels, truths, shapes = [], [], [], []
    cores = os.cpu_count() or 1
    with (
        ThreadPoolExecutor(cores) as pool,
        Progress("reading cases", len(cases), "case", shown=distributed.rank() == 0) as bar,
    ):
        for image, targets, truth in ahead(pool, load, cases, 2 * cores):
            images.append(image.transpose(0, 1).flatten(1))
            labels.append({name: value.flatten() for name, value in targets.items()})
            truths.append(torch.full_like(labels[-1]["label"], UNLABELED) if truth is None else truth.flatten())
            slices, size = len(image), tuple(image.shape[2:])
            shapes += [(slices, *size)] if plan.dims == 3 else [size] * slices
            bar.advance()
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
    cases = [dataset.case(name) for name in plan.fold.train]
    return between_slices([read_label(c.scribble)[1].spacing_mm[0] for c in cases if c.scribble], plan.fitted.pixel)


def fit(dataset: Dataset, plan: Plan, wanted: str) -> Fitted:
    """What the training cases decide: the network's pixel size, and how enclosure is read.

    The pixel is the median of the cases' (mean of rows and columns), but larger where the strokes of a slice would
    spread wider: those of 95 % of the slices fill at most three quarters of a patch's side.

    wanted: on, off, or auto, by the share of closed rings. Raises InputError for "on" where no slice has a closed ring.
    """

    def look(name: str) -> tuple[float, list[float], tuple[int, int]]:
        case = dataset.case(name)
        if case.scribble is None:
            return 0.0, [], (0, 0)
        scribble, grid = read_scribble(dataset, case)
        pixel = sum(dataset.spacing_of(grid)) / 2
        drawn = [part for part in scribble if ((part != 0) & (part != UNLABELED)).any()]
        spread = [float(max(np.ptp(np.nonzero(part != UNLABELED), axis=1)) + 1) * pixel for part in drawn]
        return pixel, spread, closed_rings(scribble, dataset.reach(grid)) if wanted != "off" else (0, 0)

    found = for_each("fitting", look, plan.fold.train)
    rule, share = choose_rule(closed for _, _, closed in found)
    if wanted == "on" and not share:
        raise InputError(
            f"{dataset.folder}: --enclosure on, but no slice has background strokes that close around its foreground "
            "strokes. Draw rings, or use --enclosure off."
        )
    if wanted == "on" and rule == "off":
        rule = "ring"
    if plan.preparation == "slices":
        return Fitted(enclosure=rule, closed=share)
    spread = [value for _, values, _ in found for value in values]
    pixel = float(np.median([pixel for pixel, _, _ in found if pixel]))
    if spread:
        pixel = max(pixel, float(np.percentile(spread, 95)) / (STROKES_FILL * plan.size))
    return Fitted(pixel, dataset.spacing_unit, rule, share)


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
    image, *layers = slices.layers()
    image, labels = warp(image, torch.stack([layer.long() for layer in layers], 1), matrix)
    label, *others = labels.unbind(1)
    truth = None if slices.truth is None else others.pop()
    return Batch(image.contiguous(memory_format=layout), label, dict(zip(slices.maps, others)), truth)


def draw_patches(voxels: Voxels, index: Tensor, part: slice, layout: torch.memory_format) -> Batch:
    """Patches, rotated in the plane, scaled, with other intensities: every second one centred on a stroke.

    The others lie anywhere in the items `index`. A patch leaves its item by an eighth of its sides at most. Random
    numbers of place and shape are drawn for the whole batch, even if this process has only a `part` of it.
    """
    drawn, stroke = voxels.on_strokes((len(index) + 1) // 2)
    place, index = voxels.anywhere(index), index.clone()
    place[::2], index[::2] = stroke, drawn
    place = voxels.inside(index, place, OUTSIDE)
    turn = patch_affine(len(index), index.device)
    matrix = turn
    if voxels.dims == 3:  # slices are scaled like the plane, and stay in it
        matrix = turn.new_zeros(len(turn), 3, 3)
        matrix[:, 0, 0], matrix[:, 1:, 1:] = torch.linalg.vector_norm(turn[:, 0], dim=1), turn
    batch = voxels.patches(index[part], place[part], matrix[part])
    image = random_intensity(batch.image.flatten(2, -2)).view(batch.image.shape)
    return replace(batch, image=image.contiguous(memory_format=layout))


def most_drawn(slices: Slices | Voxels, count: int, device: torch.device) -> Batch:
    """The slices with most foreground scribble, as they are; of Voxels the patch in the middle of a slice or volume."""
    if isinstance(slices, Voxels):
        index = slices.count[:, 1:].sum(1).topk(min(count, len(slices)), sorted=True).indices
        straight = torch.eye(slices.dims, device=index.device).expand(len(index), -1, -1)
        batch = slices.patches(index, slices.shape[index] / 2 - 0.5, straight)
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
