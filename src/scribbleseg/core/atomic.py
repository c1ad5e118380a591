"""Write a file or a folder so that it appears under its name only when it is complete."""

import errno
import glob
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError

LEFTOVER_SECONDS = 3600  # a partial file that is older, and whose process does not run here, was left by a killed one


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. If the block succeeds, rename it to `path`; otherwise delete it.

    The temporary name keeps the ending (`.nii.gz`), because some writers choose the format by it. What a killed process
    left of the same file is deleted. Raises InputError if the disk is full, the folder cannot be written to, or `path`
    can be no name of a file.
    """
    path = Path(path)
    _check_name(path)
    partial = _partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, glob.escape(path.name))
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        if (
            error.filename is not None
            and Path(error.filename).parent != path.parent
            and Path(error.filename) not in path.parents
        ):
            raise
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):  # it has its name now; or the parent is a file, or the name too long
            partial.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`. If the block succeeds, rename it to `path`; otherwise delete it.

    What a killed process left of the same folder is deleted. Raises InputError if `path` exists and is not an empty
    folder, if it can be no name of a folder, or if the disk is full.
    """
    path = Path(path)
    _check_name(path)
    try:
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise unwritable(path, error) from error
    if taken:
        raise InputError(f"{path}: exists already and is not empty. Choose another folder, or remove it first.")
    partial = _partial(path)
    try:
        partial.mkdir(parents=True)
        sweep(path.parent, glob.escape(path.name))
        yield partial
        if path.exists():
            path.rmdir()
        os.replace(partial, path)
        _sync(path.parent)
    except InputError as error:  # about a file inside: name the final path, which the user knows
        raise InputError(str(error).replace(str(partial), str(path))) from error
    except OSError as error:
        if (
            error.filename is not None
            and partial not in Path(error.filename).parents
            and Path(error.filename) not in (partial, path, *path.parents)
        ):
            raise
        raise unwritable(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sweep(folder: Path, pattern: str, seconds: float = LEFTOVER_SECONDS) -> None:
    """Delete what killed processes left unfinished in `folder`, of files whose names match `pattern`.

    That is: partial files of processes that do not run on this machine, older than `seconds` (another machine may be
    writing). Who holds the lock of a folder gives 0.
    """
    for left in folder.glob(f".partial-*-{pattern}"):
        found = re.match(r"\.partial-(\d{1,9})-", left.name)
        with suppress(OSError):
            if found and not _runs(int(found[1])) and time.time() - left.lstat().st_mtime >= seconds:
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def _check_name(path: Path) -> None:
    try:
        usable = path.name and b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise InputError(f"{str(path)!r}: cannot be the name of a new file or folder. Choose another name.")


def _partial(path: Path) -> Path:
    return path.with_name(f".partial-{os.getpid()}-{path.name}")


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _sync(folder: Path) -> None:
    """Write the folder's list of names to the disk, where the file system can."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def unwritable(path: Path, error: OSError) -> InputError:
    """What to tell a user whose file or folder cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)  # None: SimpleITK's writers give no number
    way_out = "Free some space or choose another place." if full else "Choose another place, or change its permissions."
    if error.errno == errno.ENAMETOOLONG:
        way_out = "Choose a shorter name."
    return InputError(f"{path}: cannot be written ({error.strerror or error}). {way_out}")
