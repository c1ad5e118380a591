"""What is in one case of a data set: its grid, its scribbles, and its problems."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.labels import UNLABELED
from .case import load_label, read_channels, recode
from .dataset import Case, Dataset
from .enclosure import enclosing_slices
from .intensity import ct_samples
from .plane import flat_axis
from .volume import PICTURES, Grid, check_unit, read_label


@dataclass
class Found:
    """What was found in one case: its grid, its scribbles and its problems."""

    case: str
    grid: Grid | None = None
    slices: int = 0
    size: tuple[int, int] = (0, 0)  # rows, columns
    has_scribble: bool = False
    drawn: np.ndarray = field(default_factory=lambda: np.zeros(0, int))  # scribbled pixels [classes]
    drawn_slices: np.ndarray = field(default_factory=lambda: np.zeros(0, int))  # slices that hold the class [classes]
    bare_slices: int = 0  # slices without a scribbled pixel
    rings: tuple[int, int] = (0, 0)  # slices whose background strokes enclose, and slices with foreground strokes
    pixels: int = 0
    flat: int | None = None  # the file axis across which the strokes are flat
    greys: list[np.ndarray] = field(default_factory=list)  # of each channel under the foreground strokes
    dense: bool = False
    compared: int = 0  # scribbled pixels of a case that also has a dense mask
    disagree: int = 0  # of these, pixels whose dense mask has another class
    problems: list[str] = field(default_factory=list)


def inspect(dataset: Dataset, case: Case, plane: str) -> Found:
    """Read the files of a case. What cannot be read, or does not fit, is among its problems."""
    found = Found(case.id)
    channels: list[np.ndarray] = []
    try:
        colours = len(dataset.channels) if dataset.file_ending.lower() in PICTURES else 0  # missing files are known
        channels, found.grid = read_channels(case.images, plane, colours)
        found.slices, found.size = channels[0].shape[0], channels[0].shape[1:]
        check_unit(case.images[0], found.grid, dataset.spacing_unit)
    except InputError as error:
        if not any(str(error).startswith(f"{path}: ") for path in case.images if not path.is_file()):  # known already
            found.problems.append(str(error))
    labels: dict[Path | None, np.ndarray] = {}
    for path in (case.scribble, case.truth):
        if path is None:
            continue
        try:
            if found.grid is None:
                recode(read_label(path)[0], dataset.ignore, path, ignored=path == case.scribble)
            else:
                labels[path] = load_label(
                    path, found.grid, case.images[0], dataset.ignore, ignored=path == case.scribble
                )
        except InputError as error:
            found.problems.append(str(error))
    found.dense = case.truth is not None
    scribble, truth = labels.get(case.scribble), labels.get(case.truth)
    if scribble is not None:
        classes = len(dataset.classes)
        per_slice = np.stack([np.bincount(line.ravel(), minlength=classes)[:classes] for line in scribble])
        found.has_scribble = True
        found.drawn, found.drawn_slices = per_slice.sum(0), (per_slice > 0).sum(0)
        if found.grid is not None:
            foreground = (scribble != UNLABELED) & (scribble != 0)
            found.greys = [ct_samples(channel, foreground) for channel in channels]
            found.flat = flat_axis(scribble.transpose(np.argsort(found.grid.order)))
            found.rings = enclosing_slices(scribble, dataset.reach(found.grid))
        found.bare_slices, found.pixels = int((per_slice.sum(1) == 0).sum()), scribble.size
        if truth is not None:
            found.compared = int(found.drawn.sum())
            found.disagree = int(((scribble != truth) & (scribble != UNLABELED)).sum())
    return found
