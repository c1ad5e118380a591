"""Read and write NRRD and MetaImage through SimpleITK. The voxels are held to the bytes that lie in the file."""

import bz2
import math
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..core.errors import InputError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
RATIO = 1040  # deflate makes nothing smaller than by this factor
MM = {"mm": 1.0, "millimeter": 1.0, "um": 0.001, "µm": 0.001, "micron": 0.001, "cm": 10.0, "m": 1000.0, "meter": 1000.0}
NRRD_SIZES = {"spacings", "space directions"}  # the keys that say how large a voxel is
MHA_SIZES = {"ElementSpacing", "ElementSize"}
MHA_PLACES = (("Offset", "Origin", "Position"), ("TransformMatrix", "Rotation", "Orientation"))  # names of one thing
RANGES = (
    "list",
    "vector",
    "complex",
    "color",
    "matrix",
    "point",
    "normal",
    "covariant",
    "3-",
    "2-",
    "4-",
    "rgb",
    "hsv",
)
NRRD_BYTES = {
    1: ("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"),
    2: ("short", "short int", "signed short", "signed short int", "int16", "int16_t")
    + ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    4: ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"),
    8: ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t")
    + ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t", "double"),
}
MHA_BYTES = {
    1: ("MET_CHAR", "MET_UCHAR", "MET_ASCII_CHAR"),
    2: ("MET_SHORT", "MET_USHORT"),
    4: ("MET_INT", "MET_UINT", "MET_FLOAT"),
    8: ("MET_LONG", "MET_ULONG", "MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"),
}


def read_itk(path: Path) -> tuple[np.ndarray, np.ndarray, object]:
    """(voxels [x, y, z], affine in RAS+ mm, header in mm).

    Raises InputError for several numbers in a voxel, and what `open_itk` raises.
    """
    file = open_itk(path)
    if (numbers := file.GetNumberOfComponentsPerPixel()) > 1:
        raise InputError(
            f"{path}: has {numbers} numbers in every voxel; expected one. "
            "Convert colours to grey, and split channels into one file each."
        )
    return from_itk(file)


def open_itk(path: Path) -> Any:
    """The SimpleITK image of a file, with lengths in mm.

    Raises InputError for a file that is shorter or longer than its header says, whose checksum is wrong, of which
    SimpleITK makes other voxels than lie in it, or that keeps its voxels in another file or as text.
    """
    itk = simpleitk(path)
    try:
        unit_mm, checksum = (_check_nrrd if path.name.lower().endswith(".nrrd") else _check_mha)(path)
        file = itk.ReadImage(str(path))
        if checksum not in _checksums(itk.GetArrayViewFromImage(file), file.GetNumberOfComponentsPerPixel() > 1):
            raise ValueError("its header does not fit its voxels")
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory. Use a machine with more, or cut the volume.") from error
    except (RuntimeError, ValueError, TypeError, OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read ({reason(error)}). It may be truncated, damaged, or in another format. "
            "Copy or convert it again."
        ) from error
    if unit_mm != 1:
        file.SetSpacing([value * unit_mm for value in file.GetSpacing()])
        file.SetOrigin([value * unit_mm for value in file.GetOrigin()])
    return file


def reason(error: Exception) -> str:
    """The last line of SimpleITK's message that has words, or another error's message."""
    lines = [line for line in str(error).splitlines() if re.search("[a-z]", line)]
    return lines[-1].rpartition("ERROR: ")[2] if lines else type(error).__name__


def from_itk(file: Any) -> tuple[np.ndarray, np.ndarray, object]:
    """(voxels [x, y, z], affine in RAS+ mm, header) of a SimpleITK image; vector and 4-D images keep that axis."""
    import SimpleITK as itk

    stored = itk.GetArrayFromImage(file).T
    header = (file.GetSpacing(), file.GetOrigin(), file.GetDirection())
    axes, count = min(3, file.GetDimension()), file.GetDimension()
    affine = np.eye(4)
    affine[:axes, :axes] = (np.reshape(header[2], (count, count)) * header[0])[:axes, :axes]
    affine[:axes, 3] = header[1][:axes]
    return stored, LPS_TO_RAS @ affine, header


