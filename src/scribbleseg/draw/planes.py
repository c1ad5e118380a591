"""How the three planes of a volume are shown: turned so that the patient's right is left, and front or head is up."""

from dataclasses import dataclass, replace

import numpy as np
from nibabel.orientations import io_orientation

from ..data.volume import Grid

LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))  # the start and the end of a shown axis that runs along x, y, z


@dataclass(frozen=True)
class Plane:
    """One plane of an array [D, H, W] as it is shown: which array axes are its rows and columns, and in which order."""

    axis: int  # the array axis that it is taken across
    rows: int
    columns: int
    flip_rows: bool
    flip_columns: bool
    spacing_mm: tuple[float, float]  # between rows, between columns
    edges: tuple[str, str, str, str]  # letters of the left, right, upper and lower edge

    def take(self, volume: np.ndarray, index: int) -> np.ndarray:
        """The plane [rows, columns] of a volume [D, H, W], a view."""
        return self.turn(np.moveaxis(volume, self.axis, 0)[index])

    def turn(self, plane: np.ndarray) -> np.ndarray:
        """From array order to what is shown. A view: what is written to it is written to the plane."""
        plane = plane.T if self.rows > self.columns else plane
        return plane[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def planes(grid: Grid, upright: bool = True) -> tuple[Plane, Plane, Plane]:
    """The planes across the axes D, H, W. An oblique axis counts as the direction that it is nearest to.

    Without `upright` nothing is turned and no edge is named: a picture has no patient.
    """
    if not upright:
        _, *pixel = grid.spacing_mm
        stored = Plane(0, 1, 2, False, False, (pixel[0], pixel[1]), ("", "", "", ""))
        return stored, replace(stored, axis=1, rows=0), replace(stored, axis=2, rows=0, columns=1)
    towards = io_orientation(grid.affine)[list(grid.order)]  # of D, H, W: x, y or z, and the direction in RAS+
    found = []
    for axis in range(3):
        one, other = (each for each in range(3) if each != axis)
        rows, columns = (one, other) if towards[one, 0] > towards[other, 0] else (other, one)  # z above y above x
        left, right = LETTERS[int(towards[columns, 0])]
        up, down = LETTERS[int(towards[rows, 0])]
        found.append(
            Plane(
                axis,
                rows,
                columns,
                bool(towards[rows, 1] > 0),
                bool(towards[columns, 1] > 0),
                (grid.spacing_mm[rows], grid.spacing_mm[columns]),
                (left, right, up, down),
            )
        )
    return found[0], found[1], found[2]
