"""What a prediction may write and replace: never a scan, a label, or a mask that somebody has changed."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..core.console import say
from ..core.errors import InputError, counted
from ..data.volume import ending
from .inputs import LABELS, Job
from .provenance import MADE_BY, is_own, never_written, written

IMAGES = ("imagesTr", "imagesTs")  # folders of a data set


def output_files(job: Job, classes: Sequence[str], probabilities: bool, uncertainty: bool) -> list[Path]:
    """What is written for a case: its mask, a map per class if `probabilities`, the entropy if `uncertainty`."""
    end = ending(job.output)
    stem = str(job.output)[: -len(end)]
    end = ".tif" if end == ".png" else end  # PNG has no fractions
    maps = [f"{stem}_prob_{name.replace('/', '-')}{end}" for name in classes] if probabilities else []
    maps += [f"{stem}_entropy{end}"] if uncertainty else []
    return [job.output, *map(Path, maps)]


def check_outputs(source: Path, outputs: Mapping[Job, Sequence[Path]], overwrite: bool) -> None:
    """Raises InputError when a file of `outputs` would replace a scan, a label or what `predict` did not write.

    Warns of maps that belong to an earlier prediction. `overwrite` allows replacing other files, but no scan or label.
    """
    images = {path.resolve() for job in outputs for path in job.images}
    paths = [path for files in outputs.values() for path in files]
    for path in paths:
        if path.resolve() in images:
            raise InputError(f"{path}: the prediction would replace an image. Choose another OUTPUT.")
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        raise InputError(
            f"{twice[0]}: the mask of one case and a map of another would have this name. "
            "Rename one of the cases, or leave out --uncertainty and --probabilities."
        )
    folder = paths[0].parent.resolve()
    if folder.is_file():
        raise InputError(f"{paths[0].parent}: is a file. Name a folder as OUTPUT.")
    if folder.name in IMAGES + LABELS and (folder.parent / "dataset.json").is_file():
        raise InputError(
            f"{folder}: holds the images or labels of the data set {folder.parent}. Choose another OUTPUT."
        )
    if (folder / "dataset.json").is_file():
        raise InputError(f"{folder}: is a data set. Choose another OUTPUT, such as a folder in it.")
    if source.resolve() == folder:
        raise InputError(
            f"{paths[0].parent}: is INPUT itself; predictions among its images would be taken for images. "
            "Choose another OUTPUT."
        )
    if not overwrite:
        check_replaceable(paths)
    if stale := _maps_of(written(folder), outputs) - {path.name for path in paths}:
        maps = counted(len(stale), "map")
        say(f"{folder}: {maps} of an earlier prediction will not belong to the new masks (first: {min(stale)})")


def check_replaceable(files: Sequence[Path]) -> None:
    """Raises InputError for a file that exists and is not what `predict` wrote, such as a mask corrected by hand."""
    for path in files:
        if os.path.lexists(path) and not is_own(path):
            unknown = never_written(path)
            why = "no note says that predict wrote it" if unknown else "it was changed since predict wrote it"
            raise InputError(
                f"{path}: exists already, and {why} ({MADE_BY}). "
                "Move it elsewhere, choose another OUTPUT, or give predict --overwrite."
            )


def _maps_of(names: Iterable[str], jobs: Iterable[Job]) -> set[str]:
    """The files that are named as maps of the cases."""
    stems = {job.output.name[: -len(ending(job.output))] for job in jobs}
    return {name for name in names if stems & {name.rpartition("_prob_")[0], name.rpartition("_entropy.")[0]}}
