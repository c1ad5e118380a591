"""One case in memory: image, scribble and dense mask on one grid."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError, counted
from ..core.labels import UNLABELED
from ..core.parallel import for_each
from .dataset import Case, Dataset
from .dicom import has_series, read_series
from .intensity import Intensity, prepare
from .preparation import PAPERS, Fitted, content_box, enclosing_box
from .volume import Grid, as_image, check_unit, read_components, read_label, read_volume

Locate = Callable[[np.ndarray], tuple[slice, slice]]  # an image [channels, D, H, W], prepared → rows, columns


@dataclass(frozen=True)
class Volume:
    """One case in memory. Arrays are slices first, [D, H, W]; labels are 0..C with UNLABELED."""

    case: Case
    image: np.ndarray  # float32 [channels, D, H, W], as the network sees it; with the papers' intensities in [0, 1]
    scribble: np.ndarray  # uint8 [D, H, W]
    truth: np.ndarray | None  # uint8 [D, H, W], dense
    grid: Grid  # of the file; the arrays may be cropped in rows and columns
    classes: int  # number of classes, background included


def load_volume(dataset: Dataset, case: Case, fitted: Fitted | None = None, locate: Locate | None = None) -> Volume:
    """Read one case: image normalised, labels recoded to 0..C and UNLABELED, cropped if `fitted` says so.

    Without `fitted`: the papers' intensities, not cropped, cut in the data set's plane. With `locate` it is cut to what
    that returns, and to the foreground strokes, instead of to what is no air. A case without a scribble file
    is unlabelled throughout. Raises InputError for unreadable files, a constant image, NaN voxels, a label of another
    shape or place than its image, values that dataset.json does not list, and an image without a voxel size where
    lengths are in mm.
    """
    fitted = fitted or Fitted(plane=dataset.plane or "spacing")
    channels, grid = read_channels(case.images, fitted.plane, len(dataset.channels))
    check_unit(case.images[0], grid, dataset.spacing_unit)
    image = prepare_channels(channels, fitted.intensity)
    scribble = np.full(image.shape[1:], UNLABELED, np.uint8)
    if case.scribble is not None:
        scribble = load_label(case.scribble, grid, case.images[0], dataset.ignore, ignored=True)
    truth = None
    if case.truth is not None:
        truth = load_label(case.truth, grid, case.images[0], dataset.ignore, ignored=False)
    if fitted.crop or locate:
        found = locate(image) if locate else content_box(channels)
        kept = (scribble != UNLABELED) & ((scribble != 0) | (locate is None))
        box = (slice(None), *enclosing_box(found, kept))
        image, scribble, truth = image[:, *box], scribble[box], None if truth is None else truth[box]
    return Volume(case, image, scribble, truth, grid, len(dataset.classes))


def read_scribble(dataset: Dataset, case: Case, plane: str = "spacing") -> tuple[np.ndarray, Grid]:
    """The scribble of a case alone, recoded, uint8 [D, H, W], and its grid. The case must have one."""
    assert case.scribble is not None
    label, grid = read_label(case.scribble, plane=plane)
    return recode(label, dataset.ignore, case.scribble), grid


def drawn_grids(dataset: Dataset, names: Iterable[str], plane: str = "spacing") -> list[Grid]:
    """The grids of those of the cases that have a stroke."""
    return [read_scribble(dataset, dataset.case(name), plane)[1] for name in drawn_cases(dataset, names)]


def drawn_cases(dataset: Dataset, names: Iterable[str]) -> list[str]:
    """Those of the cases that have a stroke: a label with a voxel of another value than ignore.

    A process reads a label for this once, and again if the file has changed. Raises InputError for labels that cannot
    be read.
    """

    def is_drawn(name: str) -> bool:
        path = dataset.case(name).scribble
        if path is None:
            return False
        seen = path.stat() if path.is_file() else None
        version = () if seen is None else (seen.st_mtime_ns, seen.st_ino, seen.st_size)
        return _has_stroke(path, dataset.ignore, version)

    names = list(names)
    return [name for name, drawn in zip(names, for_each("looking for strokes", is_drawn, names, shown=False)) if drawn]


@cache
def _has_stroke(path: Path, ignore: int, version: tuple[int, ...]) -> bool:
    return bool((read_volume(path)[0] != ignore).any())


def load_image(paths: Iterable[Path], fitted: Fitted = PAPERS) -> tuple[np.ndarray, Grid]:
    """The channels of one case, float32 [channels, D, H, W], each normalised as `fitted` says, and their grid."""
    channels, grid = read_channels(paths, fitted.plane)
    return prepare_channels(channels, fitted.intensity), grid


def _components(
    path: Path, order: tuple[int, int, int] | None, plane: str, count: int
) -> tuple[list[np.ndarray], Grid]:
    if count != 1:
        return read_components(path, order, plane)
    series = path.is_dir() and has_series(path)
    voxels, grid = (read_series if series else read_volume)(path, order, plane)
    return [voxels], grid


def prepare_channels(channels: Sequence[np.ndarray], how: Sequence[Intensity]) -> np.ndarray:
    """The channels [D, H, W] of a case, normalised: float32 [channels, D, H, W]. Without `how` as in the papers."""
    each = how or (Intensity(),) * len(channels)
    return np.stack([prepare(channel, one) for channel, one in zip(channels, each, strict=True)])


def read_channels(paths: Iterable[Path], plane: str = "spacing", count: int = 0) -> tuple[list[np.ndarray], Grid]:
    """The channels of one case as they are, float32 [D, H, W] each, and their grid; a picture's colours are channels.

    A picture whose colours are equal is grey where one channel is expected. count: how many channels are expected, 0
    for any number. Raises InputError for another number, for channels on different grids, a file without any contrast,
    and values that are too far apart.
    """
    first_path, *_ = paths = tuple(paths)
    first: Grid | None = None
    channels: list[np.ndarray] = []
    for path in paths:
        order = None if first is None else first.order
        parts, grid = _components(path, order, plane, count)
        image = np.stack([as_image(path, part) for part in parts])
        first = first or grid
        if not grid.same_place(first):
            raise InputError(
                f"{path}: {difference(grid, first)} than {first_path}. All channels of a case need the same grid. "
                "Register or resample them onto one grid with another tool, or correct the headers."
            )
        if image.max() == image.min():
            raise InputError(
                f"{path}: constant image (every voxel is {image.flat[0]:g}); nothing can be seen in it. "
                "Replace or remove the case."
            )
        if float(image.max()) - float(image.min()) > np.finfo(np.float32).max:
            raise InputError(
                f"{path}: has voxels from {image.min():g} to {image.max():g}, too far apart for 32-bit numbers. "
                "Replace them in the file, then try again."
            )
        channels += list(image)
    assert first is not None
    if count not in (0, len(channels)):
        raise InputError(
            f"{first_path}: has {counted(len(channels), 'channel')}; expected {count}. Correct the "
            "file, or channel_names in dataset.json."
        )
    return channels, first


def load_label(path: Path, image: Grid, image_path: Path, ignore: int, ignored: bool) -> np.ndarray:
    """One label file, recoded, in its image's axis order: uint8 [D, H, W].

    Raises InputError for another grid than the image's, and for values that dataset.json does not list.
    """
    label, grid = read_label(path, image.order)
    if not grid.same_place(image):
        raise InputError(
            f"{path}: {difference(grid, image)} than its image {image_path}. {_way_out(grid, image, image_path)}"
        )
    return recode(label, ignore, path, ignored)


def recode(label: np.ndarray, ignore: int, path: Path, ignored: bool = True) -> np.ndarray:
    """Recode file values to 0..C and UNLABELED, uint8. `ignored`: whether the ignore value may occur.

    Raises InputError for any other value.
    """
    allowed = f"0-{ignore - 1}" + (f" or {ignore} (ignore)" if ignored else "")
    bad = label[(label < 0) | (label > ignore - (not ignored))]
    if bad.size:
        raise InputError(
            f"{path}: has value {bad.min()}; expected {allowed}. Correct the file; "
            "classes have the values of dataset.json, 0, 1, 2, … without a gap."
        )
    recoded = label.astype(np.uint8)
    recoded[label == ignore] = UNLABELED
    return recoded


def _way_out(grid: Grid, image: Grid, path: Path) -> str:
    """What can be done about a label whose grid is not that of its image `path`."""
    if grid.turned(image):
        return "No voxel needs to be resampled."
    if grid.sizes == image.sizes:
        return (
            f"If it was made on {path.name}, give it the header of {path.name} and keep its voxels: "
            "nibabel.Nifti1Image(label.dataobj, image.affine, image.header). Do not resample it: that moves voxels, "
            "and thin strokes are lost. `import mscmr` and `import folders` take it with --same-voxels."
        )
    return (
        f"Export it again on the grid of {path.name}. Resampling can lose strokes that are thinner than a voxel: count "
        "the drawn voxels before and after."
    )


def difference(grid: Grid, other: Grid) -> str:
    """How two grids differ, in words for a message."""
    if grid.turned(other):
        return (
            "has its axes in another order or direction, over the same voxels "
            "(save it in the same orientation, without resampling),"
        )
    if grid.sizes != other.sizes:
        return f"has another shape ({' × '.join(map(str, grid.sizes))} and not {' × '.join(map(str, other.sizes))})"
    apart = np.abs(grid.affine - other.affine).max()
    lost = "" if says_place(grid) else "; its header says no place of its voxels"
    return f"has another affine (largest difference {apart:.4g}{lost})"


def says_place(grid: Grid) -> bool:
    """Whether the header of a file says where its voxels lie: in NIfTI by a code, elsewhere with their size."""
    header: Any = grid.header
    coded = not hasattr(header, "keys") or header["sform_code"] or header["qform_code"]
    return grid.unit == "mm" and bool(coded)
