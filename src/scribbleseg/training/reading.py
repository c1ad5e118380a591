"""The training cases as a method trains on them: read in parallel, prepared, and laid out as slices or voxels."""

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
from ..data.case import Locate, Volume, drawn_cases, load_volume
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
from ..data.voxels import Slices, Stack, Voxels, lay_out
from ..methods import own_code
from ..methods.base import Method
from .grid import check_scale, grid_shape
from .plan import Plan


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
    twice: list[str] = []

    def load(name: str) -> tuple[Tensor, dict[str, Tensor], Tensor | None, dict[str, int]]:
        volume = load_volume(dataset, dataset.case(name), fitted, locate)
        if two_places(volume.grid.header):
            twice.append(name)
        targets, notes = {"label": volume.scribble}, dict[str, int]()
        if method is not None:
            targets, notes = _targets(method, for_targets(volume, fitted), cache)
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


def _targets(method: Method, seen: Volume, cache: Path) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """What a method makes of a case, from the cache where its key is known there; and its notes."""
    key = method.target_key(seen)
    if key is not None:
        key = key | {"code": own_code(f"{type(method).__module__}:{type(method).__qualname__}")}
    return cached(cache, seen, key, lambda: method.targets(seen)), method.notes(seen)


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
        _say_what_is_left_out(dataset, plan.fold.train)
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


def _say_what_is_left_out(dataset: Dataset, cases: tuple[str, ...]) -> None:
    for message in dataset.left_out():
        say(f"{dataset.folder}: {message}")
    drawn = set(drawn_cases(dataset, cases))
    bare = [name for name in cases if name not in drawn]
    if bare:
        count = f"{len(bare)} of {len(cases)}"
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
