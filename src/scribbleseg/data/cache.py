"""What is expensive to compute from a case, kept on disk."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import numpy as np

from ..core.atomic import atomic_file
from ..core.errors import InputError
from .case import Volume

_not_kept: set[Path] = set()  # folders of which the user has heard
_saying = Lock()


def cached(volume: Volume, kind: str, settings: dict, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """`compute()`, or what an earlier call with the same settings, image and scribble returned.

    Lies in volume.cache as CASE-KIND-KEY.npz, KEY being a hash of `settings` (everything else the result depends on,
    versions of libraries included) and of the case's image and scribble. It is computed every time without a cache
    folder, and where that cannot be written to.
    """
    if volume.cache is None:
        return compute()
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for array in (volume.image, volume.scribble):
        key.update(f"{array.dtype}{array.shape}".encode())
        key.update(np.ascontiguousarray(array).data)
    path = volume.cache / f"{volume.case.id}-{kind}-{key.hexdigest()[:16]}.npz"
    if path.is_file():
        with np.load(path) as file:
            return file["array"]
    array = compute()
    try:
        with atomic_file(path) as partial:
            np.savez_compressed(partial, array=array)
    except InputError:  # a read-only share is no reason not to train
        with _saying:
            if volume.cache not in _not_kept:
                _not_kept.add(volume.cache)
                print(
                    f"{volume.cache}: cannot be written, so the results of '{kind}' are not kept for the next run",
                    file=sys.stderr,
                )
    return array
