"""Any geometry that a volume can have survives reading and writing in three formats; the slices lie where they did.

Hypothesis is imported within the tests: it takes seconds, in each of xdist's processes.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from scribbleseg.data.volume import read_label, read_volume, write_volume

ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))
TYPES = ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8", "<i2", ">i2", ">f4"]

RANGES = {"spacing": (0.05, 20), "origin": (-500, 500), "angles": (-np.pi, np.pi), "shear": (-0.3, 0.3)}


def often(check: Callable[..., None], *names: str) -> None:
    """Call `check` with 60 choices of the values that are named, the same in every run of the tests."""
    from hypothesis import HealthCheck, given, settings, strategies

    def three(one):
        return strategies.tuples(*[one] * 3)

    kinds = {name: three(strategies.floats(*RANGES[name], allow_subnormal=False)) for name in RANGES}
    kinds |= {"shape": three(strategies.integers(1, 6))}
    kinds |= {"rows": strategies.integers(2, 6), "columns": strategies.integers(2, 6)}
    kinds |= {"left_handed": strategies.booleans(), "kind": strategies.sampled_from(TYPES)}
    how = settings(
        max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
    )
    how(given(**{name: kinds[name] for name in names})(check))()


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    whole = np.eye(3)
    for axis, angle in enumerate(angles):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[[one, one, other, other], [one, other, one, other]] = [
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        ]
        whole = whole @ turn
    return whole


def placed(axes: np.ndarray, spacing: tuple[float, float, float], origin: tuple[float, float, float]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * spacing, origin
    return affine


def voxels(shape: tuple[int, int, int], kind: str) -> np.ndarray:
    stored = np.arange(np.prod(shape)).reshape(shape) % 100
    return stored.astype(kind)


def goes_round(folder: Path, stored: np.ndarray, affine: np.ndarray, formats: tuple[str, ...], form: str = "s") -> None:
    """The volume is written as NIfTI, read, written in each format, and read again: same voxels at the same points."""
    file = nibabel.Nifti1Image(stored, affine, dtype=stored.dtype)
    if form == "q":
        file.set_sform(None, 0)
        file.set_qform(affine, 1)
    nibabel.save(file, folder / "a.nii")
    array, grid = read_volume(folder / "a.nii")
    smallest = min(np.linalg.norm(affine[:3, :3], axis=0))
    assert np.abs(grid.affine - affine).max() < 1e-3 * smallest + 1e-4
    order = grid.order
    assert array.shape == tuple(stored.shape[axis] for axis in order)
    assert np.array_equal(array, stored.transpose(order))
    assert grid.spacing_mm == pytest.approx([np.linalg.norm(affine[:3, axis]) for axis in order], rel=1e-4)
    for kind in formats:
        write_volume(folder / f"b{kind}", array, grid)
        again, place = read_volume(folder / f"b{kind}", order)
        assert np.array_equal(again, array) and again.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
        assert place.same_place(grid) and place.sizes == grid.sizes
        write_volume(folder / f"c{kind}", again, place)
        assert np.array_equal(read_label(folder / f"c{kind}", order)[0], again)


@pytest.mark.parametrize("form", ["s", "q"])
def test_the_48_orientations(tmp_path, form):
    for number, (order, signs) in enumerate(ORIENTATIONS):
        axes = np.eye(3)[list(order)] * signs
        affine = placed(axes, (0.8, 1.3, 5.0), (10, -20, 30))
        goes_round(tmp_path, voxels((5, 4, 3), TYPES[number % len(TYPES)]), affine, (".nii.gz",), form)


def test_oblique_and_left_handed_volumes(tmp_path):
    def check(shape, spacing, origin, angles, left_handed, kind):
        axes = rotation(angles) * ((-1, 1, 1) if left_handed else (1, 1, 1))
        goes_round(tmp_path, voxels(shape, kind), placed(axes, spacing, origin), (".nii.gz", ".nii"), "q")

    often(check, "shape", "spacing", "origin", "angles", "left_handed", "kind")


def test_nrrd_and_metaimage(tmp_path):
    pytest.importorskip("SimpleITK")

    def check(shape, spacing, origin, angles, kind):
        goes_round(tmp_path, voxels(shape, kind), placed(rotation(angles), spacing, origin), (".nrrd", ".mha"))

    often(check, "shape", "spacing", "origin", "angles", "kind")


def test_sheared_volumes(tmp_path):
    def check(shape, shear, origin, kind):
        axes = np.eye(3)
        axes[0, 1], axes[0, 2], axes[1, 2] = shear
        goes_round(tmp_path, voxels(shape, kind), placed(axes, (0.9, 1.1, 4.0), origin), (".nii.gz",))

    often(check, "shape", "shear", "origin", "kind")


def test_a_single_plane(tmp_path):
    def check(rows, columns, kind):
        affine = placed(np.eye(3), (1, 2, 3), (0, 0, 0))
        goes_round(tmp_path, voxels((rows, columns, 1), kind), affine, (".nii.gz", ".nii"))

    often(check, "rows", "columns", "kind")
