"""Draw scribbles from dense masks, similar to those of a hand: seeded, and never outside the structure."""

import os
import tempfile
import zlib
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from skimage.measure import euler_number, find_contours
from skimage.morphology import skeletonize

from ... import config
from ...core.atomic import sweep
from ...core.console import tell
from ...core.errors import InputError, counted
from ...core.labels import UNLABELED
from ...core.parallel import for_each
from ...core.seeds import check_seed
from ..case import load_volume, read_scribble
from ..dataset import Case
from ..layout import read_dataset
from ..volume import write_volume

CONTOUR_FROM = 5.5  # pixels: a structure at least this deep also gets an inner contour
CONTOUR_SHARE = 0.9  # the inner contour's strokes are this much shorter than the interior curve's
CONTOUR_DEPTH = (0.25, 0.5)  # where the inner contour runs, as a share of the structure's depth
AROUND = (0.25, 0.85)  # distance of the background curve, as a share of the radius of all structures together
ELSEWHERE = (1.4, 2.2)  # distance of the second background curve, as a multiple of the first one's
ELSEWHERE_SHARE = 0.25  # its strokes are this much shorter
THICKEST = 100  # pixels
JITTER = 0.2  # sideways displacement of a curve, as a share of its distance from the structure's edge


def simulate_scribbles(
    truth: np.ndarray, classes: int, *, coverage: float = 0.85, thickness: int = 1, seed: int = 0
) -> np.ndarray:
    """Scribbles for a dense mask, slice by slice.

    A class gets the long axis of each component's skeleton and, if the component is wide, part of an inner contour. The
    background gets a curve around all structures and a short one further out. Curves are smoothed and displaced
    sideways. `coverage` is the share of each curve that is drawn, `thickness` its width in pixels. The same seed draws
    the same curves at any coverage and thickness. truth [D, H, W], 0..classes-1. Returns uint8 [D, H, W], UNLABELED
    where nothing is drawn; every labelled pixel equals the truth. A class that is present in a slice gets at least one
    pixel, a class that is absent none. Raises InputError for a coverage outside (0, 1] and a thickness below 1.
    """
    if not 0 < coverage <= 1:
        raise InputError(
            f"coverage is {coverage}; expected more than 0 and at most 1, the share of each curve that is drawn."
        )
    if not 1 <= thickness <= THICKEST:
        raise InputError(f"thickness is {thickness}; expected 1 to {THICKEST} pixels.")
    scribble = np.full(truth.shape, UNLABELED, np.uint8)
    for index, mask in enumerate(truth):
        for label in range(classes):
            rng = np.random.default_rng([seed, index, label])
            inside = mask == label
            drawn = (
                _background(inside, coverage, thickness, rng)
                if label == 0
                else _structure(inside, coverage, thickness, rng)
            )
            scribble[index][drawn] = label
    return scribble


def _structure(mask: np.ndarray, coverage: float, thickness: int, rng: np.random.Generator) -> np.ndarray:
    drawn = np.zeros_like(mask)
    components, _ = ndimage.label(mask, np.ones((3, 3)))
    for index, box in enumerate(ndimage.find_objects(components), 1):
        part = np.pad(components[box] == index, 1)
        depth = ndimage.distance_transform_edt(part)
        curves = [(_wobble(_skeleton_path(part, rng), depth, rng), coverage)]
        if depth.max() >= CONTOUR_FROM:
            smooth = ndimage.gaussian_filter(depth, 1)
            contour = _longest_contour(smooth, smooth.max() * rng.uniform(*CONTOUR_DEPTH))
            curves.append((_wobble(contour, depth, rng), coverage * CONTOUR_SHARE))
        drawn[box] |= _draw(curves, part, thickness, rng)[1:-1, 1:-1]
    return drawn


