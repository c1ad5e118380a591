"""Read and write one volume file with its geometry: NIfTI through nibabel, NRRD and MetaImage through SimpleITK.

Arrays are slices first: [D, H, W]. D is the axis that has one voxel, or else the axis with the largest spacing (the
last axis of the file if spacings are equal to a thousandth). Labels and predictions are read in the axis order of their
image.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.atomic import atomic_file
from ..core.errors import InputError

NIFTI = (".nii.gz", ".nii")
ITK = (".nrrd", ".mha")


@dataclass(frozen=True)
class Grid:
    """The geometry of a volume, which a prediction takes from its image."""

    shape: tuple[int, ...]  # as stored in the file
    affine: np.ndarray  # 4×4, voxel index (x, y, z) → mm, RAS+
    header: object  # nibabel header, or SimpleITK (spacing, origin, direction)

    @property
    def order(self) -> tuple[int, int, int]:
        """File axes in array order: the slice axis, then the other two reversed (rows before columns)."""
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        single = [size == 1 for size in (*self.shape, 1)[:3]]
        slice_axis = max(range(3), key=lambda axis: (single[axis], spacing[axis] >= 0.999 * spacing.max(), axis))
        rows, columns = (axis for axis in (2, 1, 0) if axis != slice_axis)
        return slice_axis, rows, columns

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size in array order (slice distance, row distance, column distance), mm."""
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        between, rows, columns = (float(spacing[axis]) for axis in self.order)
        return between, rows, columns

    def same_place(self, other: "Grid") -> bool:
        """Whether both grids put every voxel at the same point, to a hundredth of the smallest voxel size."""
        if self.shape != other.shape:
            return False
        corners = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]) * (
            *np.maximum(np.array(self.shape[:3] + (1,) * (3 - len(self.shape[:3]))) - 1, 1),
            1,
        )
        apart = np.abs(corners @ (self.affine - other.affine).T).max()
        return bool(apart <= 0.01 * max(min(self.spacing_mm), 1e-6))

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
    """The file ending that decides the format (`.nii.gz`, `.nii`, `.nrrd`, `.mha`). Raises InputError for another."""
    for known in NIFTI + ITK:
        if str(path).lower().endswith(known):
            return known
    raise InputError(f"{path}: not a volume that can be read; expected one of {', '.join(NIFTI + ITK)}.")


def read_volume(path: Path, order: tuple[int, int, int] | None = None) -> tuple[np.ndarray, Grid]:
    """The voxels [D, H, W] in the file's own number type (scaled if the header says so), and their grid.

    `order` of the file's axes; by default that of its own grid. Raises InputError for a missing, truncated or 4-D
    file, for a file without voxels, and for voxels that are not real numbers.
    """
    path = Path(path)
    kind = ending(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file. Correct the path.")
    stored, affine, header = _read_nifti(path) if kind in NIFTI else _read_itk(path)
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
    grid = Grid(stored.shape, affine, header)
    return stored.reshape((*stored.shape, 1)[:3]).transpose(order or grid.order), grid


def read_image(path: Path, order: tuple[int, int, int] | None = None) -> tuple[np.ndarray, Grid]:
    """Intensities, float32 [D, H, W], and their grid; `order` as in read_volume. Raises InputError for NaN or inf."""
    voxels, grid = read_volume(path, order)
    image = np.ascontiguousarray(voxels, dtype=np.float32)
    bad = image.size - int(np.isfinite(image).sum())
    if bad:
        raise InputError(
            f"{path}: {bad} of {image.size} voxels are NaN or infinite. Replace them in the file, then try again."
        )
    return image, grid


def read_label(path: Path, order: tuple[int, int, int] | None = None) -> tuple[np.ndarray, Grid]:
    """Label values, int32 [D, H, W], and their grid; `order` as in read_volume. Raises InputError for fractions."""
    voxels, grid = read_volume(path, order)
    label = np.ascontiguousarray(voxels if voxels.dtype.kind in "biu" else np.rint(voxels), dtype=np.int32)
    if voxels.dtype.kind == "f" and not np.array_equal(label, voxels):
        worst = voxels[label != voxels].flat[0]
        raise InputError(
            f"{path}: has label value {worst}; expected whole numbers. "
            "It may have been resampled with interpolation. Use nearest neighbour."
        )
    return label, grid


def write_volume(path: Path, array: np.ndarray, grid: Grid) -> None:
    """Write [D, H, W] atomically, in the format of `path`'s ending; shape, affine and header come from the grid."""
    kind = ending(path)
    stored = array.transpose(np.argsort(grid.order)).reshape(grid.shape)
    with atomic_file(path) as partial:
        (_write_nifti if kind in NIFTI else _write_itk)(partial, stored, grid)


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, object]:
    import nibabel

    try:
        file: Any = nibabel.load(path)
        return np.asanyarray(file.dataobj), file.affine, file.header
    except Exception as error:  # nibabel lets zlib, OSError and its own errors through
        raise InputError(
            f"{path}: cannot be read as NIfTI ({error}). It may be truncated, or in another format. "
            "Copy or convert it again."
        ) from error


def _write_nifti(path: Path, stored: np.ndarray, grid: Grid) -> None:
    import nibabel

    header = grid.header.copy() if isinstance(grid.header, nibabel.Nifti1Header) else None
    kind = nibabel.Nifti2Image if isinstance(header, nibabel.Nifti2Header) else nibabel.Nifti1Image
    file = kind(stored, grid.affine, header)
    file.set_data_dtype(stored.dtype)
    if header is not None:
        file.header["cal_max"] = file.header["cal_min"] = 0
    nibabel.save(file, path)


def _simpleitk(path: Path) -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise InputError(f"{path}: this format needs SimpleITK. Run: pip install SimpleITK") from error
    return SimpleITK


_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def _read_itk(path: Path) -> tuple[np.ndarray, np.ndarray, object]:
    itk = _simpleitk(path)
    try:
        file = itk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(
            f"{path}: cannot be read ({str(error).splitlines()[-1]}). It may be truncated, or in another format. "
            "Copy or convert it again."
        ) from error
    if (numbers := file.GetNumberOfComponentsPerPixel()) > 1:
        raise InputError(
            f"{path}: has {numbers} numbers in every voxel; expected one. "
            "Convert colours to grey, and split channels into one file each."
        )
    return from_itk(file)


def from_itk(file: Any) -> tuple[np.ndarray, np.ndarray, object]:
    """(voxels [x, y, z], affine in RAS+ mm, header) of a SimpleITK image; vector and 4-D images keep that axis."""
    import SimpleITK as itk

    stored = itk.GetArrayFromImage(file).T
    header = (file.GetSpacing(), file.GetOrigin(), file.GetDirection())
    if file.GetDimension() != 3:
        return stored, np.eye(4), header
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(header[2], (3, 3)) * header[0]
    affine[:3, 3] = header[1]
    return stored, _LPS_TO_RAS @ affine, header


def _write_itk(path: Path, stored: np.ndarray, grid: Grid) -> None:
    itk = _simpleitk(path)
    file = itk.GetImageFromArray(stored.T)
    if isinstance(grid.header, tuple):
        spacing, origin, direction = grid.header
    else:
        affine = _LPS_TO_RAS @ grid.affine
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        origin, direction = affine[:3, 3], (affine[:3, :3] / spacing).ravel()
    file.SetSpacing([float(v) for v in spacing])
    file.SetOrigin([float(v) for v in origin])
    file.SetDirection([float(v) for v in direction])
    try:
        itk.WriteImage(file, str(path), useCompression=True)
    except RuntimeError as error:
        raise OSError(str(error).splitlines()[-1]) from error