def write_itk(path: Path, stored: np.ndarray, affine: np.ndarray, header: object) -> None:
    """Write voxels [x, y, z] with the header of an ITK image, or with an affine in RAS+ mm."""
    itk = simpleitk(path)
    file = itk.GetImageFromArray(stored.T)
    if isinstance(header, tuple):
        spacing, origin, direction = header
    else:
        affine = LPS_TO_RAS @ affine
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        origin, direction = affine[:3, 3], (affine[:3, :3] / spacing).ravel()
    file.SetSpacing([float(v) for v in spacing])
    file.SetOrigin([float(v) for v in origin])
    file.SetDirection([float(v) for v in direction])
    try:
        itk.WriteImage(file, str(path), useCompression=True)
    except RuntimeError as error:
        raise OSError(str(error).splitlines()[-1]) from error


def simpleitk(path: Path) -> Any:
    """The module. Raises InputError where it is not installed."""
    try:
        import SimpleITK
    except ImportError as error:
        raise InputError(f"{path}: this format needs SimpleITK. Run: pip install 'scribbleseg[formats]'") from error
    return SimpleITK


def has_size(path: Path) -> bool:
    """Whether the header of a file that can be read says how large a voxel is. SimpleITK makes it 1 where not."""
    with open(path, "rb") as file:
        if path.name.lower().endswith(".nrrd"):
            return not NRRD_SIZES.isdisjoint(_nrrd_fields(file))
        return not MHA_SIZES.isdisjoint(_mha_fields(file))


def _nrrd_fields(file: BinaryIO) -> dict[str, str]:
    """The header, names in lower case; the voxels follow."""
    if not file.readline(80).startswith(b"NRRD"):
        raise ValueError("no NRRD header")
    fields: dict[str, str] = {}
    for _ in range(1000):
        line = file.readline(1 << 16).decode("utf-8", "replace").strip()
        if not line:
            break
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            _add(fields, name.strip().lower(), value.strip())
    return fields


def _mha_fields(file: BinaryIO) -> dict[str, str]:
    """The header; the voxels follow."""
    fields: dict[str, str] = {}
    while "ElementDataFile" not in fields:
        name, equals, value = file.readline(1 << 16).decode("utf-8", "replace").partition("=")
        if not equals or len(fields) > 1000:
            raise ValueError("no MetaImage header")
        _add(fields, name.strip(), value.strip())
    for names in MHA_PLACES:
        if len({tuple(fields[name].split()) for name in names if name in fields}) > 1:
            raise ValueError(f"its {' and '.join(name for name in names if name in fields)} differ")
    return fields


def _add(fields: dict[str, str], name: str, value: str) -> None:
    if fields.setdefault(name, value) != value:
        raise ValueError(f"its header says two things of {name[:40]}")


def _check_nrrd(path: Path) -> tuple[float, int]:
    """Check that the voxels are as long as the header says and fit their checksum.

    Returns the unit of length in mm, and the CRC-32 of the unpacked voxels.
    """
    with open(path, "rb") as file:
        fields = _nrrd_fields(file)
        if "data file" in fields or "datafile" in fields:
            raise ValueError("its voxels are in another file; convert it to one file")
        kinds = fields.get("kinds", "").lower().split()
        if "time" in kinds:
            raise ValueError("one of its axes is time; split it into one file per time point")
        for key, none in (("spacings", "nan"), ("space directions", "none")):
            for axis, step in enumerate(fields.get(key, "").lower().split()):
                ranged = axis < len(kinds) and kinds[axis].startswith(RANGES)
                if (step == none and not ranged) or (key == "spacings" and step.startswith("-")):
                    raise ValueError(f"its {key} are {fields[key]}")
        expected = _bytes_of(fields.get("sizes", "").split(), fields.get("type", "").lower(), NRRD_BYTES)
        _check_room(path, expected)
        match fields.get("encoding", "").lower():
            case "raw":
                checksum = _stored(file, path, expected)
            case "gzip" | "gz":
                checksum = _unpacked(file, zlib.decompressobj(31), expected)
            case "bzip2" | "bz2":
                checksum = _unpacked(file, bz2.BZ2Decompressor(), expected)
            case other:
                raise ValueError(f"its encoding is {other[:40]!r}; convert it to raw or gzip")
    units = set(fields.get("space units", fields.get("units", '"mm"')).replace('"', " ").split())
    return _unit(units), checksum


