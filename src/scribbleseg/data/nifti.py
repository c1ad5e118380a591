"""Read and write NIfTI through nibabel. The file is held to the length and the checksum that it carries."""

import gzip
import math
import os
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from ..core.errors import InputError

MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # code in `xyzt_units` (unknown, metre, mm, micron) → length of the unit
RATIO = 1040  # deflate makes nothing smaller than by this factor
# what a verb says of a file with `two_places`
AS_ITK = "the header has two places that differ (qform and sform); read as ITK, 3D Slicer and ITK-SNAP read it"
APART = 0.5  # of a voxel: how far apart the two geometries of a header may be that count as one
RIGHT_ANGLE = 1e-3  # how far the cosine between two axes may be from 0
NEAR_UNIT = 1e-4  # by how much the square of a quaternion's length may exceed 1, as rounding in other programs makes it


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, object]:
    """(voxels [x, y, z], affine in mm, header in the file's own unit).

    Raises InputError for a file that is shorter or longer than its header says, whose checksum is wrong, or that is
    no NIfTI.
    """
    import nibabel

    try:
        content = _content(path)
        with np.errstate(all="ignore"):
            if content is None:
                file: Any = nibabel.load(path)
            else:
                kind: Any = nibabel.Nifti2Image if _is_nifti2(content) else nibabel.Nifti1Image
                file = kind.from_bytes(content)
            voxels, affine, header = np.asanyarray(file.dataobj), file.affine, file.header
            if two_places(header):
                affine = _as_itk(header)
            unit_mm = _unit_mm(header)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory. Use a machine with more, or cut the volume.") from error
    except Exception as error:  # nibabel lets zlib, OSError and its own errors through
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: cannot be read as NIfTI ({said}). It may be truncated, damaged, or in another format. "
            "Copy or convert it again."
        ) from error
    if affine is None:
        raise InputError(f"{path}: says no place of its voxels. Convert it again.")
    affine = affine.copy()
    affine[:3] *= unit_mm
    return voxels, affine, header


def two_places(header: object) -> bool:
    """Whether a NIfTI header has two geometries (qform and sform) that lie apart by half a voxel."""
    import nibabel

    if not isinstance(header, nibabel.Nifti1Header):
        return False
    qform, sform = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
    if qform is None or sform is None:
        return False
    far = np.array([(*corner, 1) for corner in np.ndindex(2, 2, 2)]) * (*(*header.get_data_shape(), 1, 1)[:3], 1)
    apart = np.abs(far @ (qform - sform).T).max()
    return not apart <= APART * np.linalg.norm(qform[:3, :3], axis=0).min()


def _as_itk(header: Any) -> np.ndarray:
    """Of two geometries the one that ITK reads: the sform if its code is 1 (scanner) and its axes are at right angles.

    Else the qform. Slicer, ITK-SNAP and SimpleITK show such a file so.
    """
    sform = header.get_sform()
    axes = sform[:3, :3] / np.linalg.norm(sform[:3, :3], axis=0)
    square = np.abs(axes.T @ axes - np.eye(3)).max() < RIGHT_ANGLE
    return sform if int(header["sform_code"]) == 1 and square else header.get_qform()


def write_nifti(path: Path, stored: np.ndarray, affine: np.ndarray, header: object) -> None:
    """Write voxels [x, y, z] with an affine in mm, in the unit and with the other entries of `header` if it is one."""
    import nibabel

    own: Any = header.copy() if isinstance(header, nibabel.Nifti1Header) else None
    kind = nibabel.Nifti2Image if isinstance(own, nibabel.Nifti2Header) else nibabel.Nifti1Image
    if own is not None:
        affine = affine.copy()
        affine[:3] /= _unit_mm(own)
    file = kind(stored, None if two_places(own) else affine, own)  # without an affine both of the header are kept
    file.set_data_dtype(stored.dtype)
    if own is not None:
        file.header["cal_max"] = file.header["cal_min"] = 0
    else:
        file.header.set_xyzt_units("mm")
    nibabel.save(file, path)


def _unit_mm(header: Any) -> float:
    code = int(header["xyzt_units"]) % 8
    if code not in MM:
        raise ValueError(f"its unit of length has the code {code} (xyzt_units), which means nothing")
    return MM[code]


def _check_end(file: BinaryIO, size: int, found: int) -> None:
    """Raises ValueError for a file that is shorter or longer than `size`. Zeros at its end do no harm."""
    if found < size:
        raise ValueError(f"its header promises {size} bytes, the file has {found}")
    file.seek(size)
    while rest := file.read(1 << 20):
        if any(rest):
            raise ValueError(f"its header promises {size} bytes, the file has more")


