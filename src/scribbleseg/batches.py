"""The slices of cases as a method trains on them, and augmented batches of them."""

import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from . import distributed
from .augment import random_affine, warp
from .data.dataset import Dataset, load_volume
from .data.slices import resize_image, resize_label, stack_labels
from .errors import InputError
from .labels import UNLABELED
from .methods.base import Batch, Method, Slices
from .plan import Plan
from .progress import Progress


def build_slices(dataset: Dataset, cases: tuple[str, ...], method: Method | None, size: int) -> tuple[Slices, Tensor]:
    """Read, prepare and resize cases in parallel: all their slices on the CPU, and which case (by position) each slice is of.

    Without a method the label is the dense mask (for validation); a case that has none is UNLABELED.
    """
    cache = dataset.folder / ".scribbleseg"

    def load(name):
        volume = load_volume(dataset, dataset.case(name), cache=cache)
        targets = method.targets(volume) if method is not None else {}
        notes = method.notes(volume) if method is not None else {}
        truth = None if volume.truth is None else resize_label(volume.truth, size)
        return resize_image(volume.image, size), {key: resize_label(value, size) for key, value in targets.items()}, truth, notes

    shown = distributed.rank() == 0
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress("reading cases", len(cases), "case", shown=shown) as bar:
        loaded = []
        for item in pool.map(load, cases):
            loaded.append(item)
            bar.advance()
    images, targets, truths, notes = zip(*loaded)
    for text, count in sum(map(Counter, notes), Counter()).items() if shown else ():
        print(f"{text}: {count}", file=sys.stderr)
    maps = {key: torch.cat([target[key] for target in targets]) for key in targets[0]}
    truth = stack_labels(truths, [image[:, 0].shape for image in images])
    owner = torch.repeat_interleave(torch.arange(len(images)), torch.tensor([len(image) for image in images]))
    return Slices(torch.cat(images), maps.pop("label", truth), maps, truth), owner


def check_trainable(slices: Slices, plan: Plan, folder: Path) -> None:
    """Every class must be drawn somewhere in the training cases."""
    count = torch.bincount(slices.label.flatten().int(), minlength=UNLABELED + 1)[: len(plan.classes)]
    missing = [name for name, pixels in zip(plan.classes, count.tolist()) if not pixels]
    if len(missing) >= len(plan.classes) - 1 and plan.classes[0] not in missing or len(missing) == len(plan.classes):
        raise InputError(f"{folder}: no training case has a foreground scribble. Draw some, or check that the ignore value ({len(plan.classes)}) is not used for all.")
    if missing:
        raise InputError(f"{folder}: no training case has a scribble of class {', '.join(missing)}. Draw some, or take the class out of dataset.json.")


def draw_batch(slices: Slices, index: Tensor, part: slice = slice(None), layout: torch.memory_format = torch.channels_last) -> Batch:
    """Gather slices and augment them, on their device. `part`: of a batch that processes share, the matrices being drawn for all of it."""
    matrix, index = random_affine(len(index), index.device)[part], index[part]
    layers = [slices.label, *slices.maps.values(), *([] if slices.truth is None else [slices.truth])]
    labels = torch.stack([layer[index].long() for layer in layers], 1)
    image, labels = warp(slices.image[index], labels, matrix)
    label, *others = labels.unbind(1)
    truth = None if slices.truth is None else others.pop()
    return Batch(image.contiguous(memory_format=layout), label, dict(zip(slices.maps, others)), truth)


def most_drawn(slices: Slices, count: int) -> Batch:
    """The slices with most foreground scribble, as they are."""
    drawn = ((slices.label != UNLABELED) & (slices.label != 0)).flatten(1).sum(1)
    index = drawn.topk(min(count, len(drawn)), sorted=True).indices
    maps = {name: value[index].long() for name, value in slices.maps.items()}
    truth = None if slices.truth is None else slices.truth[index].long()
    return Batch(slices.image[index].contiguous(memory_format=torch.channels_last), slices.label[index].long(), maps, truth)
