"""What the page works on: cases, strokes with their versions, predictions, what was reviewed. All of it is on disk."""

import functools
import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_hex

from ..core.atomic import atomic_file, atomic_folder
from ..core.errors import InputError, nearest
from ..core.json_file import read_json
from ..core.labels import UNLABELED
from ..core.parallel import for_each
from ..data.case import difference, load_label, read_scribble
from ..data.dataset import Case, Dataset
from ..data.layout import read_dataset
from ..data.volume import Grid, read_volume, write_volume
from ..reporting.figures import colour
from .folder import add_new_volumes, check_classes, make_dataset
from .planes import Plane, planes
from .suggest import Suggested, least_sure

SAMPLE = 200_000  # voxels from which the first grey window is chosen
CT_BELOW = -500  # a scan with values below this is in Hounsfield units
CT_WINDOW = (-160.0, 240.0)  # soft tissue
NONE_YET = "none"  # version of the strokes of a case without a file


class Conflict(Exception):
    """The strokes of a case are not those that the page has: another tab, person or program has written them."""


@dataclass
class Strokes:
    """The strokes of a case: uint8 [D, H, W] with UNLABELED, labelled voxels per slice and class, and their version."""

    label: np.ndarray
    counts: np.ndarray  # [D, classes]
    version: str


@dataclass
class Overview:
    """What the list of cases shows of one case."""

    voxels: list[int] = field(default_factory=list)  # labelled voxels per class
    slices: list[int] = field(default_factory=list)  # slices with a stroke
    error: str = ""