def _content(path: Path) -> bytes | None:
    """The whole file, unpacked, whose length is what its header says. Its gzip checksum is checked at its end.

    None for a file that is right and not packed, so that it can be mapped into memory.
    """
    import nibabel

    packed = path.name.lower().endswith(".gz")
    with gzip.open(path) if packed else open(path, "rb") as file:
        head = file.read(540)
        size, most = _expected(head), os.path.getsize(path) * (RATIO if packed else 1)
        if size > most:
            raise ValueError(f"its header promises {size} bytes, the file can hold {most} at most")
        kind = nibabel.Nifti2Header if _is_nifti2(head) else nibabel.Nifti1Header
        corrected = _corrected(head, kind)
        if corrected == head and not packed:
            _check_end(cast(BinaryIO, file), size, os.path.getsize(path))
            return None
        head = corrected
        content = head + file.read(max(0, size - len(head)))
        if len(content) < size:
            raise ValueError(f"its header promises {size} bytes, the file has {len(content)}")
        if len(content) > size and any(content[size:]):
            raise ValueError(f"its header promises {size} bytes, the file has more")
        while rest := file.read(1 << 20):  # to the end: gzip checks length and checksum there
            if any(rest):
                raise ValueError(f"its header promises {size} bytes, the file has more")
    return content


def _expected(head: bytes) -> int:
    """How long the header says that the file is. Raises ValueError for what is no NIfTI header."""
    import nibabel

    kind = nibabel.Nifti2Header if _is_nifti2(head) else nibabel.Nifti1Header
    if len(head) < kind.template_dtype.itemsize:
        raise ValueError(f"has {len(head)} bytes")
    header: Any = kind(bytes(head[: kind.template_dtype.itemsize]), check=False)
    if header["magic"].item() not in (b"n+1", b"n+2"):
        raise ValueError("no NIfTI header in front of its voxels")
    if not 1 <= int(header["dim"][0]) <= 7 or (header["dim"][1 : int(header["dim"][0]) + 1] < 0).any():
        raise ValueError(f"has the sizes {header['dim'].tolist()}")
    offset, bits = float(header["vox_offset"]), header.get_data_dtype().itemsize * 8
    if bits != int(header["bitpix"]):
        raise ValueError(f"says {header['bitpix']} bits per voxel, and a type of {bits}")
    if not kind.template_dtype.itemsize <= offset < 2**31 or offset != int(offset):
        raise ValueError(f"says that its voxels begin at byte {offset:g}")
    sizes = header["dim"][1 : int(header["dim"][0]) + 1].tolist()
    if 0 in sizes:
        raise ValueError(f"has shape {tuple(sizes)}; expected a 3-D volume")
    return int(offset) + math.prod(sizes) * bits // 8


def _is_nifti2(head: bytes) -> bool:
    return bytes(head[:4]) in ((540).to_bytes(4, "little"), (540).to_bytes(4, "big"))


def _corrected(head: bytes, kind: Any) -> bytes:
    """The header with a quaternion that rounding made a little longer than 1, which nibabel refuses, made shorter.

    Raises ValueError for voxel sizes of 0 or less, which nibabel makes 1, where the geometry depends on them, and for
    an infinite scale of the grey values, which nibabel ignores.
    """
    size = kind.template_dtype.itemsize
    header: Any = kind(head[:size], check=False)
    count = min(3, int(header["dim"][0]))
    used = header["pixdim"][1 : count + 1][header["dim"][1 : count + 1] > 1]
    if not header["sform_code"] and not (used > 0).all():
        raise ValueError(f"voxel sizes (pixdim) of {' × '.join(f'{size:g}' for size in used)}")

    slope, shift = float(header["scl_slope"]), float(header["scl_inter"])
    unscaled = slope == 0 or math.isnan(slope)
    if math.isinf(slope) or not (unscaled or math.isfinite(shift)):
        raise ValueError(
            f"says that its values are to be multiplied by {slope:g}, plus {shift:g} (scl_slope, scl_inter); expected "
            "finite numbers"
        )

    names = ("quatern_b", "quatern_c", "quatern_d")
    parts = np.array([header[name] for name in names], np.float64)
    square = float(parts @ parts)
    if not 1 < square <= 1 + NEAR_UNIT:
        return head
    for name, part in zip(names, parts / np.sqrt(square) * (1 - 1e-7)):
        header[name] = part
    return bytes(header.binaryblock) + head[size:]
