"""What the training cases of a run decide: plane, intensity, cropping, pixel size and how enclosure is read."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..core.parallel import for_each
from .case import difference, drawn_cases, read_channels, read_scribble
from .dataset import Dataset
from .enclosure import choose_rule, enclosing_slices
from .intensity import Intensity, ct_samples, fit_ct, kind_of
from .plane import choose_plane, flat_axis
from .preparation import MOST_SCALE, Fitted, content_box
from .volume import Grid

STROKES_FILL = 0.75  # of a patch's side
CROP_FROM = 0.5  # share of the pixels that cropping has to save
LOOKED_AT = 24  # training cases at most that decide on plane and cropping
FLATTEST = 3.0  # largest over smallest spacing of a volume with three dimensions
FEWEST = 16  # voxels along every axis of it
BARE_SHARE = 0.2  # of a batch: slices without strokes, for methods that learn from them


def fit(
    dataset: Dataset,
    cases: Sequence[str],
    *,
    patch: int = 0,
    enclosure: str = "off",
    locate: str = "off",
    by_data: bool = False,
    learns_from_bare: bool = True,
) -> Fitted:
    """What the training cases decide.

    patch: side of the patches that will be cut; 0: slices are resized, and no pixel size is needed. The pixel is the
    median of the cases' (mean of rows and columns), but larger where the strokes of a slice would spread wider: those
    of 95 % of the slices fill at most three quarters of a patch's side.

    enclosure: on, off, or auto, by the share of slices that enclose. locate: on, off, or auto: slices are cut to where
    rings lie, if the strokes have any, and auto: if that saves half of the pixels in the median case. They are not cut
    to what is no air then. by_data: intensities by the names of the channels, and empty borders cut off where that
    saves half of the pixels; else as the papers. Raises InputError for "on" where no slice encloses anything, for a
    channel CT without foreground strokes, for a case whose pixels are of quite another size than the others', and for
    files that cannot be read.
    """
    drawn = drawn_cases(dataset, cases)
    plane = find_plane(dataset, drawn)

    def look(name: str) -> tuple[float, list[float], tuple[int, int], float]:
        scribble, grid = read_scribble(dataset, dataset.case(name), plane)
        pixel = sum(dataset.spacing_of(grid)) / 2
        slices = [part for part in scribble if ((part != 0) & (part != UNLABELED)).any()]
        spread = [float(max(np.ptp(np.nonzero(part != UNLABELED), axis=1)) + 1) * pixel for part in slices]
        enclosing = enclosing_slices(scribble, dataset.reach(grid)) if enclosure != "off" else (0, 0)
        return pixel, spread, enclosing, _share_drawn_on(slices)

    found = for_each("fitting", look, drawn) if patch or enclosure != "off" else []
    rule, share = choose_rule(enclosing for _, _, enclosing, _ in found)
    if enclosure == "on" and not share:
        raise InputError(
            f"{dataset.folder}: in no slice do the background strokes enclose the foreground strokes, which "
            "--enclosure on and --preparation rings need. Draw rings, or leave these options out."
        )
    if enclosure == "on":
        rule = "hull"
    spread = [value for _, values, _, _ in found for value in values]
    pixel = float(np.median([side for side, *_ in found])) if patch and found else 0.0
    for name, (side, *_) in zip(drawn, found) if patch else ():
        if not pixel / MOST_SCALE <= side <= pixel * MOST_SCALE:
            raise InputError(
                f"{dataset.case(name).scribble}: has pixels of {side:.4g} {dataset.spacing_unit}, and most cases have "
                f"{pixel:.4g}. Is its unit of length right? Correct the header, or leave the case out."
            )
    if patch and spread:
        pixel = max(pixel, float(np.percentile(spread, 95)) / (STROKES_FILL * patch))
    cut = locate != "off" and rule != "off"
    if cut and locate == "auto":
        cut = float(np.median([share for *_, share in found])) <= 1 - CROP_FROM
    if not by_data:
        return Fitted(pixel, dataset.spacing_unit, rule, share, plane, locate=cut)
    intensity = fit_intensity(dataset, drawn, plane)
    crop = not cut and _saved_by_crop(dataset, drawn, plane) >= CROP_FROM
    bare = BARE_SHARE if learns_from_bare else 0.0
    return Fitted(pixel, dataset.spacing_unit, rule, share, plane, intensity, crop, cut, keep_strokes=True, bare=bare)


def _share_drawn_on(slices: Sequence[np.ndarray]) -> float:
    """The share of a slice that the box around all strokes of these slices [H, W] of a case takes; 1 without any."""
    if not slices:
        return 1.0
    drawn = (np.stack(slices) != UNLABELED).any(0)
    return float(np.prod([np.ptp(np.nonzero(drawn.any(axis))[0]) + 1 for axis in (1, 0)]) / drawn.size)


def find_plane(dataset: Dataset, cases: Sequence[str]) -> str:
    """The plane of dataset.json, or the one in which the strokes of most cases are flat, or "spacing"."""
    if dataset.plane:
        return dataset.plane

    def look(name: str) -> tuple[Grid, int | None]:
        scribble, grid = read_scribble(dataset, dataset.case(name))
        return grid, flat_axis(scribble.transpose(np.argsort(grid.order)))

    return choose_plane(for_each("looking at strokes", look, _some(cases)))


def fit_intensity(dataset: Dataset, cases: Sequence[str], plane: str) -> tuple[Intensity, ...]:
    """The normalisation of every channel, by its name. Only CT reads the cases; each has a scribble."""
    ct = [number for number, name in enumerate(dataset.channels) if kind_of(name) == "ct"]

    def look(name: str) -> list[np.ndarray]:
        scribble, drawn_on = read_scribble(dataset, dataset.case(name), plane)
        foreground = (scribble != UNLABELED) & (scribble != 0)
        channels, grid = read_channels(dataset.case(name).images, plane, len(dataset.channels))
        if not grid.same_place(drawn_on):
            raise InputError(f"{dataset.case(name).scribble}: {difference(drawn_on, grid)} than its image.")
        return [ct_samples(channels[number], foreground) for number in ct]

    samples = for_each("reading grey values", look, cases) if ct else []
    fitted = {number: fit_ct([case[at] for case in samples], dataset.channels[number]) for at, number in enumerate(ct)}
    return tuple(
        fitted[number] if number in fitted else Intensity(kind_of(name)) for number, name in enumerate(dataset.channels)
    )


def _saved_by_crop(dataset: Dataset, cases: Sequence[str], plane: str) -> float:
    """The share of a slice's pixels that is empty border, the median over some training cases."""

    def look(name: str) -> float:
        channels, _ = read_channels(dataset.case(name).images, plane, len(dataset.channels))
        rows, columns = content_box(channels)
        return 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / math.prod(channels[0].shape[1:])

    return float(np.median(for_each("looking for empty borders", look, _some(cases)) or [0.0]))


def _some(cases: Sequence[str]) -> Sequence[str]:
    return cases[:: max(1, math.ceil(len(cases) / LOOKED_AT))]


def suits_3d(grids: Iterable[Grid]) -> bool:
    """Whether half of the volumes or more have spacings within a factor of 3, and 16 voxels or more each way."""
    suited = [max(grid.spacing_mm) <= FLATTEST * min(grid.spacing_mm) and min(grid.sizes) >= FEWEST for grid in grids]
    return bool(suited) and 2 * sum(suited) >= len(suited)


def between_slices(distances: Sequence[float], pixel: float) -> float:
    """Distance of the network's slices: the median of the volumes', and no less than the side of a pixel."""
    return max(float(np.median(distances)), pixel)