class Session:
    """One data set that is drawn on. Its methods may be called from several threads."""

    def __init__(self, place: Path, source: Path | None = None):
        """`place`: the data set; `source`: the bare folder that it is made from, if it is."""
        self.place, self.source = place.resolve(), source
        self.lock = threading.RLock()  # writing, and everything that has to agree with what is written
        self.reading = threading.Lock()  # a volume is read once, also if six slices of it are asked for at once
        self.opened = functools.lru_cache(maxsize=3)(_open_image)
        self.maps = functools.lru_cache(maxsize=4)(_open_map)
        self.drawn: dict[str, Strokes] = {}  # the cases that were drawn on last
        self.overview: dict[str, Overview] = {}
        self.dataset: Dataset | None = None
        self.colours: list[str] = []
        self.reviewed: set[str] = set()
        if (self.place / "dataset.json").is_file():
            self._load()

    # --- the data set

    @property
    def work(self) -> Path:
        """The folder of everything that is neither an image nor a stroke: updates, backups, session.json."""
        return self.place / ".scribbleseg" / "draw"

    @property
    def data(self) -> Dataset:
        """Raises InputError while the classes have no names yet."""
        if self.dataset is None:
            raise InputError("the classes have no names yet. Name them first.")
        return self.dataset

    def name_classes(self, names: Sequence[str], colours: Sequence[str | None]) -> None:
        """Make the data set from the bare folder, with these structures beside background.

        Where there is a data set already, only the colours change. Raises InputError if it has other classes.
        """
        with self.lock:
            if self.dataset is None:
                assert self.source is not None
                check_classes(names)
                make_dataset(self.source, self.place, names)
                self._load()
            if tuple(names) != self.data.classes[1:]:
                raise InputError(
                    f"{self.place}: has the classes {', '.join(self.data.classes[1:])}; got {', '.join(names)}. "
                    "Give the same classes, or leave them out."
                )
            self.colours[1:] = [new or old for new, old in zip(colours, self.colours[1:], strict=True)]
            self._save()

    def case(self, name: str) -> Case:
        cases = self.data.cases
        if name not in cases:
            raise InputError(f"{self.place}: no case '{name}'. {nearest(name, list(cases)[:20])}")
        return cases[name]

    def label_path(self, name: str) -> Path:
        return self.place / "labelsTr" / f"{self.case(name).id}{self.data.file_ending}"

    def _load(self) -> None:
        if self.source is not None:
            add_new_volumes(self.source, self.place)
        self.dataset = dataset = read_dataset(self.place)
        if not dataset.cases:
            raise InputError(f"{self.place}: has no case in imagesTr, so there is nothing to draw on. Add scans.")
        stored = read_json(self.work / "session.json") if (self.work / "session.json").is_file() else {}
        colours = stored.get("colours", {})
        self.colours = [colours.get(name, colour(value)) for value, name in enumerate(dataset.classes)]
        self.reviewed = set(stored.get("reviewed", ())) & dataset.cases.keys()
        self.overview = {name: Overview() for name in dataset.cases}
        with_label = [case for case in dataset.cases.values() if case.scribble is not None]
        for case, seen in zip(with_label, for_each("reading strokes", self._look, with_label) if with_label else ()):
            self.overview[case.id] = seen

    def _look(self, case: Case) -> Overview:
        assert case.scribble is not None
        try:
            label, _ = read_scribble(self.data, case, self.data.plane or "spacing")
        except InputError as error:
            return Overview(error=str(error))
        return _overview(_counts(label, len(self.data.classes)))

    def _save(self) -> None:
        stored = {"colours": dict(zip(self.data.classes, self.colours)), "reviewed": sorted(self.reviewed)}
        with atomic_file(self.work / "session.json") as partial:
            partial.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")

    # --- what the page asks for

    def describe(self) -> dict[str, Any]:
        """The data set, its classes and cases, as JSON. Without classes: the names of the volumes only."""
        if self.dataset is None:
            return {"name": self.place.name, "classes": None, "colours": [colour(value) for value in range(8)]}
        cases = []
        for name in self.dataset.cases:
            seen, number = self.overview[name], self.predicted_by(name)
            uncertain = self.uncertainty(name)
            cases.append(
                {
                    "id": name,
                    "voxels": seen.voxels,
                    "slices": seen.slices,
                    "error": seen.error,
                    "reviewed": name in self.reviewed,
                    "prediction": number,
                    "uncertainty": float(np.mean(uncertain)) if uncertain else None,
                }
            )
        classes = [{"name": name, "colour": shown} for name, shown in zip(self.dataset.classes, self.colours)]
        return {
            "name": self.dataset.name,
            "classes": classes,
            "channels": self.dataset.channels,
            "cases": cases,
            "masks": str(self.place.with_name(f"{self.place.name}_masks")),
        }

    def describe_case(self, name: str) -> dict[str, Any]:
        """Shape, planes, first grey windows, version, and what is drawn and predicted. Raises InputError if unreadable.

        An image that cannot be read is remembered, so that the list shows it and no update tries it.
        """
        self.case(name)
        try:
            images = [self.image(name, channel) for channel in range(len(self.data.channels))]
            strokes = self.strokes(name)
        except InputError as error:
            self.overview[name].error = str(error)
            raise
        voxels, grid = images[0]
        self.overview[name] = _overview(strokes.counts)
        return {
            "id": name,
            "shape": voxels.shape,
            "planes": [vars(plane) for plane in planes(grid)],
            "windows": [grey_window(voxels) for voxels, _ in images],
            "version": strokes.version,
            "drawn": strokes.counts.tolist(),
            "prediction": self.predicted_by(name),
            "uncertainty": self.uncertainty(name),
        }

    def image(self, name: str, channel: int) -> tuple[np.ndarray, Grid]:
        """The voxels [D, H, W] of one channel, in the file's type or float32, and the grid of the first channel.

        An uncompressed NIfTI file is mapped, not read. Raises InputError for what training would refuse too.
        """
        images = self.case(name).images
        if not 0 <= channel < len(images):
            raise InputError(f"{name}: has channels 0 to {len(images) - 1}; got {channel}.")
        with self.reading:
            voxels, grid = self.opened(images[0], None, self.data.plane or "spacing")
            if channel:
                voxels, other = self.opened(images[channel], grid.order, grid.plane)
                if not other.same_place(grid):
                    raise InputError(
                        f"{images[channel]}: {difference(other, grid)} than {images[0]}. "
                        "All channels of a case need the same grid; resample one."
                    )
        return voxels, grid

    def plane(self, name: str, axis: int) -> Plane:
        return planes(self.image(name, 0)[1])[_within("axis", axis, 3)]

    def image_plane(self, name: str, channel: int, axis: int, index: int) -> np.ndarray:
        """A plane as it is shown: uint8, int16 or float32 [rows, columns]."""
        voxels, _ = self.image(name, channel)
        shown = self.plane(name, axis).take(voxels, _within("slice", index, voxels.shape[axis]))
        kept = {"b1": np.uint8, "u1": np.uint8, "i1": np.int16, "i2": np.int16}
        return np.ascontiguousarray(shown, kept.get(shown.dtype.str[1:], np.float32))

    # --- strokes

    def strokes(self, name: str) -> Strokes:
        """The strokes of a case as they are on disk now. Raises InputError for a label that does not fit its image."""
        with self.lock:
            path = self.label_path(name)
            version = version_of(path)
            known = self.drawn.pop(name, None)
            if known is None or known.version != version:
                voxels, grid = self.image(name, 0)
                if version == NONE_YET:
                    label = np.full(voxels.shape, UNLABELED, np.uint8)
                else:
                    label = load_label(path, grid, self.case(name).images[0], self.data.ignore, ignored=True)
                known = Strokes(label, _counts(label, len(self.data.classes)), version)
            self.drawn[name] = known
            while len(self.drawn) > 2:
                self.drawn.pop(next(iter(self.drawn)))
            return known

    def strokes_plane(self, name: str, axis: int, index: int) -> tuple[np.ndarray, str]:
        """A plane of the strokes as it is shown, uint8 [rows, columns] with UNLABELED, and their version."""
        strokes = self.strokes(name)
        shown = self.plane(name, axis).take(strokes.label, _within("slice", index, strokes.label.shape[axis]))
        return np.ascontiguousarray(shown), strokes.version

    def save_slice(self, name: str, index: int, shown: bytes, version: str) -> Strokes:
        """Write one slice of strokes, uint8 bytes as they are shown. The file is replaced at once.

        Raises Conflict if the file is not `version`, InputError for another size and for values that are no class.
        """

        def change(label: np.ndarray, plane: Plane) -> slice:
            part = plane.turn(label[_within("slice", index, len(label))])
            if len(shown) != part.size:
                raise InputError(f"{name}: got {len(shown)} pixels; a slice has {part.size}. Reload the page.")
            new = np.frombuffer(shown, np.uint8).reshape(part.shape)
            odd = new[(new >= len(self.data.classes)) & (new != UNLABELED)]
            if odd.size:
                raise InputError(f"{name}: got the value {odd[0]}, which is no class. Reload the page.")
            part[...] = new
            return slice(index, index + 1)

        return self._write(name, version, change)

    def accept(self, name: str, version: str) -> Strokes:
        """Label every voxel that has no stroke as predicted. `restore` takes it back. Raises as `save_slice`."""
        predicted = self.prediction(name)

        def change(label: np.ndarray, plane: Plane) -> slice:
            np.copyto(label, predicted, where=label == UNLABELED)
            return slice(None)

        with self.lock:
            path, backup = self.label_path(name), self._backup(name)
            if version != version_of(path):
                raise Conflict(name)
            backup.unlink(missing_ok=True)
            if path.is_file():
                with atomic_file(backup) as partial:
                    shutil.copyfile(path, partial)
            strokes = self._write(name, version, change)
            self.review(name, True)
            return strokes

    def restore(self, name: str, version: str) -> Strokes:
        """The strokes as they were before the last `accept` of the case. Raises Conflict as `save_slice`."""
        backup = self._backup(name)

        def change(label: np.ndarray, plane: Plane) -> slice:
            label.fill(UNLABELED)
            if backup.is_file():
                grid = self.image(name, 0)[1]
                label[...] = load_label(backup, grid, self.case(name).images[0], self.data.ignore, ignored=True)
            return slice(None)

        return self._write(name, version, change)

    def _backup(self, name: str) -> Path:
        return self.work / "before_accept" / self.label_path(name).name

    def _write(self, name: str, version: str, change: Callable[[np.ndarray, Plane], slice]) -> Strokes:
        """`change` changes the strokes in place and returns the slices that it has changed."""
        with self.lock:
            now = self.strokes(name)
            if version != now.version:
                raise Conflict(name)
            grid, path = self.image(name, 0)[1], self.label_path(name)
            self.drawn.pop(name)  # if anything below fails, the strokes are read again from disk
            changed = change(now.label, planes(grid)[0])
            now.counts[changed] = _counts(now.label[changed], len(self.data.classes))
            stored = np.where(now.label == UNLABELED, np.uint8(self.data.ignore), now.label)
            write_volume(path, stored, grid)
            now.version = version_of(path)
            self.drawn[name] = now
            self.overview[name] = _overview(now.counts)
            return now

    def review(self, name: str, reviewed: bool) -> None:
        with self.lock:
            (self.reviewed.add if reviewed else self.reviewed.discard)(self.case(name).id)
            self._save()

    # --- predictions

    def updates(self) -> list[Path]:
        """The folders of the updates, the latest first."""
        found = [path for path in (self.work / "updates").glob("*") if path.name.isdecimal()]
        return sorted(found, key=lambda path: -int(path.name))

    def predicted_by(self, name: str) -> int | None:
        """The number of the latest update that has predicted the case: an older prediction stays until then."""
        return next(
            (int(path.name) for path in self.updates() if (path / "uncertainty" / f"{name}.json").is_file()), None
        )

    def uncertainty(self, name: str) -> list[float] | None:
        """Mean entropy of each slice of the latest prediction, 0 to 1; None without a prediction."""
        number = self.predicted_by(name)
        return None if number is None else read_json(self._update(number) / "uncertainty" / f"{name}.json")

    def prediction(self, name: str) -> np.ndarray:
        """The latest predicted classes, uint8 [D, H, W]. Raises InputError where there are none."""
        return self._map(name, "")

    def prediction_plane(self, name: str, axis: int, index: int, uncertain: bool = False) -> np.ndarray:
        """A plane of the prediction as it is shown, or of its entropy times 255, uint8 [rows, columns]."""
        volume = self._map(name, "_entropy" if uncertain else "")
        return np.ascontiguousarray(self.plane(name, axis).take(volume, _within("slice", index, volume.shape[axis])))

    def _update(self, number: int) -> Path:
        return self.work / "updates" / str(number)

    def _map(self, name: str, kind: str) -> np.ndarray:
        number = self.predicted_by(name)
        if number is None:
            raise InputError(f"{name}: is not predicted yet. Update the model first.")
        order = self.image(name, 0)[1].order
        path = self._update(number) / "predictions" / f"{name}{kind}{self.data.file_ending}"
        with self.reading:
            return self.maps(path, order)

    def next_slice(self) -> Suggested | None:
        """The slice without strokes, of cases not reviewed, that the model is least sure of. None if there is none."""
        seen = {name: each for name, each in self.overview.items() if name not in self.reviewed and not each.error}
        uncertainty = {name: self.uncertainty(name) or () for name in seen}
        return least_sure(uncertainty, {name: each.slices for name, each in seen.items()})

    def export(self, folder: Path, reviewed_only: bool) -> list[str]:
        """Write a mask per case: the latest prediction, with what was drawn or accepted on top; returns the cases.

        Cases that are neither predicted nor labelled throughout are left out. Raises InputError if there is no case to
        write, and for a folder that is not empty.
        """
        folder = folder if folder.is_absolute() else self.place.parent / folder
        done = []
        with atomic_folder(folder) as partial:
            for name in self.data.cases:
                if self.overview[name].error or (reviewed_only and name not in self.reviewed):
                    continue
                with self.lock:
                    label = self.strokes(name).label
                    if self.predicted_by(name) is not None:
                        label = np.where(label == UNLABELED, self.prediction(name), label)
                    elif (label == UNLABELED).any():
                        continue
                    grid = self.image(name, 0)[1]
                write_volume(partial / f"{name}{self.data.file_ending}", label, grid)
                done.append(name)
            if not done:
                what = "reviewed case" if reviewed_only else "case"
                raise InputError(f"no {what} is predicted or labelled throughout. Update the model first.")
        return done