def _background(mask: np.ndarray, coverage: float, thickness: int, rng: np.random.Generator) -> np.ndarray:
    """A curve around everything that is not background, at a varying distance, and a short one further out."""
    if not mask.any():
        return mask
    centre = np.array(mask.shape) * rng.uniform(0.4, 0.6, 2)
    if mask.all():  # a slice without structures: around a place near its middle
        rows, columns = np.indices(mask.shape)
        radius = min(mask.shape) * rng.uniform(0.08, 0.16)
        distance = np.hypot(rows - centre[0], columns - centre[1]) - radius
    else:
        radius = np.sqrt((~mask).sum() / np.pi)
        distance = ndimage.distance_transform_edt(mask)
    distance = ndimage.gaussian_filter(distance, 1 + radius / 8)
    gap = max(4.0, radius * rng.uniform(*AROUND))
    wave = _smooth_noise(mask.shape, max(8.0, radius), rng)
    uneven = distance - 0.25 * gap * wave
    curves = [
        (_longest_contour(uneven, gap), coverage),
        (_longest_contour(uneven, gap * rng.uniform(*ELSEWHERE)), coverage * ELSEWHERE_SHARE),
    ]
    return _draw(curves, mask, thickness, rng)


def _smooth_noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of about unit deviation that changes over `sigma` pixels."""
    coarse = rng.standard_normal([int(np.ceil(size / sigma)) + 3 for size in shape])
    rows, columns = (np.arange(size) / sigma + 1 for size in shape)
    return ndimage.map_coordinates(coarse, np.meshgrid(rows, columns, indexing="ij"), order=3, mode="nearest")


def _longest_contour(field: np.ndarray, level: float) -> np.ndarray:
    """The longest line [N, 2] on which `field` has this level; empty if there is none."""
    if min(field.shape) < 2:
        return np.zeros((0, 2))
    return max(find_contours(field, level), key=len, default=np.zeros((0, 2)))


def _skeleton_path(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The longest path [N, 2] along the skeleton; a ring is cut open at a random place."""
    points = np.argwhere(skeletonize(mask))
    if euler_number(mask, 2) < 1:
        cut = points[rng.integers(len(points))]
        points = points[np.abs(points - cut).max(1) > 1]
    if len(points) < 3:
        return points.astype(float)
    row, column = _neighbours(points)
    graph = coo_array((np.hypot(*(points[row] - points[column]).T), (row, column)), shape=(len(points),) * 2).tocsr()
    end = _farthest(dijkstra(graph, indices=0))
    distance, previous = dijkstra(graph, indices=end, return_predecessors=True)
    path = [_farthest(distance)]
    while path[-1] != end:
        path.append(previous[path[-1]])
    return points[path].astype(float)


