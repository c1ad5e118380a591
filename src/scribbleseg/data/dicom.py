"""Read a DICOM series through SimpleITK: its slices make a volume, or it is refused."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InputError, counted, first_names
from .itk import from_itk, reason, simpleitk
from .volume import Grid, check_geometry

SIZES = ("0028|0030", "0018|1164")  # PixelSpacing, ImagerPixelSpacing
FRAMES = "0028|0008"  # a file of many frames says its sizes in a sequence, which SimpleITK does not list
EVEN = 0.01  # of the slice distance: how far a slice of a series may lie from where even distances put it
SLICE = re.compile(r".*\.(dcm|dicom|ima)", re.IGNORECASE)  # a name that says that the file is DICOM


def has_series(folder: Path) -> bool:
    """Whether a folder, or one below it, holds DICOM files."""
    return any(path.is_file() and is_dicom(path) for path in sorted(folder.rglob("[!.]*")))


def read_series(
    folder: Path, order: tuple[int, int, int] | None = None, plane: str = "spacing"
) -> tuple[np.ndarray, Grid]:
    """The voxels [D, H, W] of the only series below a folder, and their grid; order and plane as in `read_volume`.

    Raises InputError for no series or several, for a geometry that is none, and what `find_series` and `open_series`
    raise.
    """
    series = find_series(folder)
    if len(series) != 1:
        sizes = ", ".join(f"{counted(len(files), 'file')} ({Path(files[0]).name} …)" for files in series) or "none"
        raise InputError(f"{folder}: has {len(series)} DICOM series: {sizes}; expected one. Move the others elsewhere.")
    voxels, affine, _ = from_itk(open_series(folder, series[0]))
    check_geometry(folder, affine)
    grid = Grid(voxels.shape, affine, None, plane)
    return voxels.transpose(order or grid.order), grid


def find_series(folder: Path) -> list[tuple[str, ...]]:
    """The DICOM series below a folder, each the files in order of their position.

    Raises InputError for a file that looks like DICOM and belongs to no series: SimpleITK leaves out damaged ones.
    """
    itk = simpleitk(folder)
    found: list[tuple[str, ...]] = []
    try:
        for place_of in [folder, *sorted(path for path in folder.rglob("[!.]*") if path.is_dir())]:
            for name in itk.ImageSeriesReader.GetGDCMSeriesIDs(str(place_of)):
                found.append(itk.ImageSeriesReader.GetGDCMSeriesFileNames(str(place_of), name))
    except RuntimeError as error:
        raise InputError(f"{folder}: cannot be read ({reason(error)}). Copy it again.") from error
    used = {Path(name).resolve() for files in found for name in files}
    left = [
        path.name
        for path in sorted(folder.rglob("[!.]*"))
        if (path.is_symlink() or path.is_file()) and path.resolve() not in used and _looks_like_slice(path)
    ]
    if left and found:
        raise InputError(
            f"{folder}: {first_names(left)}: not read as part of the series, perhaps damaged. Copy the scan again, or "
            "move what is no slice elsewhere."
        )
    return found


def open_series(folder: Path, files: Sequence[str]) -> Any:
    """The SimpleITK image of a series of `find_series`; folder: what a message names.

    Raises InputError for files that cannot be read or do not say how large a pixel is, for colours, for slices that are
    turned to each other, and for slices at uneven distances, at one place or shifted sideways (a tilted gantry).
    """
    itk = simpleitk(folder)
    reader = itk.ImageFileReader()
    positions, directions, kinds, sized = [], [], set(), True
    try:
        for file in files:
            reader.SetFileName(file)
            reader.ReadImageInformation()
            positions.append(reader.GetOrigin())
            directions.append(reader.GetDirection())
            kinds.add(reader.GetPixelID())
            sized = sized and any(reader.HasMetaDataKey(key) for key in (*SIZES, FRAMES))
        colours = reader.GetNumberOfComponents() > 1
        mixed = len(kinds) > 1 and not colours  # each slice has its own scale, as in PET: none may be rounded
        image = itk.ReadImage(files, itk.sitkFloat64 if mixed else itk.sitkUnknown)
    except RuntimeError as error:
        raise InputError(f"{folder}: cannot be read ({reason(error)}). Copy it again.") from error
    if not sized and image.GetSpacing()[:2] == (1, 1):
        raise InputError(f"{folder}: its slices do not say how large a pixel is (PixelSpacing). Export the scan again.")
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(f"{folder}: has colours; expected one number per voxel. Export the series in grey.")
    _check_places(folder, image, np.array(positions), np.array(directions))
    return image


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does: the letters DICM stand at byte 128."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _looks_like_slice(path: Path) -> bool:
    if path.name.upper() == "DICOMDIR":
        return False
    return SLICE.fullmatch(path.name) is not None or not path.is_file() or is_dicom(path)


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