def as_colour(text: object) -> str:
    """#rrggbb of a colour's name or value. Raises InputError for what is neither."""
    try:
        return to_hex(str(text))
    except ValueError as error:
        raise InputError(f"colour {text!r}: expected a name such as green, or #rrggbb.") from error


def version_of(path: Path) -> str:
    """Changes whenever the file is replaced or written, by whomever."""
    try:
        seen = os.stat(path)
    except FileNotFoundError:
        return NONE_YET
    return f"{seen.st_mtime_ns:x}-{seen.st_ino:x}-{seen.st_size:x}"


def grey_window(voxels: np.ndarray) -> dict[str, Any]:
    """Where black and white lie at first, the range of the scan, and whether it is in Hounsfield units."""
    sample = voxels[tuple(slice(None, None, max(1, round((voxels.size / SAMPLE) ** (1 / 3)))) for _ in range(3))]
    low, high = (float(value) for value in np.percentile(sample, (0.5, 99.5)))
    least, most = float(sample.min()), float(sample.max())
    ct = least < CT_BELOW and bool(voxels.dtype.kind in "if")
    if ct:
        low, high = CT_WINDOW
    return {"low": low, "high": max(high, low + 1e-6), "least": least, "most": most, "ct": ct}


def _open_image(path: Path, order: tuple[int, int, int] | None, plane: str) -> tuple[np.ndarray, Grid]:
    voxels, grid = read_volume(path, order, plane)
    if voxels.dtype.itemsize == 8 or voxels.dtype.kind == "f":
        voxels = voxels if voxels.dtype == np.float32 else voxels.astype(np.float32)
        bad = sum(plane.size - int(np.isfinite(plane).sum()) for plane in voxels)
        if bad:
            raise InputError(f"{path}: {bad} voxels are NaN or infinite. Replace them in the file, then try again.")
    return voxels, grid


def _open_map(path: Path, order: tuple[int, int, int]) -> np.ndarray:
    voxels, _ = read_volume(path, order)
    return np.rint(voxels * 255).astype(np.uint8) if voxels.dtype.kind == "f" else voxels.astype(np.uint8)


def _counts(label: np.ndarray, classes: int) -> np.ndarray:
    return np.stack([np.bincount(part.ravel(), minlength=classes)[:classes] for part in label])


def _overview(counts: np.ndarray) -> Overview:
    return Overview(counts.sum(0).tolist(), np.flatnonzero(counts.any(1)).tolist())


def _within(what: str, value: int, size: int) -> int:
    if not 0 <= value < size:
        raise InputError(f"{what} {value}: expected 0 to {size - 1}.")
    return value
