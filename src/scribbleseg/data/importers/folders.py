"""Import a folder of scans and a folder of labels from any tool: values or segments become classes."""

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ... import config
from ...core.atomic import atomic_folder
from ...core.console import say
from ...core.errors import InputError, counted, first_names, nearest
from ...core.labels import UNLABELED
from ...core.parallel import for_each
from ..case import difference, read_channels, says_place
from ..dicom import has_series, read_series
from ..itk import from_itk, has_size, open_itk
from ..layout import SUFFIX, alike
from ..nifti import AS_ITK, two_places
from ..placing import place
from ..volume import ITK, NIFTI, Grid, check_geometry, dead_link, ending, read_label, read_volume, write_volume
from .write import END, case_paths, say_moved, write_blanks, write_description

SEGMENTS = ".seg.nrrd"  # of 3D Slicer


@dataclass(frozen=True)
class Mapping:
    """What the values of label files mean: file value or segment name → value in the data set."""

    names: tuple[str, ...]  # of the classes 1, 2, …
    values: dict[int, int]
    segments: dict[str, int]

    @property
    def ignore(self) -> int:
        return len(self.names) + 1


def import_folders(settings: config.Import) -> None:
    """Write the scans of IMAGES and the labels of LABELS to a new data set in NIfTI.

    A scan is a volume (several channels: CASE_0000, CASE_0001, …), or a folder with one DICOM series. Its label has its
    name, with or without an ending such as -label, _seg or .seg. A scan without a label gets one without strokes.
    Labels are put on the image's grid by their geometry; no voxel is interpolated. Raises InputError for a label
    without an image, for values that no option names, for labels whose voxels lie between the image's, for drawn voxels
    outside of the image, and for segments that overlap.
    """
    images, labels = settings.src
    mapping = read_mapping(settings.classes, settings.not_drawn)
    channels = settings.channels or ("image",)
    scans = find_scans(images, len(channels))
    drawn = find_labels(labels, scans)

    def convert(case: str) -> tuple[bool, bool]:
        grid, twice = _write_scan(folder, case, scans[case])
        if case not in drawn:
            return False, twice
        label, moved = _label_on(drawn[case], scans[case][0], grid, mapping, settings.same_voxels)
        write_volume(case_paths(folder, case)[1], label.transpose(grid.order), grid)
        return moved, twice

    with atomic_folder(settings.dst) as folder:
        found = for_each("importing", convert, scans)
        write_blanks(folder, mapping.ignore)
        write_description(folder, images.resolve().name, channels, mapping.names, {}, end=END)
    say_moved(drawn[case] for case, (moved, _) in zip(scans, found) if moved)
    if twice := [case for case, (_, both) in zip(scans, found) if both]:
        say(f"{first_names(twice)}: {AS_ITK}")
    bare = [case for case in scans if case not in drawn]
    if bare:
        count = f"{len(bare)} of {counted(len(scans), 'scan')}"
        say(f"without a label: {count} ({first_names(bare)}); each got one without strokes")


def read_mapping(classes: Sequence[str], not_drawn: Sequence[str]) -> Mapping:
    """The options --class NAME=VALUE and --not-drawn VALUE. Raises InputError for a value that is named twice."""
    if not classes:
        raise InputError(
            "import folders needs the classes and their values in the label files: --class liver=1 --class background=5"
        )
    pairs = []
    for text in classes:
        name, _, value = text.partition("=")
        pairs.append((name.strip(), value.strip() or name.strip()))
    names = [name for name, _ in pairs]
    if odd := [name for name in names if not name or not name.isprintable() or name.lower() == "ignore"]:
        raise InputError(f"--class {odd[0]}: is no name of a class. Give NAME=VALUE, such as liver=1.")
    if two := alike(names):
        also = "" if two[0] == two[1] else f", as {two[0]} too"
        raise InputError(f"--class {two[1]} was given twice{also}. Give every class once.")
    foreground = tuple(name for name in names if name.lower() != "background")
    if not foreground:
        raise InputError("--class background alone: expected at least one class more.")
    if len(foreground) + 2 > UNLABELED:
        raise InputError(f"{len(foreground)} classes; at most {UNLABELED - 2} are supported. Merge some.")
    target = {name: 0 if name.lower() == "background" else 1 + foreground.index(name) for name in names}
    ignore = len(foreground) + 1
    texts = [(value, target[name]) for name, value in pairs] + [(value, ignore) for value in not_drawn]
    known = [value for value, _ in texts]
    if twice := [value for value in known if known.count(value) > 1]:
        raise InputError(f"value {twice[0]} has two meanings. Give every value once, in --class or --not-drawn.")
    if "background" not in map(str.lower, names):
        say(
            "no --class background=VALUE: training needs strokes of background. If the labels have them, name their "
            "value; else draw some"
        )
    values = {int(value): meaning for value, meaning in texts if _is_number(value)}
    segments = {value: meaning for value, meaning in texts if not _is_number(value)}
    if not not_drawn:
        values.setdefault(0, ignore)
    return Mapping(foreground, values, segments)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+", text) is not None


