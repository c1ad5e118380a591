"""What a method makes of a case, kept on disk under the key that the method declares."""

from pathlib import Path

import numpy as np

from ..data.cache import cached
from ..data.case import Volume
from ..data.reading import Targets
from . import own_code
from .base import Method


def kept_targets(method: Method, cache: Path) -> Targets:
    """A method's `targets` and `notes` as the reading of cases asks for them. cache: the folder that keeps the targets.

    The key includes the code of a method that is not ours, so that what changed code computes is not mixed up.
    """

    def targets(volume: Volume) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        key = method.target_key(volume)
        if key is not None:
            key = key | {"code": own_code(f"{type(method).__module__}:{type(method).__qualname__}")}
        return cached(cache, volume, key, lambda: method.targets(volume)), method.notes(volume)

    return targets
