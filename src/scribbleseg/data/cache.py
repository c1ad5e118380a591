"""A cache on disk for arrays that are expensive to compute from a case."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ..core.atomic import atomic_file
from ..core.console import say
from ..core.errors import InputError
from .case import Volume

_not_kept: set[Path] = set()  # folders for which the message was printed
_saying = Lock()


def cached(
    folder: Path, volume: Volume, key: Mapping[str, object] | None, compute: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The named arrays of `compute()`, or what an earlier call with the same key, image and scribble returned.

    The file is FOLDER/CASE-HASH.npz. HASH is made from the case's image and scribble and from `key` (JSON values:
    everything else that the arrays depend on, versions of libraries included). Without a key, or if the folder
    cannot be written to, every call computes them.
    """
    if key is None:
        return compute()
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode())
    for array in (volume.image, volume.scribble):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    path = folder / f"{volume.case.id}-{digest.hexdigest()[:16]}.npz"
    if path.is_file():
        damaged = (OSError, ValueError, EOFError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error)
        with suppress(*damaged):  # computed again
            with np.load(path) as file:
                return dict(file)
    arrays = compute()
    named: dict[str, Any] = {**arrays}
    try:
        with atomic_file(path) as partial:
            np.savez_compressed(partial, **named)
    except InputError:  # training works without the cache, for example on a read-only share
        with _saying:
            if folder not in _not_kept:
                _not_kept.add(folder)
                say(f"{folder}: cannot be written, so the next run must compute its targets again")
    return arrays