def find_scans(images: Path, channels: int) -> dict[str, tuple[Path, ...]]:
    """Case → its files, one per channel, or its folder with a DICOM series.

    What lies in the folder and is no scan is named. Raises InputError where there are no scans, for a case with another
    number of channels, and for what `_is_volume` does not accept.
    """
    if not images.is_dir():
        what = "is a file" if images.is_file() else "no such folder"
        raise InputError(f"{images}: {what}. Give the folder of the scans.")
    found: dict[str, dict[str, Path]] = {}
    others: list[str] = []
    for path in sorted(images.glob("[!.]*")):
        if path.is_dir() and has_series(path):
            found.setdefault(path.name, {})[""] = path
        elif not _is_volume(path):
            others.append(path.name)
        else:
            stem = path.name[: -len(ending(path))]
            match = re.fullmatch(r"(.+)_(\d{4})", stem)
            numbered = match is not None and (channels > 1 or match[2] == "0000")
            case, number = (match[1], match[2]) if match and numbered else (stem, "")
            if number in found.setdefault(case, {}):
                raise InputError(f"{path}: is the same scan as {found[case][number].name}. Remove one of the two.")
            found[case][number] = path
    if not found and has_series(images):
        found[images.resolve().name] = {"": images}
        others = []
    if not found:
        raise InputError(f"{images}: has no scans. Expected {', '.join(NIFTI + ITK)}, or a folder of DICOM per scan.")
    for case, files in found.items():
        if len(files) != channels:
            raise InputError(
                f"{images}: {case} has {counted(len(files), 'file')}; expected {channels}, one per --channel, named "
                f"{case}_0000, {case}_0001, … Add the files, or correct the --channel options."
            )
    if others:
        say(f"{images}: {len(others)} not imported, no scans: {first_names(others)}")
    return {case: tuple(files[number] for number in sorted(files)) for case, files in found.items()}


def _is_volume(path: Path) -> bool:
    """Whether this is a file that can be imported. Raises InputError for the name of one that is no file."""
    named = path.name.lower().endswith(NIFTI + ITK)
    if gone := dead_link(path):
        raise InputError(f"{path}: {gone}. Correct or remove the link.")
    if named and not path.is_file():
        raise InputError(f"{path}: has the name of a volume and is no file. Move the volume out of it, or rename it.")
    return named


def find_labels(labels: Path, scans: Iterable[str]) -> dict[str, Path]:
    """Case → label file. What lies in the folder and is no label is named.

    Raises InputError for no labels, a label without a scan, two labels of a scan, and for what `_is_volume` does not
    accept.
    """
    if not labels.is_dir():
        what = "is a file" if labels.is_file() else "no such folder"
        raise InputError(f"{labels}: {what}. Give the folder of the labels.")
    cases = {case.casefold(): case for case in scans}
    found: dict[str, Path] = {}
    others: list[str] = []
    for path in sorted(labels.glob("[!.]*")):
        if not _is_volume(path):
            others.append(path.name)
            continue
        stem = path.name[: -len(ending(path))]
        case = cases.get(stem.casefold()) or cases.get(SUFFIX.sub("", stem).casefold())
        if case is None:
            raise InputError(f"{path}: has no scan of this name. {nearest(stem, cases.values())}")
        if case in found:
            raise InputError(f"{path}: is a label of {case} as {found[case].name} is. Remove one of the two.")
        found[case] = path
    if not found:
        raise InputError(f"{labels}: has no labels. Expected {', '.join((SEGMENTS, *NIFTI, *ITK))} named as the scans.")
    if others:
        say(f"{labels}: {len(others)} not imported, no labels: {first_names(others)}")
    return found


def _write_scan(folder: Path, case: str, files: tuple[Path, ...]) -> tuple[Grid, bool]:
    """Write the channels; returns the grid as it will be read, and whether a header has two places that differ.

    Raises InputError for a scan without a voxel size.
    """
    path = case_paths(folder, case)[0]
    twice = False
    for number, source in enumerate(files):
        target = path.with_name(f"{case}_{number:04d}{END}")
        if source.is_dir():
            array, grid = read_series(source)
        else:
            array, grid = read_volume(source)
            if grid.unit != "mm":
                raise InputError(
                    f"{source}: does not say how large its voxels are; expected lengths in mm. Write their size into "
                    "the header (space directions of NRRD, ElementSpacing of MetaImage), or convert the scan again. If "
                    'nobody knows it, lay the folders out as docs/data.md says, with "spacing": "voxels" in '
                    "dataset.json: all lengths are in voxels then."
                )
            twice |= two_places(grid.header)
        if source.is_file() and source.name.lower().endswith(END):
            shutil.copyfile(source, target)
        else:
            write_volume(target, array, Grid(grid.shape, grid.affine, None))
    _, grid = read_channels([path.with_name(f"{case}_{number:04d}{END}") for number in range(len(files))])
    return grid, twice


