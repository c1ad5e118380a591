"""Export masks: the predictions of the latest update, with what was drawn or accepted on top."""

from pathlib import Path

import numpy as np

from ..core.atomic import atomic_folder
from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..data.volume import write_volume
from .session import Session

TWO_MODELS = "an update is predicting, so the masks would be of two models. Wait for its end or stop it, then export."


def masks_folder(session: Session, text: str) -> Path:
    """The folder that a user has named: beside the data set if it is relative; `~` is the home folder."""
    try:
        return session.place.parent / Path(text).expanduser()
    except RuntimeError as error:  # ~ANOTHER
        raise InputError(f"{text}: there is no such home folder. Write the path from / on.") from error


def export_masks(session: Session, folder: Path, reviewed_only: bool) -> list[str]:
    """Write a mask per case to a new folder; returns the cases.

    Cases that are neither predicted nor labelled throughout are left out. Raises InputError if there is no case to
    write, for a folder that is not empty, and while an update predicts.
    """
    cases = [
        case
        for case in session.data.cases.values()
        if not session.overview[case.id].error and (case.id in session.reviewed or not reviewed_only)
    ]
    numbers = {case.id: session.predictions.number(case) for case in cases}
    if (running := session.running()) is not None and running in numbers.values():
        raise InputError(TWO_MODELS)
    done = []
    with atomic_folder(folder) as partial:
        for case in cases:
            with session.strokes.lock:
                label = session.strokes.read(case).label.copy()
            if numbers[case.id] is not None:
                label = np.where(label == UNLABELED, session.predictions.label(case), label)
            elif (label == UNLABELED).any():
                continue
            write_volume(partial / f"{case.id}{session.data.file_ending}", label, session.images.grid(case))
            done.append(case.id)
        if numbers != {case.id: session.predictions.number(case) for case in cases}:
            raise InputError(TWO_MODELS)
        if not done:
            what = "reviewed case" if reviewed_only else "case"
            raise InputError(f"no {what} is predicted or labelled throughout. Update the model first.")
    return done