def _neighbours(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of points [N, 2] that touch, also at a corner, ordered by the first, then the second of each pair."""
    number = np.full(points.max(0) + 3, -1)
    number[tuple(points.T + 1)] = np.arange(len(points))
    steps = [step for step in np.ndindex(3, 3) if step != (1, 1)]
    found = np.stack([number[tuple((points + step).T)] for step in steps], 1)
    row, which = np.nonzero(found >= 0)
    column = found[row, which]
    order = np.lexsort((column, row))
    return row[order], column[order]


def _farthest(distance: np.ndarray) -> int:
    return int(np.argmax(np.where(np.isfinite(distance), distance, -1)))


def _wobble(curve: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smooth a curve and displace it sideways by a slowly changing share of its distance from the edge."""
    if len(curve) < 6:
        return curve
    closed = np.allclose(curve[0], curve[-1])
    curve = ndimage.gaussian_filter1d(curve, 1.5, axis=0, mode="wrap" if closed else "nearest")
    wave = ndimage.gaussian_filter1d(rng.standard_normal((len(curve), 2)), 6, axis=0, mode="wrap")
    wave /= wave.std() + 1e-6
    room = ndimage.map_coordinates(depth, curve.T, order=1)
    return curve + JITTER * room[:, None] * np.clip(wave, -2, 2)


def _draw(curves: list, mask: np.ndarray, thickness: int, rng: np.random.Generator) -> np.ndarray:
    """Strokes along the curves, cut to the mask. If no stroke falls into the mask: its deepest pixel."""
    line = np.zeros_like(mask)
    for curve, share in curves:
        strokes, phase = rng.integers(1, 4), rng.random()
        if len(curve) == 0:
            continue
        step = np.hypot(*np.diff(curve, axis=0).T)
        along = np.concatenate([[0], np.cumsum(step)])
        at = np.linspace(0, along[-1], max(2, int(along[-1] * 2)))
        place = at / max(along[-1], 1e-6) * strokes + phase
        at = at[np.abs(place % 1 - 0.5) <= share / 2]
        pixel = np.stack([np.rint(np.interp(at, along, axis)) for axis in curve.T]).astype(int)
        pixel = pixel[:, ((pixel >= 0) & (pixel < np.array(mask.shape)[:, None])).all(0)]
        line[tuple(pixel)] = True
    line &= mask
    if not line.any():
        line.flat[ndimage.distance_transform_edt(mask).argmax()] = True
    offset = np.arange(thickness) - (thickness - 1) / 2
    brush = np.hypot(offset[:, None], offset) <= thickness / 2
    return ndimage.binary_dilation(line, brush, origin=-((thickness + 1) % 2)) & mask


def case_seed(seed: int, case: str) -> int:
    """A seed for the case that does not depend on which other cases there are."""
    return zlib.crc32(f"{seed} {case}".encode("utf-8", "surrogateescape"))


def simulate(config: config.Simulate) -> None:
    """Draw labelsTr/CASE from labelsTr_dense/CASE for every case with a dense mask and no strokes.

    With `overwrite` also for those that have a scribble. If one case fails, no file is written. Raises InputError if
    there is no dense mask, or no case left to draw.
    """
    check_seed(config.seed)
    dataset = read_dataset(config.dataset)
    dense = [case for case in dataset.cases.values() if case.truth is not None]

    def is_bare(case: Case) -> bool:
        """Whether the case has no label, or one without strokes."""
        return case.scribble is None or bool((read_scribble(dataset, case)[0] == UNLABELED).all())

    if not dense:
        raise InputError(
            f"{dataset.folder}: no dense masks to draw from; expected labelsTr_dense/CASE{dataset.file_ending}. "
            "Add them."
        )
    if config.overwrite:
        cases = dense
    else:
        cases = [case for case, bare in zip(dense, for_each("reading scribbles", is_bare, dense)) if bare]
    if not cases:
        raise InputError(
            f"{dense[0].scribble}: exists already, and so do the scribbles of all cases with a dense mask "
            f"({len(dense)}). Add --overwrite to replace them."
        )

    def draw(case: Case, folder: Path) -> Path:
        volume = load_volume(dataset, case)
        assert volume.truth is not None
        scribble = simulate_scribbles(
            volume.truth,
            volume.classes,
            coverage=config.coverage,
            thickness=config.thickness,
            seed=case_seed(config.seed, case.id),
        )
        scribble[scribble == UNLABELED] = dataset.ignore
        path = folder / f"{case.id}{dataset.file_ending}"
        write_volume(path, scribble, volume.grid)
        return path

    sweep(dataset.folder, "labelsTr-*")
    with tempfile.TemporaryDirectory(prefix=f".partial-{os.getpid()}-labelsTr-", dir=dataset.folder) as folder:
        paths = for_each("drawing scribbles", lambda case: draw(case, Path(folder)), cases)
        (dataset.folder / "labelsTr").mkdir(exist_ok=True)
        for path in paths:
            os.replace(path, dataset.folder / "labelsTr" / path.name)
    if len(cases) < len(dense):
        tell(
            f"{len(dense) - len(cases)} of {counted(len(dense), 'case')} had a scribble, which was kept. "
            f"Drew scribbles for {counted(len(cases), 'case')}"
        )
