"""Write a file or a folder so that it appears under its name only when it is complete."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. If the block succeeds, rename it to `path`; otherwise delete it.

    The temporary name keeps the ending (`.nii.gz`), because some writers choose the format by it.
    Raises InputError if the disk is full or the folder cannot be written to.
    """
    path = Path(path)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if (
            error.filename is not None
            and Path(error.filename).parent != path.parent
            and Path(error.filename) not in path.parents
        ):
            raise
        raise _unwritable(path, error) from error
    finally:
        if partial.exists():  # not unlink(missing_ok=True): the parent may be a file
            partial.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`. If the block succeeds, rename it to `path`; otherwise delete it.

    Raises InputError if `path` exists and is not an empty folder, or if the disk is full.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path}: exists already and is not empty. Choose another folder, or remove it first.")
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            path.rmdir()
        os.replace(partial, path)
    except InputError as error:  # about a file inside: name the final path, which the user knows
        raise InputError(str(error).replace(str(partial), str(path))) from error
    except OSError as error:
        if (
            error.filename is not None
            and partial not in Path(error.filename).parents
            and Path(error.filename) not in (partial, path, *path.parents)
        ):
            raise
        raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unwritable(path: Path, error: OSError) -> InputError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)  # None: SimpleITK's writers give no number
    way_out = "Free some space or choose another place." if full else "Choose another place, or change its permissions."
    return InputError(f"{path}: cannot be written ({error.strerror or error}). {way_out}")
