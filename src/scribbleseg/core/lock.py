"""Lock a file, so that one process at a time works on what it stands for; the lock ends with the process."""

import errno
import fcntl
import os
from pathlib import Path
from typing import BinaryIO

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # the system's errors where a file system has none


def lock(path: Path, wait: bool = False) -> BinaryIO | None:
    """Open a file to append to it, made where it is missing, and lock it. Closing the file frees the lock.

    None if another process holds the lock; with `wait`, waits until it is free. Raises OSError on a file system
    without locks.
    """
    while True:
        file = open(path, "ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _same(file, path):
                return file
        except BlockingIOError:
            file.close()
            return None
        except BaseException:
            file.close()
            raise
        file.close()  # its last holder removed it meanwhile


def _same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
