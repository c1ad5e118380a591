"""A fingerprint of the files of some cases: it tells whether they are still what a run was trained on."""

import hashlib
from collections.abc import Iterable

from ..core.parallel import for_each
from .dataset import Case, Dataset


def fingerprint(dataset: Dataset, cases: Iterable[str]) -> str:
    """A checksum of names, images, scribbles and dense masks of these cases, and of the classes; 16 digits."""
    names = sorted(cases)
    parts = for_each("checksums", lambda name: _case(dataset.case(name)), names, shown=False)
    whole = hashlib.sha256(repr((dataset.classes, dataset.ignore, list(zip(names, parts)))).encode("utf-8", "replace"))
    return whole.hexdigest()[:16]


def _case(case: Case) -> list[str]:
    sums = []
    for path in (*case.images, case.scribble, case.truth):
        if path is None:
            sums.append("none")
        else:
            with open(path, "rb") as file:
                sums.append(hashlib.file_digest(file, "sha256").hexdigest())
    return sums
