"""Read and write PNG and TIFF pictures: PNG through Pillow, TIFF through tifffile."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..core.errors import InputError

CODECS = "imagecodecs"  # the package that tifffile names where it cannot unpack; Pillow can, in most cases
RATIO = 1400  # deflate and LZW make nothing smaller than by this factor
BOUNDED = {1, 5, 8, 32773, 32946}  # TIFF's codes of compression by RATIO at most: none, LZW, deflate, PackBits


def read_picture(path: Path) -> np.ndarray:
    """The pixels [x, y], or [x, y, colours] of a coloured picture; transparency is left out.

    A palette's picture gives the numbers of its colours, as label files have them. A PNG is held to its checksums, and
    a picture to the room that its file has. Raises InputError for a file that cannot be read, or that tifffile warns
    of, and for a TIFF with several pages.
    """
    try:
        pixels = _read_tiff(path) if path.suffix.lower() in (".tif", ".tiff") else _read_pillow(path, "PNG")
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory. Cut it into parts.") from error
    except InputError:
        raise
    except Exception as error:  # both libraries let many kinds through
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: cannot be read as a picture ({said}). It may be truncated, damaged, or in another format. "
            "Copy or convert it again."
        ) from error
    return pixels.swapaxes(0, 1)


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write [x, y]: uint8 or uint16 as PNG or TIFF, float32 as TIFF."""
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        tifffile.imwrite(path, pixels.T, photometric="minisblack")
    else:
        from PIL import Image

        Image.fromarray(np.ascontiguousarray(pixels.T)).save(path, format="PNG")


def _read_pillow(path: Path, form: str) -> np.ndarray:
    """[y, x] or [y, x, colours]. No other form is opened: for some, Pillow starts other programs."""
    from PIL import Image

    if form == "PNG":
        with Image.open(path, formats=[form]) as file:
            _check_room(path, file.width * file.height // 8)  # one bit a pixel at least
            file.verify()  # checksums of all parts; reading alone looks at some of them
    with Image.open(path, formats=[form]) as file:
        if (pages := getattr(file, "n_frames", 1)) > 1:
            raise InputError(f"{path}: has {pages} pages; expected one picture. Save every page as a file.")
        picture: Image.Image = file
        if file.mode in ("RGBA", "RGBX", "LA"):
            picture = file.convert(file.mode.rstrip("AX"))
        elif file.mode not in ("1", "L", "P", "I", "F", "RGB") and not file.mode.startswith("I;16"):
            picture = file.convert("RGB")
        pixels = np.array(picture)
    return pixels.astype(np.uint8) if pixels.dtype == bool else pixels


def _read_tiff(path: Path) -> np.ndarray:
    """[y, x] or [y, x, colours]."""
    import tifffile

    with _without_warnings("tifffile"), tifffile.TiffFile(path) as file:
        series = file.series[0]
        if (
            len(file.series) > 1
            or set(series.axes) - set("YXSC")
            or series.axes.count("S") + series.axes.count("C") > 1
        ):
            raise InputError(
                f"{path}: has several pages (axes {series.axes}, shape {series.shape}); expected one picture. "
                "Save every page as a file, or the stack as NIfTI."
            )
        if file.pages[0].compression in BOUNDED:
            _check_room(path, series.nbytes)
        try:
            pixels = series.asarray()
        except ValueError as error:
            if CODECS not in str(error):
                raise
            return _read_pillow(path, "TIFF")
        colours = [axis for axis, letter in enumerate(series.axes) if letter in "SC"]
        pixels = np.moveaxis(pixels, colours, [-1]) if colours else pixels
        alpha = pixels.ndim == 3 and bool(series.keyframe.extrasamples)
    return pixels[..., :-1] if alpha and pixels.shape[-1] in (2, 4) else pixels


def _check_room(path: Path, expected: int) -> None:
    if expected > (most := path.stat().st_size * RATIO):
        raise ValueError(f"it promises {expected} bytes of pixels, the file can hold {most} at most")


@contextmanager
def _without_warnings(library: str) -> Iterator[None]:
    """Raises ValueError at the end of the block if the library logged a warning or an error in this thread."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    mine = threading.get_ident()

    def keep(record: logging.LogRecord) -> None:
        if record.thread == mine:
            said.append(record.getMessage())

    handler.emit = keep  # type: ignore[method-assign]
    logger = logging.getLogger(library)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    if said:
        raise ValueError(said[0])
