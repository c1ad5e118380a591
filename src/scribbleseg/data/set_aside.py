"""Training patients set aside for validation, and what a fold's validation cases are judged on."""

import random
from dataclasses import replace

from ..core.errors import InputError, counted
from .case import drawn_cases
from .dataset import Dataset, Fold


def set_aside(dataset: Dataset, fold: Fold, share: float, seed: int) -> Fold:
    """Set a share of the training patients aside for validation, if the split names no validation case.

    They are drawn from the patients with dense masks, or from those with scribbles if no patient has a dense mask.
    Raises InputError for what is no share, and when no training case would be left.
    """
    if not 0 <= share < 1:
        raise InputError(f"--val-share {share}: expected a share from 0 to below 1, such as 0.2.")
    if fold.val or not share:
        return fold
    dense = [name for name in fold.train if dataset.case(name).truth is not None]
    patients = sorted({dataset.patient(name) for name in dense or drawn_cases(dataset, fold.train)})
    random.Random(seed).shuffle(patients)
    chosen = set(patients[: max(1, round(share * len(patients)))])
    parts = [tuple(case for case in fold.train if (dataset.patient(case) in chosen) == held) for held in (False, True)]
    if not parts[0]:
        way = "Give a smaller share, or leave it out." if len(chosen) > 1 else "Leave it out."
        raise InputError(
            f"--val-share {share}: would set all of {counted(len(chosen), 'training patient')} aside. {way}"
        )
    return replace(fold, train=parts[0], val=parts[1])


def judged_on_scribbles(dataset: Dataset, fold: Fold) -> bool:
    """Whether no validation case has a dense mask. Raises InputError if none has a scribble either."""
    masked = [name for name in fold.val if dataset.case(name).truth is not None]
    if fold.val and not masked and not drawn_cases(dataset, fold.val):
        raise InputError(
            f"{dataset.folder}: no validation case has a mask in labelsTr_dense or a scribble in labelsTr. "
            "Add one, use a split without validation, or leave out --val-share."
        )
    return bool(fold.val) and not masked
