"""Import NCI-ISBI 2013 prostate MR in TCIA's layout: DICOM series per patient and NRRD masks."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...core.atomic import atomic_folder
from ...core.errors import InputError
from ...core.parallel import for_each
from ..case import load_label, recode
from ..itk import from_itk, simpleitk
from ..volume import Grid, ending, write_volume
from .protocols import consecutive_fifths, write_splits
from .write import case_paths, write_description

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
    3 = not drawn).

    Raises InputError if there are no masks, if a mask has no series of its size (or several) or lies elsewhere, and for
    unlisted values.
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
        grid = Grid(voxels.shape, affine, header)
        truth = recode(from_itk(mask)[0].transpose(grid.order), IGNORE, masks[case], ignored=False)
        paths = case_paths(folder, case)
        write_volume(paths[0], voxels.transpose(grid.order), grid)
        if case in scribbles:
            drawn = load_label(scribbles[case], grid, masks[case], IGNORE, ignored=True)
            write_volume(paths[1], np.minimum(drawn, IGNORE), grid)  # UNLABELED back to the files' value
        write_volume(paths[2], truth, grid)

    with atomic_folder(dst) as folder:
        for_each("importing NCI-ISBI 2013", write, masks)
        write_description(folder, "NCI-ISBI 2013", ("T2",), CLASSES, {case: case for case in masks}, **ABOUT)
        write_splits(folder, {"cv5": consecutive_fifths(masks)}, "cv5")
    if len(scribbles.keys() & masks.keys()) < len(masks):
        print(
            f"{len(masks.keys() - scribbles.keys())} of {len(masks)} cases have no scribbles; "
            f"`scribbleseg simulate {dst}` draws them from the masks"
        )


def _labels(src: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Case → mask, case → scribble."""
    masks: dict[str, Path] = {}
    scribbles: dict[str, Path] = {}
    for path in sorted(p for kind in ("*.nrrd", "*.nii.gz") for p in src.rglob(f"[!.]{kind}")):
        match = CASE.match(path.name)
        if not match:
            continue
        if "scribble" in f"{path.parent.name}/{path.name}".lower():
            scribbles[match[1]] = path
        elif ending(path) == ".nrrd" and (match[1] not in masks or "corrected" in path.name):
            masks[match[1]] = path
    return masks, scribbles


def _series(src: Path) -> dict[str, list[tuple[str, ...]]]:
    """PatientID → its DICOM series, each the files in order of their position."""
    itk = simpleitk(src)
    found: dict[str, list[tuple[str, ...]]] = {}
    header = itk.ImageFileReader()
    for folder in sorted({path.parent for path in src.rglob("[!.]*.dcm")}):
        for series in itk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
            files = itk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series)
            header.SetFileName(files[0])
            header.ReadImageInformation()
            found.setdefault(header.GetMetaData("0010|0020").strip(), []).append(files)
    return found


def _pair(path: Path, series: list[tuple[str, ...]]) -> tuple[Any, Any]:
    """The mask of `path` on the grid of its image, and that image."""
    itk = simpleitk(path)
    mask = _read(path, lambda: itk.ReadImage(str(path)))
    fitting = [files for files in series if len(files) == mask.GetDepth()]
    images = [_read(Path(files[0]).parent, partial(itk.ReadImage, files)) for files in fitting]
    images = [image for image in images if image.GetSize() == mask.GetSize()]
    if len(images) != 1:
        numbers = [len(files) for files in series]
        raise InputError(
            f"{path}: {len(images)} DICOM series of its patient have its size {mask.GetSize()}; expected one. "
            f"The patient's series have {numbers or 'no'} slices. Add the T2 series, or remove the others."
        )
    moved = itk.Resample(mask, images[0], itk.Transform(), itk.sitkNearestNeighbor)
    before, after = (
        np.bincount(itk.GetArrayViewFromImage(m).ravel().astype(np.int64), minlength=2)[1:].tolist()
        for m in (mask, moved)
    )
    if before != after:
        raise InputError(
            f"{path}: lies elsewhere than its DICOM series (labelled voxels {before}, on the image's grid {after}). "
            "Check its origin and direction."
        )
    return moved, images[0]


def _read(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RuntimeError as error:
        raise InputError(
            f"{path}: cannot be read ({str(error).splitlines()[-1]}). It may be truncated. Copy it again."
        ) from error
