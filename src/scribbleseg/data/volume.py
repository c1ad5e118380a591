"""Read and write one volume file with its geometry: NIfTI, NRRD, MetaImage; PNG and TIFF as volumes of one slice.

Arrays are slices first: [D, H, W]. D is the axis that has one voxel, or else the axis with the largest spacing (the
last axis of the file if spacings are equal to a thousandth), unless another plane is named. Labels and predictions are
read in the axis order of their image.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.atomic import atomic_file
from ..core.errors import InputError
from .itk import has_size, read_itk, write_itk
from .nifti import read_nifti, write_nifti
from .pictures import read_picture, write_picture

APART = 0.05  # of the smallest voxel size: how far apart two places may be that count as one
THIN, THICK = 1e-4, 1e4  # mm: voxel sizes outside are no voxel sizes
FAR = 1e6  # mm from the origin
FLAT = 1e-3  # volume of a voxel over the product of its sizes: below, two axes have one direction
WHOLE = 1e-3  # how far a label may be from a whole number, by the rounding of a scale in the header
NIFTI = (".nii.gz", ".nii")
ITK = (".nrrd", ".mha")
PICTURES = (".png", ".tif", ".tiff")
ENDINGS = NIFTI + ITK + PICTURES
ANATOMY = {"axial": 2, "coronal": 1, "sagittal": 0}  # the axis of RAS+ that the slices lie across
FILE_AXES = {"first": 0, "second": 1, "third": 2}
PLANES = ("spacing", *ANATOMY, *FILE_AXES)  # how the axis that slices lie across may be named


@dataclass(frozen=True)
class Grid:
    """The geometry of a volume, which a prediction takes from its image."""

    shape: tuple[int, ...]  # as stored in the file
    affine: np.ndarray  # 4×4, voxel index (x, y, z) → mm, RAS+
    header: object  # nibabel header (in the file's unit), or SimpleITK (spacing, origin, direction) in mm
    plane: str = "spacing"  # one of PLANES: which file axis the slices lie across
    unit: str = "mm"  # "voxels" where the file does not say how large a voxel is: each counts as 1 × 1 × 1

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Voxels along the three axes of the file; a slice without a third axis has 1."""
        x, y, z = (*self.shape, 1, 1)[:3]
        return x, y, z

    @property
    def order(self) -> tuple[int, int, int]:
        """File axes in array order: the slice axis, then the other two reversed (rows before columns)."""
        slice_axis = self.across(self.plane)
        rows, columns = (axis for axis in (2, 1, 0) if axis != slice_axis)
        return slice_axis, rows, columns

    def across(self, plane: str) -> int:
        """The file axis that slices of a plane lie across.

        "spacing": the axis with one voxel, or else the largest spacing. axial, coronal, sagittal: the axis nearest to
        the patient's. first, second, third: that axis of the file.
        """
        if plane in FILE_AXES:
            return FILE_AXES[plane]
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        if plane in ANATOMY:
            return int(np.argmax(np.abs(self.affine[ANATOMY[plane], :3]) / spacing))
        single = [size == 1 for size in self.sizes]
        return max(range(3), key=lambda axis: (single[axis], spacing[axis] >= 0.999 * spacing.max(), axis))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size in array order (slice distance, row distance, column distance), mm."""
        return self.spacing_along(self.order)

    def spacing_along(self, order: tuple[int, int, int]) -> tuple[float, float, float]:
        """Voxel size along these axes of the file, mm."""
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        first, second, third = (float(spacing[axis]) for axis in order)
        return first, second, third

    def same_place(self, other: "Grid") -> bool:
        """Whether both grids put every voxel at the same point, to a twentieth of the smallest voxel size."""
        if self.sizes != other.sizes:
            return False
        corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]) * (
            *np.maximum(np.array(self.sizes) - 1, 1),
            1,
        )
        apart = np.abs(corners @ (self.affine - other.affine).T).max()
        return bool(apart <= APART * min(self.spacing_mm))

    def turned(self, other: "Grid") -> bool:
        """Whether both have the same voxels at the same points, but with the axes in another order or direction."""
        from nibabel.orientations import inv_ornt_aff, io_orientation, ornt_transform

        if (
            len(self.shape) != 3
            or len(other.shape) != 3
            or not all(abs(np.linalg.det(grid.affine)) > 1e-12 for grid in (self, other))
        ):
            return False
        turn = ornt_transform(io_orientation(self.affine), io_orientation(other.affine))
        shape = tuple(self.shape[axis] for axis in np.argsort(turn[:, 0]))
        return not self.same_place(other) and Grid(
            shape, self.affine @ inv_ornt_aff(turn, self.shape), None
        ).same_place(other)


def ending(path: Path) -> str:
    """The file ending that decides the format, one of ENDINGS. Raises InputError for another."""
    for known in ENDINGS:
        if str(path).lower().endswith(known):
            return known
    raise InputError(f"{path}: not a volume that can be read; expected one of {', '.join(ENDINGS)}.")


def dead_link(path: Path) -> str:
    """Where a link leads that leads to nothing; empty for what is no such link."""
    return f"links to {os.readlink(path)}, which is gone" if path.is_symlink() and not path.exists() else ""


def read_volume(
    path: Path, order: tuple[int, int, int] | None = None, plane: str = "spacing"
) -> tuple[np.ndarray, Grid]:
    """The voxels [D, H, W] in the file's own number type (scaled if the header says so), and their grid.

    `order` of the file's axes; by default that of its own grid, cut in `plane` (one of PLANES). Raises InputError for
    a missing, damaged or 4-D file, for a file without voxels, for a geometry that is none, and for voxels that are not
    real numbers.
    """
    parts, grid = read_components(path, order, plane)
    if any((part != parts[0]).any() for part in parts[1:]):
        raise InputError(
            f"{path}: has {len(parts)} colours; expected one real number per voxel. Convert it to grey, or, if it is a "
            "label, write class values."
        )
    return parts[0], grid


def read_components(
    path: Path, order: tuple[int, int, int] | None = None, plane: str = "spacing"
) -> tuple[list[np.ndarray], Grid]:
    """As `read_volume`, but of a coloured picture all colours, [D, H, W] each."""
    path = Path(path)
    kind = ending(path)
    if not path.is_file():
        raise InputError(f"{path}: {dead_link(path) or 'no such file'}. Correct the path.")
    if kind in PICTURES:
        pixels = read_picture(path)
        stored, affine, header = pixels[:, :, 0] if pixels.ndim == 3 else pixels, np.eye(4), None
        others = [] if pixels.ndim == 2 else [pixels[:, :, colour] for colour in range(1, pixels.shape[2])]
    else:
        stored, affine, header = read_nifti(path) if kind in NIFTI else read_itk(path)
        others = []
    sized = kind in NIFTI or (kind in ITK and has_size(path))
    if stored.ndim < 2 or stored.size == 0:
        raise InputError(
            f"{path}: has shape {stored.shape}; expected a 3-D volume, or one 2-D slice. Export the scan again."
        )
    if stored.size != np.prod(stored.shape[:3]):
        raise InputError(
            f"{path}: has shape {stored.shape}; expected a 3-D volume. "
            "Split it into one file per time point or channel."
        )
    if stored.dtype.kind not in "biuf":
        raise InputError(
            f"{path}: has voxels of type {stored.dtype}; expected one real number per voxel. "
            "Convert colours to grey, complex values to magnitudes."
        )
    check_geometry(path, affine)
    grid = Grid(stored.shape, affine, header, plane, "mm" if sized else "voxels")
    axes = order or grid.order
    return [part.reshape((*part.shape, 1)[:3]).transpose(axes) for part in (stored, *others)], grid


def check_geometry(path: Path, affine: np.ndarray) -> None:
    """Raises InputError for an affine (voxel index → mm) that places no volume in space, with what is wrong in it."""
    sizes = np.linalg.norm(np.nan_to_num(affine[:3, :3], posinf=np.inf, neginf=np.inf), axis=0)
    shown = " × ".join(f"{size:g}" for size in sizes)
    wrong = ""
    if not np.isfinite(affine).all():
        wrong = "the matrix from voxels to mm has values that are NaN or infinite"
    elif not ((sizes >= THIN) & (sizes <= THICK)).all():
        wrong = f"the voxel size is {shown} mm; expected {THIN:g} to {THICK:g} mm"
    elif abs(np.linalg.det(affine[:3, :3] / sizes)) < FLAT:
        wrong = "two of its axes have the same direction"
    elif np.abs(affine[:3, 3]).max() > FAR:
        wrong = f"the first voxel lies {np.abs(affine[:3, 3]).max():g} mm from the origin"
    if wrong:
        raise InputError(
            f"{path}: its geometry cannot be used: {wrong}. Correct the header (in NIfTI: pixdim, the quaternion and "
            "the rows srow_x, srow_y, srow_z), or convert the scan again."
        )


def check_unit(path: object, grid: Grid, unit: str) -> None:
    """Raises InputError for a grid without a voxel size where lengths count in mm (unit: "mm" or "voxels")."""
    if unit == "mm" and grid.unit != "mm":
        raise InputError(
            f"{path}: does not say how large its voxels are; expected lengths in mm. Write their size into the header "
            "(space directions of NRRD, ElementSpacing of MetaImage), or convert the scan again. If nobody knows it, "
            'write "spacing": "voxels" into dataset.json and train on that: all lengths are in voxels then.'
        )


def read_image(
    path: Path, order: tuple[int, int, int] | None = None, plane: str = "spacing"
) -> tuple[np.ndarray, Grid]:
    """Intensities, float32 [D, H, W], and their grid; the rest as in read_volume. Raises InputError for NaN or inf."""
    voxels, grid = read_volume(path, order, plane)
    return as_image(path, voxels), grid


def as_image(path: Path, voxels: np.ndarray) -> np.ndarray:
    """The voxels of a file as float32. Raises InputError for NaN or inf."""
    image = np.ascontiguousarray(voxels, dtype=np.float32)
    bad = image.size - int(np.isfinite(image).sum())
    if bad:
        raise InputError(
            f"{path}: {bad} of {image.size} voxels are NaN or infinite. Replace them in the file, then try again."
        )
    return image


def read_label(
    path: Path, order: tuple[int, int, int] | None = None, plane: str = "spacing"
) -> tuple[np.ndarray, Grid]:
    """Label values, int32 [D, H, W], and their grid; the rest as in read_volume. Raises InputError for fractions."""
    voxels, grid = read_volume(path, order, plane)
    return whole_numbers(path, voxels), grid


def whole_numbers(path: Path, voxels: np.ndarray) -> np.ndarray:
    """The values of a label file as int32. Raises InputError for fractions, NaN and what is too large."""
    if voxels.dtype.kind == "f":
        whole = np.rint(voxels)
        wrong = ~(np.abs(voxels - whole) <= WHOLE)  # NaN too
        if wrong.any():
            raise InputError(
                f"{path}: has label value {voxels[wrong].flat[0]}; expected whole numbers. It may have been resampled "
                "with interpolation. Go back to the label as it was drawn."
            )
        if whole.min(initial=np.inf) == whole.max(initial=-np.inf) and voxels.min() != voxels.max():
            raise InputError(
                f"{path}: has different label values, {voxels.min():g} to {voxels.max():g}, that all round to "
                f"{whole.flat[0]:g}. Is the scale in its header right (scl_slope of NIfTI)? Expected whole numbers."
            )
        voxels = whole
    odd = voxels[(voxels < -(2**31)) | (voxels >= 2**31)]
    if odd.size:
        raise InputError(f"{path}: has label value {odd.flat[0]}; expected the values of dataset.json.")
    return np.ascontiguousarray(voxels, dtype=np.int32)


def check_room(path: Path, grid: Grid) -> None:
    """Raises InputError for a volume of several slices that a picture is to hold."""
    if ending(path) in PICTURES and 1 not in grid.sizes:
        raise InputError(
            f"{path}: {ending(path)} holds one slice; this scan has {grid.sizes[grid.order[0]]}. "
            f"Name a file that ends in {NIFTI[0]}."
        )


def write_volume(
    path: Path, array: np.ndarray, grid: Grid, complete: Callable[[Path], object] = lambda partial: None
) -> None:
    """Write [D, H, W] atomically, in the format of `path`'s ending; shape, affine and header come from the grid.

    `complete` is called with the complete file before it gets its name. Raises InputError as `check_room` does.
    """
    check_room(path, grid)
    kind = ending(path)
    stored = array.transpose(np.argsort(grid.order)).reshape(grid.shape)
    with atomic_file(path) as partial:
        if kind in PICTURES:
            single = max(axis for axis in range(3) if grid.sizes[axis] == 1)
            write_picture(partial, stored.reshape(np.delete(grid.sizes, single)))
        else:
            (write_nifti if kind in NIFTI else write_itk)(partial, stored, grid.affine, grid.header)
        complete(partial)
