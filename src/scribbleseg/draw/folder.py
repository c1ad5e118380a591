"""A data set from a folder of scans: the images are linked, or copied where links are not possible."""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.atomic import atomic_folder
from ..core.console import say
from ..core.errors import InputError, counted, first_names
from ..core.parallel import for_each
from ..data.dicom import has_series, read_series
from ..data.importers.write import END, write_description
from ..data.layout import read_dataset
from ..data.volume import ENDINGS, ITK, NIFTI, PICTURES, dead_link, ending, read_components, write_volume
from .classes import check_classes

RGB = ("R", "G", "B")  # names of the channels of coloured pictures


@dataclass(frozen=True)
class Scans:
    """The scans of a folder: case → its files, one per channel, or its folder with one DICOM series."""

    sources: dict[str, tuple[Path, ...]]
    end: str  # of the images in the data set
    channels: tuple[str, ...]


def find_scans(folder: Path) -> Scans:
    """The volumes or pictures of a folder, and its folders with a DICOM series each; or the one series in it.

    `CASE_0000`, `CASE_0001`, … are the channels of the case CASE. Raises InputError for a folder without scans, for
    endings that differ, for two files of one case, and for cases that differ in their channels.
    """
    if folder.is_file():
        raise InputError(f"{folder}: is a file; expected a folder of scans, or a data set. Give the folder it lies in.")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Give a folder of scans, or a data set.")
    found = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    files = [path for path in found if path.name.lower().endswith(ENDINGS)]
    series = [path for path in found if path.is_dir() and path not in files and has_series(path)]
    if odd := [path for path in files if not path.is_file()]:
        raise InputError(f"{odd[0]}: {dead_link(odd[0]) or 'is not a file'}. Put the scan there, or remove it.")
    if not files and not series and has_series(folder):
        series = [folder.resolve()]
    if not files and not series:
        raise InputError(
            f"{folder}: no scans in it; expected files that end in {', '.join(NIFTI + ITK + PICTURES)}, or a folder of "
            "DICOM per scan."
        )
    if others := [path.name for path in found if path not in (*files, *series)]:
        say(f"{folder}: {len(others)} not shown, no scans: {first_names(others)}")
    ends = sorted({ending(path) for path in files} | ({END} if series else set()))
    if len(ends) > 1:
        also = f" (DICOM becomes {END})" if series else ""
        raise InputError(
            f"{folder}: has files of {len(ends)} kinds, {', '.join(ends)}{also}; a data set has one. "
            "Put each kind into a folder of its own, or convert them."
        )
    stems = [(path, path.name[: -len(ends[0])]) for path in files] + [(path, path.name) for path in series]
    cases: dict[str, dict[str, Path]] = {}
    for path, stem in stems:
        name, _, number = stem.rpartition("_")
        numbered = len(number) == 4 and number.isdecimal() and any(other == f"{name}_0000" for _, other in stems)
        case, channel = (name, number) if name and numbered else (stem, "0000")
        if channel in cases.setdefault(case, {}):
            raise InputError(f"{path}: would be the same case as {cases[case][channel].name}. Rename one of them.")
        cases[case][channel] = path
    first, numbers = next((case, sorted(channels)) for case, channels in cases.items())
    for case, channels in cases.items():
        if sorted(channels) != numbers:
            raise InputError(
                f"{folder}: {case} has the channels {', '.join(sorted(channels))}, and {first} has "
                f"{', '.join(numbers)}. Every case needs the same; add the missing files, or move the others elsewhere."
            )
    check_names(cases)
    sources = {case: tuple(channels[number] for number in numbers) for case, channels in cases.items()}
    return Scans(sources, ends[0], _channel_names(sources[first]))


def check_names(names: Iterable[str]) -> None:
    """Raises InputError for a case that the page cannot name: bytes of a file's name that are no text."""
    for name in names:
        if name.encode("utf-8", "replace").decode() != name:
            raise InputError(f"case {name!r}: the name of its files is not UTF-8. Rename them.")


def _channel_names(sources: Sequence[Path]) -> tuple[str, ...]:
    if len(sources) > 1:
        return tuple(f"channel {number}" for number in range(len(sources)))
    if sources[0].is_file() and ending(sources[0]) in PICTURES:
        parts, _ = read_components(sources[0])
        if any((part != parts[0]).any() for part in parts):
            return RGB if len(parts) == len(RGB) else tuple(f"colour {number}" for number in range(len(parts)))
    return ("image",)


def make_dataset(folder: Path, place: Path, classes: Sequence[str]) -> None:
    """Make the data set `place` from the scans of `folder`, complete or not at all. Nothing in `folder` changes.

    Raises InputError for what `find_scans`, `check_classes` and `read_series` refuse, and if `place` holds anything.
    """
    check_classes(classes)
    scans = find_scans(folder)
    with atomic_folder(place) as partial:
        _bring(scans.sources, partial / "imagesTr", scans.end)
        write_description(partial, folder.resolve().name, scans.channels, classes, {}, end=scans.end)


def add_new_scans(folder: Path, place: Path) -> list[str]:
    """Bring the scans that came into `folder` since the data set was made; returns their cases."""
    dataset = read_dataset(place)
    scans = find_scans(folder)
    new = {case: sources for case, sources in scans.sources.items() if case not in dataset.cases}
    if new and scans.end != dataset.file_ending:
        raise InputError(
            f"{folder}: has {scans.end} files, and its data set {place} has {dataset.file_ending}: "
            f"{first_names(list(new))}. Convert the new files."
        )
    if new and len(scans.channels) != len(dataset.channels):
        raise InputError(
            f"{folder}: its scans have {counted(len(scans.channels), 'channel')}, and those of its data set "
            f"{place} have {len(dataset.channels)}. Move the new files elsewhere: {first_names(list(new))}."
        )
    _bring(new, place / "imagesTr", dataset.file_ending)
    return list(new)


def _bring(sources: Mapping[str, Sequence[Path]], images: Path, end: str) -> None:
    """Link the files, and write each DICOM series as a volume."""

    def one(case: str) -> None:
        for channel, source in enumerate(sources[case]):
            target = images / f"{case}_{channel:04d}{end}"
            if source.is_dir():
                write_volume(target, *read_series(source))
            else:
                link_or_copy(source, target)

    images.mkdir(exist_ok=True)
    if sources:
        for_each("bringing scans", one, sources, shown=any(source.is_dir() for [source, *_] in sources.values()))


def link_or_copy(source: Path, target: Path) -> None:
    """Link a file, or copy it where the file system has no links."""
    source = source.resolve()
    try:
        target.symlink_to(os.path.abspath(source))
    except OSError:
        shutil.copyfile(source, target)
