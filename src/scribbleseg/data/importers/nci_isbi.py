"""Import NCI-ISBI 2013 prostate MR in TCIA's layout: DICOM series per patient and NRRD masks."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from ...core.atomic import atomic_folder
from ...core.console import say, tell
from ...core.errors import InputError, counted, first_names
from ...core.parallel import for_each
from ..case import load_label, recode
from ..dicom import find_series, open_series
from ..itk import from_itk, open_itk, reason, simpleitk
from ..volume import Grid, check_geometry, ending, read_label, write_volume
from .protocols import consecutive_fifths, write_splits
from .write import case_paths, write_blanks, write_description

CASE = re.compile(r"(Prostate(?:3T|Dx)-\d\d-\d{4})")
CLASSES = ("PZ", "CG")
IGNORE = len(CLASSES) + 1
ABOUT = {
    "reference": "Bloch et al., NCI-ISBI 2013 Challenge, The Cancer Imaging Archive 2015",
    "licence": "CC BY 3.0",
    "description": "T2 MR of the prostate. labelsTr_dense: the challenge's masks; labels: "
    "scribbles where there are any",
}


def import_nci_isbi(src: Path, dst: Path) -> None:
    """Write the cases below `src` that have a mask and a DICOM series, at any depth, to the new data set `dst`.

    Masks: NRRD named by their patient (Prostate3T-01-0001.nrrd, ProstateDx-01-0006_correctedLabels.nrrd, …_truth.nrrd;
    a corrected one is preferred). Values: 1 peripheral zone, 2 central gland. The series is the one with the mask's
    PatientID and size; its slices are sorted by position. The mask is resampled to the image's grid with nearest
    neighbour, which may only flip or reorder axes: no labelled voxel may be lost. Scribbles are optional: NIfTI or NRRD
    files on the image's grid, named by their patient, with `scribble` in their name or that of their folder (0-2;
    3 = not drawn); a case without one gets a label without strokes. Patients without a mask are named.

    Raises InputError if there are no masks, if a mask has no series of its size (or several) or lies elsewhere, for
    unlisted values, for files that are damaged, and for series that are no volume (`dicom.read_series`).
    """
    simpleitk(src)
    masks, scribbles = _labels(Path(src))
    if not masks:
        raise InputError(
            f"{src}: has no masks such as Prostate3T-01-0001.nrrd. "
            "Give the folder that holds the masks and the DICOM series."
        )
    series = _series(Path(src))

    def write(case: str) -> None:
        mask, image = _pair(masks[case], series.get(case, []))
        voxels, affine, header = from_itk(image)
        check_geometry(Path(series[case][0][0]).parent, affine)
        grid = Grid(voxels.shape, affine, header)
        truth = mask.transpose(grid.order)
        paths = case_paths(folder, case)
        write_volume(paths[0], voxels.transpose(grid.order), grid)
        if case in scribbles:
            drawn = load_label(scribbles[case], grid, masks[case], IGNORE, ignored=True)
            write_volume(paths[1], np.minimum(drawn, IGNORE), grid)  # UNLABELED back to the files' value
        write_volume(paths[2], truth, grid)

    with atomic_folder(dst) as folder:
        for_each("importing NCI-ISBI 2013", write, masks)
        write_blanks(folder, IGNORE)
        write_description(folder, "NCI-ISBI 2013", ("T2",), CLASSES, {case: case for case in masks}, **ABOUT)
        write_splits(folder, {"cv5": consecutive_fifths(masks)}, "cv5")
    if bare := sorted((series.keys() | scribbles.keys()) - masks.keys()):
        say(f"{src}: {counted(len(bare), 'patient')} not imported, without a mask: {first_names(bare)}")
    if len(scribbles.keys() & masks.keys()) < len(masks):
        tell(
            f"without scribbles: {len(masks.keys() - scribbles.keys())} of {counted(len(masks), 'case')}; "
            f"`scribbleseg simulate {dst}` draws them from the masks"
        )


def _labels(src: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Case → mask, case → scribble. What is there and not read is named; a link to nowhere is an error when read."""
    masks: dict[str, Path] = {}
    scribbles: dict[str, Path] = {}
    others: list[str] = []
    for path in sorted(p for kind in ("*.nrrd", "*.nii.gz") for p in src.rglob(f"[!.]{kind}")):
        match = CASE.match(path.name)
        if not match:
            others.append(path.name)
        elif "scribble" in f"{path.parent.name}/{path.name}".lower():
            if match[1] in scribbles:
                raise InputError(
                    f"{path}: is a scribble of {match[1]} as {scribbles[match[1]]} is. Remove one of the two."
                )
            scribbles[match[1]] = path
        elif ending(path) != ".nrrd":
            others.append(path.name)
        elif match[1] not in masks or "corrected" in path.name:
            masks[match[1]] = path
    if others:
        say(f"{src}: {len(others)} not imported, no masks or scribbles: {first_names(others)}")
    return masks, scribbles


def _series(src: Path) -> dict[str, list[tuple[str, ...]]]:
    """PatientID → its DICOM series, each the files in order of their position."""
    found: dict[str, list[tuple[str, ...]]] = {}
    header = simpleitk(src).ImageFileReader()
    for files in find_series(src):
        try:
            header.SetFileName(files[0])
            header.ReadImageInformation()
            found.setdefault(header.GetMetaData("0010|0020").strip(), []).append(files)
        except RuntimeError as error:
            raise InputError(f"{files[0]}: cannot be read ({reason(error)}). Copy the scan again.") from error
    return found


def _pair(path: Path, series: list[tuple[str, ...]]) -> tuple[np.ndarray, Any]:
    """The mask of `path`, uint8 [x, y, z] on the grid of its image, and that image."""
    itk = simpleitk(path)
    values = recode(read_label(path, (0, 1, 2))[0], IGNORE, path, ignored=False)
    drawn = open_itk(path)
    if drawn.GetDimension() != 3:
        raise InputError(f"{path}: has {drawn.GetDimension()} axes; expected a volume.")
    mask = itk.GetImageFromArray(np.ascontiguousarray(values.T))
    fitting = [files for files in series if len(files) == mask.GetDepth()]
    images = [open_series(Path(files[0]).parent, files) for files in fitting]
    images = [image for image in images if image.GetSize() == mask.GetSize()]
    if len(images) != 1:
        numbers = [len(files) for files in series]
        raise InputError(
            f"{path}: {len(images)} DICOM series of its patient have its size {mask.GetSize()}; expected one. "
            f"The patient's series have {numbers or 'no'} slices. Add the T2 series, or remove the others."
        )
    mask.CopyInformation(drawn)
    moved = itk.GetArrayFromImage(itk.Resample(mask, images[0], itk.Transform(), itk.sitkNearestNeighbor)).T
    before, after = (np.bincount(array.ravel(), minlength=IGNORE)[1:].tolist() for array in (values, moved))
    if before != after:
        raise InputError(
            f"{path}: lies elsewhere than its DICOM series (labelled voxels {before}, on the image's grid {after}). "
            "Check its origin and direction."
        )
    return moved, images[0]
