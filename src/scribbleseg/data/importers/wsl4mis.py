"""Import ACDC in WSL4MIS's layout: h5 files with `image`, `label` and `scribble`."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from ...core.atomic import atomic_folder
from ...core.errors import InputError, counted
from ...core.parallel import for_each
from ..case import recode
from ..itk import RATIO
from ..volume import as_image, whole_numbers
from .protocols import ACDC_GROUPS, acdc_protocols, write_splits
from .write import case_paths, write_description

VOLUME = re.compile(r"(patient(\d+)_frame\d+)\.h5")
SLICE = re.compile(r"(patient(\d+)_frame\d+)_slice_(\d+)\.h5")
CLASSES = ("RV", "Myo", "LV")  # values 1, 2, 3; 4 = not drawn
ABOUT = {
    "reference": "Bernard et al., IEEE TMI 2018 (ACDC); Valvano et al., IEEE TMI 2021 (scribbles)",
    "licence": "CC BY-NC-SA 4.0",
    "description": "Cine MR, end-diastole and end-systole. Labels: scribbles; labelsTr_dense: the challenge's masks",
}


def import_wsl4mis(src: Path, dst: Path) -> None:
    """Write the volumes below `src` to the new data set `dst`. If there are none, join its slice files to volumes.

    The files have no spacing: the affine is the identity, and dataset.json says "spacing": "voxels".
    An h5 array [D, H, W] becomes a NIfTI [W, H, D], which read_volume gives back as [D, H, W].
    Raises InputError if files or slices are missing or unreadable, and for different shapes and unlisted values.
    """
    cases = find_cases(src)
    with atomic_folder(dst) as folder:
        for_each("importing ACDC (WSL4MIS)", lambda case: _write(folder, case, cases[case]), cases)
        patients: dict[int, list[str]] = {}
        for case in cases:
            patients.setdefault(int(case[7:].split("_")[0]), []).append(case)
        write_description(
            folder,
            "ACDC",
            ("MR",),
            CLASSES,
            {case: case.split("_")[0] for case in cases},
            spacing="voxels",
            strata={patients[p][0].split("_")[0]: ACDC_GROUPS[p] for p in sorted(patients) if p in ACDC_GROUPS},
            **ABOUT,
        )
        write_splits(folder, acdc_protocols(patients), "cv5")


def find_cases(src: Path) -> dict[str, list[Path]]:
    """Case name → its volume file, or its slice files in order. Raises InputError for none, doubles and gaps."""
    paths = sorted(Path(src).rglob("patient*.h5"))
    volumes = [(match[1], path) for path in paths if (match := VOLUME.fullmatch(path.name))]
    slices = [(match[1], int(match[3]), path) for path in paths if (match := SLICE.fullmatch(path.name))]
    if not volumes and not slices:
        raise InputError(
            f"{src}: has no files such as patient001_frame01.h5 or patient001_frame01_slice_0.h5. "
            "Give WSL4MIS's folder data/ACDC."
        )
    if volumes:
        cases = {case: [path] for case, path in volumes}
        if len(cases) < len(volumes):
            raise InputError(
                f"{src}: holds some volumes twice ({len(volumes)} files, {counted(len(cases), 'case')}). "
                "Give the folder of one copy."
            )
        return cases
    found: dict[str, list[tuple[int, Path]]] = {}
    for case, number, path in slices:
        found.setdefault(case, []).append((number, path))
    for case, numbered in found.items():
        numbers = sorted(number for number, _ in numbered)
        if numbers != list(range(len(numbers))):
            raise InputError(
                f"{src}: {case} has slices {numbers}; expected 0 to {numbers[-1]}, each once. Add the missing files."
            )
    return {case: [path for _, path in sorted(numbered)] for case, numbered in found.items()}


def _write(dst: Path, case: str, files: list[Path]) -> None:
    import nibabel

    parts = [_read(path) for path in files]
    if len({part[0].shape for part in parts}) > 1:
        raise InputError(
            f"{files[0]}: the slices of {case} have different shapes ({sorted({p[0].shape for p in parts})}). "
            "Replace the odd ones."
        )
    whole = parts[0][0].ndim == 3
    arrays: list[np.ndarray] = parts[0] if whole else [np.stack(kind) for kind in zip(*parts, strict=True)]
    image = arrays[0]
    scribble, label = (whole_numbers(files[0], array) for array in arrays[1:])
    as_image(files[0], image)
    recode(scribble, len(CLASSES) + 1, files[0])
    recode(label, len(CLASSES) + 1, files[0], ignored=False)
    stored: list[np.ndarray] = [image.astype(np.float32), scribble.astype(np.uint8), label.astype(np.uint8)]
    for array, path in zip(stored, case_paths(dst, case), strict=True):
        nibabel.save(nibabel.Nifti1Image(np.transpose(array, (2, 1, 0)), np.eye(4)), path)


def _array(found: Any) -> np.ndarray:
    """The numbers of a data set of an HDF5 file. Raises ValueError for anything else."""
    if not hasattr(found, "dtype") or found.dtype.kind not in "biuf" or found.ndim not in (2, 3):
        raise ValueError(f"{found.name} is no array of numbers with 2 or 3 axes")
    if found.nbytes > found.id.get_storage_size() * RATIO:
        raise ValueError(f"{found.name} promises {found.nbytes} bytes, its part of the file can hold less")
    return found[()]


def _read(path: Path) -> list[np.ndarray]:
    """image, scribble, label, all of one shape."""
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"{path}: this format needs h5py. Run: pip install 'scribbleseg[h5]'") from error
    try:
        with h5py.File(path) as file:
            missing = {"image", "scribble", "label"} - file.keys()
            if missing:
                raise InputError(
                    f"{path}: has no '{min(missing)}'. It holds {', '.join(file) or 'nothing'}; "
                    "expected image, scribble and label. Replace the file."
                )
            arrays = [_array(file[key]) for key in ("image", "scribble", "label")]
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory. Use a machine with more.") from error
    except Exception as error:  # h5py lets many kinds through
        said = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as HDF5 ({said}). It may be truncated. Copy it again.") from error
    if len({array.shape for array in arrays}) > 1:
        raise InputError(
            f"{path}: image, scribble and label have shapes {[array.shape for array in arrays]}; they must be equal. "
            "Replace the file."
        )
    return arrays