def _check_mha(path: Path) -> tuple[float, int]:
    """As `_check_nrrd`."""
    with open(path, "rb") as file:
        fields = _mha_fields(file)
        if fields["ElementDataFile"].upper() != "LOCAL":
            raise ValueError("its voxels are in another file; convert it to one file")
        if fields.get("BinaryData", "True").lower() != "true":
            raise ValueError("its voxels are text; convert it to binary")
        for key in (*MHA_SIZES, "Offset", "Origin", "Position", "TransformMatrix", "Rotation", "Orientation"):
            for number in fields.get(key, "").split():
                if not _is_finite(number) or (key in MHA_SIZES and float(number) <= 0):
                    raise ValueError(f"its {key} is {fields[key]}")
        sizes = [*fields.get("DimSize", "").split(), fields.get("ElementNumberOfChannels", "1")]
        expected = _bytes_of(sizes, fields.get("ElementType", ""), MHA_BYTES)
        _check_room(path, expected)
        if fields.get("CompressedData", "False").lower() == "true":
            checksum = _unpacked(file, zlib.decompressobj(47), expected)
        else:
            checksum = _stored(file, path, expected)
    return _unit({fields.get("DistanceUnits", "mm")}), checksum


def _checksums(voxels: np.ndarray, several: bool) -> Iterator[int]:
    """The CRC-32 of voxels in both byte orders; of `several` numbers in each voxel, side by side and layer by layer."""
    for ordered in (voxels, np.moveaxis(voxels, -1, 0)) if several else (voxels,):
        yield zlib.crc32(np.ascontiguousarray(ordered).data)
        yield zlib.crc32(ordered.byteswap().data)


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _bytes_of(sizes: list[str], kind: str, widths: dict[int, tuple[str, ...]]) -> int:
    width = next((width for width, names in widths.items() if kind in names), 0)
    if not width or not sizes or not all(size.isascii() and size.isdecimal() for size in sizes):
        raise ValueError(f"says sizes {' '.join(sizes) or 'none'} and type {kind or 'none'}")
    return math.prod(map(int, sizes)) * width


def _check_room(path: Path, expected: int) -> None:
    most = os.path.getsize(path) * RATIO
    if expected > most:
        raise ValueError(f"its header promises {expected} bytes of voxels, the file can hold {most} at most")


def _stored(file: BinaryIO, path: Path, expected: int) -> int:
    """The CRC-32 of voxels that are not packed. Raises ValueError if they have another length."""
    _compare(os.path.getsize(path) - file.tell(), expected)
    checksum = 0
    while part := file.read(1 << 20):
        checksum = zlib.crc32(part, checksum)
    return checksum


def _unpacked(file: BinaryIO, reader: Any, expected: int) -> int:
    """The CRC-32 of packed voxels. Raises the reader's error if they are damaged, ValueError for another length."""
    length = checksum = 0
    while not reader.eof and length <= expected and (packed := file.read(1 << 20)):
        part = reader.decompress(packed)
        length, checksum = length + len(part), zlib.crc32(part, checksum)
    if not reader.eof and length <= expected:
        raise ValueError("its packed voxels end early")
    _compare(length, expected)
    return checksum


def _compare(found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"its header promises {expected} bytes of voxels, the file has {found}")


def _unit(units: set[str]) -> float:
    lengths = {MM.get(unit.lower(), 0.0) for unit in units if unit not in ("???", "?")} or {1.0}
    if len(lengths) != 1 or 0.0 in lengths:
        raise ValueError(f"lengths are in {' and '.join(sorted(units))}; expected mm, um, cm or m on all axes")
    return lengths.pop()
