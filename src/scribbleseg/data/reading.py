"""Cases as a network meets them: read in parallel, prepared, and laid out as slices or voxels."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core import distributed
from ..core.console import say
from ..core.device import free_memory
from ..core.errors import InputError, counted, first_names
from ..core.labels import UNLABELED
from ..core.parallel import ahead, for_each
from ..core.progress import Progress
from .case import Locate, Volume, drawn_cases, load_volume
from .dataset import Dataset
from .depth import deepen_image, deepen_label, deepen_strokes
from .enclosure import enclosure
from .intensity import unit_range
from .nifti import AS_ITK, two_places
from .preparation import (
    PAPERS,
    Fitted,
    resample_image,
    resample_label,
    resample_strokes,
    resize_image,
    resize_label,
)
from .raster import Raster
from .voxels import Slices, Stack, Voxels, lay_out

# a case → what it is trained on, integer [D, H, W] by name, "label" among them; and counts that the user should know
Targets = Callable[[Volume], tuple[dict[str, np.ndarray], dict[str, int]]]
Made = tuple[Tensor, dict[str, Tensor], Tensor | None]  # image, targets and truth of a case on the network's grid


def read_training(
    dataset: Dataset,
    cases: Sequence[str],
    targets: Targets,
    raster: Raster,
    fitted: Fitted,
    device: torch.device,
    locate: Locate | None = None,
) -> Slices | Voxels:
    """What a run trains on, slices or voxels as the raster has them, on the device if they fit there.

    Says what was left out. locate: where the slices are cut. Raises InputError unless every class is drawn in them.
    """
    if distributed.rank() == 0:
        _say_what_is_left_out(dataset, cases)
    if not raster.side:
        voxels = build_voxels(dataset, cases, targets, raster, fitted)
        check_trainable(voxels.label[None], dataset.classes, dataset.folder)
        return voxels.to(device)
    slices, _ = build_slices(dataset, cases, targets, raster.side, fitted, locate)
    check_trainable(slices.label, dataset.classes, dataset.folder)
    return resident(slices, device)


def build_slices(
    dataset: Dataset,
    cases: Sequence[str],
    targets: Targets,
    size: int,
    fitted: Fitted = PAPERS,
    locate: Locate | None = None,
) -> tuple[Slices, Tensor]:
    """Read, prepare and resize cases in parallel; returns their slices on the CPU, and the case (by position) of each.

    A stroke is a set of points, of which none is lost where `fitted` says so; other targets are areas. `truth` is
    UNLABELED for a case without a dense mask, and None if no case has one. Slices that do not fit into
    memory are put into a mapped file.
    """
    cache = dataset.folder / ".scribbleseg"

    def load(name: str) -> tuple[Made, dict[str, int], bool]:
        volume = load_volume(dataset, dataset.case(name), fitted, locate)
        named, notes = targets(for_targets(volume, fitted))
        maps = {
            key: resample_strokes(value, (size, size))
            if fitted.keep_strokes and np.array_equal(value, volume.scribble)
            else resample_label(value, (size, size))
            for key, value in named.items()
        }
        if fitted.enclosure != "off":
            enclosed = enclosure(volume.scribble, dataset.reach(volume.grid), fitted.enclosure)
            maps["enclosure"] = resize_label(enclosed, size)
        truth = None if volume.truth is None else resize_label(volume.truth, size)
        return (resize_image(volume.image, size), maps, truth), notes, two_places(volume.grid.header)

    stacks: dict[str, Stack] = {}
    counts, has_truth, limit = [], False, free_memory(torch.device("cpu")) / 5
    for image, maps, truth in _read(load, cases):
        has_truth |= truth is not None
        unknown = torch.full(image[:, 0].shape, UNLABELED, dtype=torch.uint8)
        for name, part in {"image": image, **maps, "truth": unknown if truth is None else truth}.items():
            stacks.setdefault(name, Stack(cache, limit)).append(part)
        counts.append(len(image))
    if distributed.rank() == 0 and stacks["image"].file is not None:
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


def build_voxels(dataset: Dataset, cases: Sequence[str], targets: Targets, raster: Raster, fitted: Fitted) -> Voxels:
    """Read cases in parallel and lay their slices, in 3-D the whole cases, one behind the other.

    They are on the network's grid. A stroke is a set of points, of which none is lost; other targets are areas.
    """

    def load(name: str) -> tuple[Made, dict[str, int], bool]:
        volume = load_volume(dataset, dataset.case(name), fitted)
        raster.check(volume.case.images[0], volume.image.shape[1:], volume.grid.spacing_mm)
        depth, *size = raster.shape(volume.image.shape[1:], volume.grid.spacing_mm)
        shape = size[0], size[1]

        def area(label: np.ndarray) -> Tensor:
            return deepen_label(resample_label(label, shape), depth)

        named, notes = targets(for_targets(volume, fitted))
        maps = {
            key: deepen_strokes(resample_strokes(value, shape), depth)
            if np.array_equal(value, volume.scribble)
            else area(value)
            for key, value in named.items()
        }
        if fitted.enclosure != "off":
            maps["enclosure"] = area(enclosure(volume.scribble, dataset.reach(volume.grid), fitted.enclosure))
        truth = None if volume.truth is None else area(volume.truth)
        image = deepen_image(resample_image(volume.image, shape), depth).half()
        return (image, maps, truth), notes, two_places(volume.grid.header)

    images, labels, truths, shapes = [], [], [], []
    for image, maps, truth in _read(load, cases):
        images.append(image.transpose(0, 1).flatten(1))
        labels.append({name: value.flatten() for name, value in maps.items()})
        truths.append(torch.full_like(labels[-1]["label"], UNLABELED) if truth is None else truth.flatten())
        slices, size = len(image), tuple(image.shape[2:])
        shapes += [(slices, *size)] if raster.between else [size] * slices
    joined = {name: torch.cat([part[name] for part in labels]) for name in labels[0]}
    known = any(dataset.case(name).truth is not None for name in cases)
    return lay_out(torch.cat(images, 1), joined, torch.cat(truths) if known else None, shapes, len(dataset.classes))


def _read(load: Callable[[str], tuple[Made, dict[str, int], bool]], cases: Sequence[str]) -> Iterator[Made]:
    """What `load` makes of each case, a few cases ahead; at the end it says the notes and whose header is odd."""
    shown, cores = distributed.rank() == 0, os.cpu_count() or 1
    said, twice = Counter[str](), list[str]()
    with ThreadPoolExecutor(cores) as pool, Progress("reading cases", len(cases), "cases", shown=shown) as bar:
        for name, (made, notes, odd) in zip(cases, ahead(pool, load, cases, 2 * cores)):
            yield made
            said += Counter(notes)
            twice += [name] * odd
            bar.advance()
    for text, count in said.items() if shown else ():
        say(f"{text}: {count}")
    if twice and shown:
        say(f"{first_names(sorted(twice))}: {AS_ITK}")


def for_targets(volume: Volume, fitted: Fitted) -> Volume:
    """The volume as a method expects it for its targets, each channel in [0, 1], whatever the network sees."""
    return replace(volume, image=unit_range(volume.image)) if fitted.intensity else volume


def read_rings(dataset: Dataset, cases: Sequence[str], fitted: Fitted, size: int) -> tuple[Tensor, Tensor]:
    """Slices whose strokes say where the ring lies: [N, channels, size, size], and 1 inside of it, [N, size, size].

    One of the cases has a label. N may be 0. Raises what `load_volume` raises.
    """

    def look(name: str) -> tuple[Tensor, Tensor]:
        volume = load_volume(dataset, dataset.case(name), fitted)
        enclosed = enclosure(volume.scribble, dataset.reach(volume.grid), fitted.enclosure) != UNLABELED
        foreground = ((volume.scribble != 0) & (volume.scribble != UNLABELED)).any((1, 2))
        inside = (~enclosed & foreground[:, None, None]).astype(np.uint8)
        known = enclosed.any((1, 2))
        return resize_image(volume.image, size)[known], resize_label(inside, size)[known].long()

    drawn = [name for name in cases if dataset.case(name).scribble is not None]
    images, insides = zip(*for_each("reading rings", look, drawn, distributed.rank() == 0))
    return torch.cat(images), torch.cat(insides)


def read_judged(
    dataset: Dataset, name: str, raster: Raster, fitted: Fitted, on_scribbles: bool, locate: Locate | None = None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The image of a validation case, and its dense mask or, `on_scribbles`, its scribble on the same grid.

    And how many pixels of each class `locate` cuts off, float64 [classes], in pixels of the network: they are missed.
    """
    volume = load_volume(dataset, dataset.case(name), fitted)
    truth = volume.scribble if on_scribbles else volume.truth
    spacing, image, missed = volume.grid.spacing_mm, volume.image, torch.zeros(volume.classes, dtype=torch.float64)
    raster.check(volume.case.images[0], image.shape[1:], spacing)
    if locate:
        box = locate(image)
        image = image[:, :, *box]
        if truth is not None:
            cut = truth[:, *box]
            outside = _counts(truth, len(missed)) - _counts(cut, len(missed))
            missed = outside * (raster.side**2 / (cut.shape[1] * cut.shape[2]))
            truth = cut
    return raster.image(image, spacing), None if truth is None else raster.label(truth, spacing), missed


def _counts(label: np.ndarray, classes: int) -> Tensor:
    return torch.from_numpy(np.bincount(label[label != UNLABELED].ravel(), minlength=classes).astype(np.float64))


def _say_what_is_left_out(dataset: Dataset, cases: Sequence[str]) -> None:
    for message in dataset.left_out():
        say(f"{dataset.folder}: {message}")
    drawn = set(drawn_cases(dataset, cases))
    bare = [name for name in cases if name not in drawn]
    if bare:
        say(f"without a scribble: {len(bare)} of {counted(len(cases), 'training case')} (first: {bare[0]})")


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
