"""Read a DICOM series, the files of one folder, as a volume through SimpleITK."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError, first_names
from .itk import from_itk, simpleitk
from .volume import Grid, check_geometry

EVEN = 0.01  # of the slice distance: how far a slice of a series may lie from where even distances put it
SLICE = re.compile(r".*\.(dcm|dicom|ima)", re.IGNORECASE)  # a name that says that the file is DICOM


def read_series(folder: Path) -> tuple[np.ndarray, Grid]:
    """The voxels [D, H, W] of the only series below a folder, and their grid. Raises InputError for what is no volume.

    That is: no series or several, a file that is damaged or belongs to no series, slices that are turned to each other,
    at uneven distances, at one place or shifted sideways (a tilted gantry), and a geometry that is none.
    """
    voxels, affine, header = from_itk(_open_series(folder))
    check_geometry(folder, affine)
    grid = Grid(voxels.shape, affine, header)
    return voxels.transpose(grid.order), grid


def has_series(folder: Path) -> bool:
    """Whether a folder, or one below it, holds DICOM files: the letters DICM stand at byte 128."""
    for path in sorted(folder.rglob("[!.]*")):
        if path.is_file() and _is_dicom(path):
            return True
    return False


def _is_dicom(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _open_series(folder: Path) -> Any:
    """The SimpleITK image of the series, slices in order of their position; raises as `read_series`."""
    itk = simpleitk(folder)
    series: list[Sequence[str]] = []
    try:
        for place_of in [folder, *sorted(path for path in folder.rglob("[!.]*") if path.is_dir())]:
            for name in itk.ImageSeriesReader.GetGDCMSeriesIDs(str(place_of)):
                series.append(itk.ImageSeriesReader.GetGDCMSeriesFileNames(str(place_of), name))
        if len(series) != 1:
            sizes = ", ".join(f"{len(files)} files ({Path(files[0]).name} …)" for files in series) or "none"
            raise InputError(
                f"{folder}: has {len(series)} DICOM series: {sizes}; expected one. Move the others elsewhere."
            )
        _check_all_used(folder, series[0])
        reader = itk.ImageFileReader()
        positions, directions, kinds = [], [], set()
        for file in series[0]:
            reader.SetFileName(file)
            reader.ReadImageInformation()
            positions.append(reader.GetOrigin())
            directions.append(reader.GetDirection())
            kinds.add(reader.GetPixelID())
        colours = reader.GetNumberOfComponents() > 1
        mixed = len(kinds) > 1 and not colours  # each slice has its own scale, as in PET: none may be rounded
        image = itk.ReadImage(series[0], itk.sitkFloat64 if mixed else itk.sitkUnknown)
    except InputError:
        raise
    except RuntimeError as error:
        raise InputError(f"{folder}: cannot be read ({str(error).splitlines()[-1]}). Copy it again.") from error
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(f"{folder}: has colours; expected one number per voxel. Export the series in grey.")
    _check_places(folder, image, np.array(positions), np.array(directions))
    return image


def _check_all_used(folder: Path, series: Sequence[str]) -> None:
    """Raises InputError for files that look like DICOM and are not in the series: the reader drops damaged ones."""
    used = {Path(name).resolve() for name in series}
    left = [
        path.name
        for path in sorted(folder.rglob("[!.]*"))
        if (path.is_symlink() or path.is_file()) and path.resolve() not in used and _looks_like_slice(path)
    ]
    if left:
        raise InputError(
            f"{folder}: {first_names(left)}: not read as part of the series, perhaps damaged. Copy the scan again, or "
            "move what is no slice elsewhere."
        )


def _looks_like_slice(path: Path) -> bool:
    if path.name.upper() == "DICOMDIR":
        return False
    return SLICE.fullmatch(path.name) is not None or not path.is_file() or _is_dicom(path)


def _check_places(folder: Path, image: Any, positions: np.ndarray, directions: np.ndarray) -> None:
    """Raises InputError unless the slices' own headers put them where the volume does."""
    if len(positions) < 2:
        return
    if np.abs(directions - directions[0]).max() > EVEN:
        raise InputError(
            f"{folder}: its slices are turned to each other; expected one direction. The folder may hold several "
            "scans. Move the others elsewhere."
        )
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    if steps.max() == 0:
        raise InputError(f"{folder}: its {len(positions)} slices lie at one place; expected a volume.")
    if steps.max() - steps.min() > EVEN * steps.max():
        raise InputError(
            f"{folder}: its slices are {steps.min():.4g} to {steps.max():.4g} mm apart; expected even distances. "
            "A slice may be missing, or the folder holds two scans. Add it, or convert the scan with another tool."
        )
    expected = [image.TransformIndexToPhysicalPoint((0, 0, number)) for number in range(len(positions))]
    apart = np.linalg.norm(np.array(expected) - positions, axis=1).max()
    if apart > EVEN * steps.max() * len(positions):
        raise InputError(
            f"{folder}: its slices are shifted sideways by up to {apart:.4g} mm, as a tilted gantry does; the volume "
            "would be out of shape. Convert the scan with a tool that corrects the tilt, such as dcm2niix."
        )
