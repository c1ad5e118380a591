"""What is expensive to compute from a case, kept on disk."""

import hashlib
import json
from collections.abc import Callable

import numpy as np

from ..atomic import atomic_file
from .dataset import Volume


def cached(volume: Volume, kind: str, settings: dict, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """`compute()`, or what an earlier call with the same settings, image and scribble returned.

    Lies in volume.cache as CASE-KIND-KEY.npz, KEY being a hash of `settings` (everything else the result depends on, versions of
    libraries included) and of the case's image and scribble. Without a cache folder it is computed every time.
    """
    if volume.cache is None:
        return compute()
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for array in (volume.image, volume.scribble):
        key.update(f"{array.dtype}{array.shape}".encode())
        key.update(np.ascontiguousarray(array))
    path = volume.cache / f"{volume.case.id}-{kind}-{key.hexdigest()[:16]}.npz"
    if path.is_file():
        with np.load(path) as file:
            return file["array"]
    array = compute()
    with atomic_file(path) as partial:
        np.savez_compressed(partial, array=array)
    return array
