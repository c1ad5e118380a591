"""Dice, HD95 and ASSD of two masks, equal to medpy 0.5 (`dc`, `hd95`, `assd`) where medpy defines them.

Masks are boolean, [D, H, W] (or any other number of axes), and spacing_mm has one number per axis. The surface S(A) of
a mask is the set of its voxels that have a face neighbour outside of it. Beyond the edge of the volume is outside.

    case                                 Dice   HD95, ASSD   missing   spurious
    both masks empty                     nan    nan          no        no         nothing to score: not counted
    truth there, prediction empty        0      nan          yes       no
    truth empty, prediction there        0      nan          no        yes
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from ..core.errors import InputError


class Scores(NamedTuple):
    """One structure of one case; nan where a value is undefined."""

    dice: float
    hd95_mm: float
    assd_mm: float
    missing: bool  # truth there, nothing predicted
    spurious: bool  # something predicted, no truth


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """2|A ∩ B| / (|A| + |B|), 0 to 1; nan if both masks are empty.

    Raises InputError unless the masks are boolean and of one shape.
    """
    _check(prediction, truth)
    return _dice(prediction, truth)


def hd95_mm(prediction: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, ...]) -> float:
    """95th percentile of the surface distances of both directions taken together, mm; nan when a mask is empty.

    percentile95({d(a, S(B)) : a ∈ S(A)} ∪ {d(b, S(A)) : b ∈ S(B)}), linear interpolation.
    MONAI's differs: the larger of the two directions' percentiles. So does that of surface-distance, which also weighs
    each piece of a surface by its area.
    """
    return score(prediction, truth, spacing_mm).hd95_mm


def assd_mm(prediction: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, ...]) -> float:
    """Mean of the surface distances of both directions taken together, mm; nan when a mask is empty.

    (Σ_{a ∈ S(A)} d(a, S(B)) + Σ_{b ∈ S(B)} d(b, S(A))) / (|S(A)| + |S(B)|), as in medpy from 0.5 on. medpy 0.4 took the
    mean of the two directions' means (medpy issue 108).
    """
    return score(prediction, truth, spacing_mm).assd_mm


def score(prediction: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, ...]) -> Scores:
    """Dice, HD95 and ASSD at once. The table of the module says what empty masks give.

    Raises InputError for masks that are not boolean or differ in shape, and for a spacing that is not one positive
    number per axis.
    """
    _check(prediction, truth)
    spacing = np.asarray(spacing_mm, float)
    if spacing.shape != (truth.ndim,) or not np.all(spacing > 0):
        raise InputError(
            f"spacing_mm is {spacing_mm}; expected {truth.ndim} positive numbers, one per axis of the masks."
        )
    box = _box(prediction | truth)
    prediction, truth = prediction[box], truth[box]
    predicted, existing = bool(prediction.any()), bool(truth.any())
    hd95 = assd = np.nan
    if predicted and existing:
        distances = _surface_distances(_surface(prediction), _surface(truth), spacing)
        hd95, assd = float(np.percentile(distances, 95)), float(distances.mean())
    return Scores(_dice(prediction, truth), hd95, assd, existing and not predicted, predicted and not existing)


def diagonal_mm(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> float:
    """Length of the volume's diagonal, mm: what a missing structure costs in the penalised HD95."""
    return float(np.linalg.norm(np.multiply(shape, spacing_mm)))


def _check(prediction: np.ndarray, truth: np.ndarray) -> None:
    if prediction.dtype != bool or truth.dtype != bool:
        raise InputError(
            f"masks have types {prediction.dtype} and {truth.dtype}; expected bool. "
            "Compare with a class first: label == 1."
        )
    if prediction.shape != truth.shape:
        raise InputError(f"prediction has shape {prediction.shape}, truth {truth.shape}; expected the same.")


def _dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * np.count_nonzero(prediction & truth) / total if total else np.nan


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """Slices of the bounding box; empty slices for an empty mask."""
    box = []
    for axis in range(mask.ndim):
        filled = np.flatnonzero(mask.any(tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(filled[0], filled[-1] + 1) if filled.size else slice(0, 0))
        mask = mask[(slice(None),) * axis + (box[-1],)]
    return tuple(box)


def _surface(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(mask.ndim):
        for neighbour in (slice(None, -2), slice(2, None)):
            window = [slice(1, -1)] * mask.ndim
            window[axis] = neighbour
            inner &= padded[tuple(window)]
    return mask & ~inner


def _surface_distances(one: np.ndarray, other: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distances of both directions. Only voxels that the surfaces do not share are looked up; the others are at 0."""
    there = _tree(_points(other, spacing)).query(_points(one & ~other, spacing))[0]
    back = _tree(_points(one, spacing)).query(_points(other & ~one, spacing))[0]
    return np.concatenate([there, back, np.zeros(2 * np.count_nonzero(one & other))])


def _tree(points: np.ndarray) -> KDTree:
    return KDTree(points, leafsize=24, compact_nodes=False, balanced_tree=False)  # faster to build for grid points


def _points(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """np.argwhere(mask) * spacing, several times faster."""
    return np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape), 1) * spacing