def _label_on(path: Path, image: Path, grid: Grid, mapping: Mapping, same_voxels: bool) -> tuple[np.ndarray, bool]:
    """The label [x, y, z] on the image's grid with the data set's values, and whether its own geometry was dropped."""
    label, own = _read_segments(path, mapping) if path.name.lower().endswith(SEGMENTS) else _read(path, mapping)
    placed = place(label, own, grid, mapping.ignore) if says_place(own) or own.same_place(grid) else None
    if placed is not None and not placed[1]:
        return placed[0], False
    if same_voxels and own.sizes == grid.sizes:
        return label, True
    if placed is not None:
        raise InputError(f"{path}: {placed[1]} drawn voxels lie outside of its image {image}. Correct the geometry.")
    why = f"its voxels lie between those of {image}" if says_place(own) else "its header says no place of its voxels"
    way = "--same-voxels takes it voxel by voxel." if own.sizes == grid.sizes else "Save it again on the image's grid."
    raise InputError(f"{path}: {why}: it {difference(own, grid)}. {way}")


def _read(path: Path, mapping: Mapping) -> tuple[np.ndarray, Grid]:
    """A label file, [x, y, z] with the values of the data set. Raises InputError for values that no option names."""
    voxels, grid = read_label(path, (0, 1, 2))
    values, place_of = np.unique(voxels, return_inverse=True)
    unknown = [int(value) for value in values if int(value) not in mapping.values]
    if unknown:
        counts = ", ".join(f"{value} ({int((voxels == value).sum())} voxels)" for value in unknown[:5])
        raise InputError(
            f"{path}: has the values {counts}, which no option names. Give each with --class NAME=VALUE or --not-drawn "
            "VALUE."
        )
    meanings = np.array([mapping.values[int(value)] for value in values], np.uint8)
    return meanings[place_of].reshape(voxels.shape), grid


def _read_segments(path: Path, mapping: Mapping) -> tuple[np.ndarray, Grid]:
    """A segmentation of 3D Slicer, [x, y, z] with the values of the data set: segments by their name or value.

    Raises InputError for a segment that no option names, and for segments of different classes that overlap.
    """
    file = open_itk(path)
    keys = {key: file.GetMetaData(key) for key in file.GetMetaDataKeys()}
    numbers = sorted({match[1] for key in keys if (match := re.match(r"Segment(\d{1,9})_", key))}, key=int)
    if not numbers:
        return _read(path, mapping)
    voxels, affine, header = from_itk(file)
    check_geometry(path, affine)
    layers = voxels[None] if voxels.ndim == 3 else voxels  # [layers, x, y, z]
    if layers.ndim != 4:
        raise InputError(f"{path}: has {voxels.ndim} axes; expected a volume. Save it again in 3D Slicer.")
    grid = Grid(layers.shape[1:], affine, header, unit="mm" if has_size(path) else "voxels")
    found = np.full(grid.shape, mapping.ignore, np.uint8)
    for number in numbers:
        name = keys.get(f"Segment{number}_Name", "").strip()
        value = _number(path, keys, f"Segment{number}_LabelValue", 1)
        layer = _number(path, keys, f"Segment{number}_Layer", 0)
        if layer >= len(layers):
            raise InputError(
                f"{path}: segment '{name}' is in layer {layer} of {len(layers)}. Save it again in 3D Slicer."
            )
        meaning = mapping.segments.get(name, mapping.values.get(value) if value != 0 else None)
        where = layers[layer] == value
        if meaning is None:
            raise InputError(
                f"{path}: no option names its segment '{name}' (value {value}, {int(where.sum())} voxels). "
                f"Give --class NAME={name or value}, or --not-drawn {name or value}."
            )
        clash = where & (found != mapping.ignore) & (found != meaning)
        if clash.any():
            raise InputError(
                f"{path}: segment '{name}' overlaps another class in {int(clash.sum())} voxels. Make the segments "
                "exclusive in 3D Slicer (Masking: Modify other segments: Overwrite all), and save again."
            )
        found[where] = meaning
    return found, grid


def _number(path: Path, keys: dict[str, str], key: str, default: int) -> int:
    """A whole number from 0 of the header of a segmentation. Raises InputError for anything else."""
    text = keys.get(key, str(default)).strip()
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise InputError(f"{path}: {key} is {text[:40]!r}; expected a whole number from 0. Save it again in 3D Slicer.")
    return int(text)
