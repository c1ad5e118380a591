"""The verb `check`: what is in a data set, and the training with the preset fast that would follow."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..config import Check, Train
from ..core.errors import InputError, counted
from ..core.labels import UNLABELED
from ..core.parallel import for_each
from ..data import check as content
from ..data.case import Volume, drawn_cases, load_volume
from ..data.dataset import Case, Dataset
from ..data.preparation import PAPERS, lost_strokes, network_shape, resample_label, resample_strokes
from ..data.volume import PICTURES, Grid
from ..data.voxels import Slices
from ..methods import method_class
from ..networks import build_network
from .fit import fit_plan
from .locate import seconds_of
from .machine import Machine, pick_machine
from .optimizer import make_optimizer
from .plan import Plan
from .settings import make_plan, undecided
from .step import Step

TIMED = 3  # slices of the step that is timed on a CPU
LOOKED_AT = 24  # training cases whose strokes are counted


def check(settings: Check) -> bool:
    """Print what is in a data set, the training that would follow, and every problem; see `data.check`."""
    return content.check(settings, outlook)


def outlook(dataset: Dataset) -> Iterator[str]:
    """Lines about `train --preset fast` on the data set: preparation, strokes that survive, and time.

    A step of the method on random slices is timed on this machine; the training takes as many of them as it has
    iterations. What cannot be resolved is said instead.
    """
    try:
        config = Train(dataset.folder, Path("RUN"), preset="fast")
        plan = make_plan(config, dataset)
        plan = fit_plan(plan, dataset, undecided(config))
        trained = f"{counted(len(plan.fold.train), 'training case')} of split {plan.split}, fold {config.fold}"
        length = f"{counted(plan.recipe.iterations, 'iteration')} of {plan.recipe.batch} slices"
        yield f"plan      --preset fast, {trained}: {plan.method}, {length}"
        yield from _preparation(dataset, plan)
        yield from _strokes(dataset, plan)
        seconds = time_step(plan, pick_machine(config, plan.recipe, plan.dims))
        extra = seconds_of(len(plan.channels), plan.recipe.iterations) if plan.fitted.locate else 0
    except InputError as error:
        yield f"plan      --preset fast cannot train: {error}"
        return
    minutes = (seconds * plan.recipe.iterations + extra) / 60
    small = f", and the small network takes {extra:.0f} s" if extra else ""
    shown = f"{minutes:.2g}" if minutes < 10 else f"{minutes:.0f}"
    yield f"  time    about {shown} minutes: one step takes {seconds:.2g} s here{small}, as was measured now"


def _preparation(dataset: Dataset, plan: Plan) -> Iterator[str]:
    fitted = plan.fitted
    for name, how in zip(dataset.channels, fitted.intensity):
        yield f"  greys   {name}: {how}"
    if plan.preparation == "slices":
        what = "slices, cut to where rings lie (a small network learns it)," if fitted.locate else "whole slices,"
        size = f"{what} resized to {plan.size} × {plan.size} pixels"
    else:
        size = f"patches of {plan.size} × {plan.size} pixels of {fitted.pixel:.3g} {fitted.unit}"
    cropped = ", empty borders cut off" if fitted.crop else ""
    plane = "across the largest spacing" if fitted.plane == "spacing" else fitted.plane
    if dataset.file_ending.lower() in PICTURES:
        plane = "the pictures"
    yield f"  slices  {plane}; {size}{cropped}"
    bare = f"up to {100 * fitted.bare:.0f} % of a batch" if fitted.bare else "not used by this method"
    yield f"  bare    slices without strokes: {bare}"


def _strokes(dataset: Dataset, plan: Plan) -> Iterator[str]:
    """How many drawn classes of slices are lost when slices are made smaller, this way and the papers' way.

    Slices that will be cut to where rings lie count as if they were not.
    """
    fitted = plan.fitted

    def count(name: str) -> tuple[int, int, int]:
        volume = load_volume(dataset, dataset.case(name), fitted)
        shape = (plan.size, plan.size)
        if plan.preparation != "slices":
            plan.raster.check(volume.case.images[0], volume.scribble.shape, volume.grid.spacing_mm)
            rows, columns = volume.scribble.shape[1:]
            shape = network_shape((rows, columns), dataset.spacing_of(volume.grid), fitted.pixel)
        whole = load_volume(dataset, dataset.case(name), replace(PAPERS, plane=fitted.plane)).scribble
        lost, drawn = lost_strokes(volume.scribble, resample_strokes(volume.scribble, shape).numpy())
        nearest, _ = lost_strokes(whole, resample_label(whole, (plan.size, plan.size)).numpy())
        return lost, nearest, drawn

    drawn = drawn_cases(dataset, plan.fold.train)
    counts = for_each("counting strokes", count, drawn[:: -(-len(drawn) // LOOKED_AT)])
    lost, nearest, total = np.sum(counts, axis=0).tolist()
    yield (
        f"  strokes {lost} of {total} drawn classes of slices are lost ({100 * lost / max(total, 1):.2g} %); "
        f"the papers' way loses {nearest} ({100 * nearest / max(total, 1):.2g} %) at this size"
        + ", of whole slices"
        * fitted.locate
    )


def time_step(plan: Plan, machine: Machine) -> float:
    """Seconds that an optimiser step of the plan takes on this machine: the second of two on random slices.

    On a CPU a few slices are timed, and the time is taken as proportional to their number.
    """
    count = plan.recipe.batch if machine.device.type == "cuda" else min(TIMED, plan.recipe.batch)
    with torch.random.fork_rng([machine.device] if machine.device.type == "cuda" else []):
        network = build_network(plan.network, len(plan.channels), len(plan.classes))
        method = method_class(plan.method)(network, **plan.options)
        method.to(machine.device, memory_format=torch.channels_last).train()
        image = torch.rand(count, len(plan.channels), plan.size, plan.size)
        drawn = np.full((count, plan.size, plan.size), UNLABELED, np.uint8)
        drawn[:, ::4, ::4] = np.arange(drawn[:, ::4, ::4].size).reshape(count, -1, plan.size // 4) % len(plan.classes)
        grid = Grid(drawn.shape[::-1], np.eye(4), None)
        case = Volume(Case("", (), None, None), image.numpy().swapaxes(0, 1), drawn, None, grid, len(plan.classes))
        maps = {name: torch.from_numpy(value) for name, value in method.targets(case).items()}
        slices = Slices(image, maps.pop("label"), maps, None).to(machine.device)
        optimizer = make_optimizer(plan.recipe, method, machine.device)
        step = Step(method, optimizer, slices, machine.dtype)
        seconds = 0.0
        for _ in range(2):
            began = time.perf_counter()
            step(torch.arange(count), 0.5, plan.recipe.lr).tolist()
            seconds = time.perf_counter() - began
    return seconds * plan.recipe.batch / count
