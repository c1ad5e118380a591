"""Export masks: the predictions of the latest update, with what was drawn or accepted on top."""

from pathlib import Path

import numpy as np

from ..core.atomic import atomic_folder
from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..data.volume import write_volume
from .session import Session


def export_masks(session: Session, folder: Path, reviewed_only: bool) -> list[str]:
    """Write a mask per case to a new folder, beside the data set if it is relative; returns the cases.

    Cases that are neither predicted nor labelled throughout are left out. Raises InputError if there is no case to
    write, and for a folder that is not empty.
    """
    folder = folder if folder.is_absolute() else session.place.parent / folder
    done = []
    with atomic_folder(folder) as partial:
        for case in session.data.cases.values():
            if session.overview[case.id].error or (reviewed_only and case.id not in session.reviewed):
                continue
            with session.strokes.lock:
                label = session.strokes.read(case).label.copy()
            if session.predictions.number(case) is not None:
                label = np.where(label == UNLABELED, session.predictions.label(case), label)
            elif (label == UNLABELED).any():
                continue
            write_volume(partial / f"{case.id}{session.data.file_ending}", label, session.images.grid(case))
            done.append(case.id)
        if not done:
            what = "reviewed case" if reviewed_only else "case"
            raise InputError(f"no {what} is predicted or labelled throughout. Update the model first.")
    return done
