"""What the page works on: one data set with its classes and cases, and who has reviewed what. All of it is on disk."""

import json
import os
import secrets
import shlex
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from matplotlib.colors import to_hex
from msgspec import Meta, Struct, to_builtins

from ..core.atomic import atomic_file, unwritable
from ..core.console import say
from ..core.errors import InputError, first_names, nearest
from ..core.json_file import read_json
from ..core.labels import UNLABELED
from ..core.parallel import for_each
from ..data.case import read_scribble
from ..data.dataset import Case, Dataset
from ..data.importers.write import write_blank
from ..data.layout import read_dataset
from ..data.volume import read_components
from ..reporting.figures import colour
from .classes import add_classes, alone, check_classes, finish
from .folder import add_new_scans, check_names, make_dataset
from .images import Images
from .planes import Plane
from .predictions import Predictions
from .strokes import NONE_YET, StrokeFiles, Strokes, counts, version_of
from .suggest import next_slice

COLOURS = 8  # that the page offers for new classes


@dataclass
class Overview:
    """What the list of cases shows of one case."""

    voxels: list[int] = field(default_factory=list)  # labelled voxels per class
    slices: list[int] = field(default_factory=list)  # slices with a stroke
    version: str = NONE_YET  # of the strokes
    error: str = ""


class Stored(Struct):
    """session.json."""

    colours: dict[str, str] = {}
    reviewed: list[str] = []
    blank: dict[str, str] = {}  # cases whose label has no stroke → its version
    made: bool = False  # whether `draw` made the data set
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    number: str = ""  # drawn when the data set was first opened


class Gone(InputError):
    """It is not known any more what an `accept` has labelled."""


class Session:
    """One data set that is drawn on. Its methods may be called from several threads."""

    images: Images
    strokes: StrokeFiles
    predictions: Predictions

    def __init__(self, place: Path, source: Path | None = None):
        """`place`: the data set; `source`: the bare folder that it is made from, if it is."""
        self.place, self.source, self.made = place.resolve(), source, source is not None
        self.lock = threading.RLock()  # of everything in session.json, and of the classes
        self.dataset: Dataset | None = None
        self.overview: dict[str, Overview] = {}
        self.colours: list[str] = []
        self.reviewed: set[str] = set()
        self.blank: dict[str, str] = {}
        self.port = 0  # of the last server; 0 is any
        self.number = ""
        self.running: Callable[[], int | None] = lambda: None  # the number of the update that runs
        if (self.place / "dataset.json").is_file():
            self._load()
        self.number = self.number or secrets.token_hex(8)

    @property
    def work(self) -> Path:
        """The folder of everything that is neither an image nor a stroke: updates, backups, session.json."""
        return self.place / ".scribbleseg" / "draw"

    @property
    def id(self) -> str:
        """Which data set this is: its folder and its number, so that no copy and no other one in its place has it."""
        return sha256(f"{self.place}\n{self.number}".encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @property
    def data(self) -> Dataset:
        """Raises InputError while the classes have no names yet."""
        if self.dataset is None:
            raise InputError("the classes have no names yet. Name them first.")
        return self.dataset

    def case(self, name: str) -> Case:
        cases = self.data.cases
        if name not in cases:
            raise InputError(f"{self.place}: no case '{name}'. {nearest(name, list(cases)[:20])}")
        return cases[name]

    def _load(self) -> None:
        finish(self.place)
        if self.source is not None:
            add_new_scans(self.source, self.place)
        self.dataset = dataset = read_dataset(self.place)
        if not dataset.cases:
            raise InputError(f"{self.place}: has no case in imagesTr, so there is nothing to draw on. Add scans.")
        check_names(dataset.cases)
        self.images = Images(dataset)
        self.strokes = StrokeFiles(dataset, self.images)
        self.predictions = Predictions(self.work / "updates", self.images, dataset.file_ending, lambda: self.running())
        path = self.work / "session.json"
        stored = read_json(path, Stored) if path.is_file() else Stored()
        self.colours = [
            as_colour(stored.colours.get(name, colour(value))) for value, name in enumerate(dataset.classes)
        ]
        self.reviewed = set(stored.reviewed) & dataset.cases.keys()
        self.blank, self.made = dict(stored.blank), self.made or stored.made
        self.port, self.number = self.port or stored.port, self.number or stored.number
        self.overview = {name: Overview() for name in dataset.cases}
        self._look_again()

    def refresh(self) -> None:
        """Read what other servers, programs or persons have changed since: the classes, and the strokes."""
        with self.lock:
            if self.dataset is not None and not self.strokes.current:
                self._load()
            elif self.dataset is not None:
                self._look_again()

    def _look_again(self) -> None:
        """Read the strokes that were changed since the last look, by whomever."""
        cases = self.data.cases.values()
        changed = [case for case in cases if version_of(self.strokes.path(case)) != self.overview[case.id].version]
        for case, seen in zip(changed, for_each("reading strokes", self._look, changed) if changed else ()):
            self.overview[case.id] = seen

    def _look(self, case: Case) -> Overview:
        path = self.strokes.path(case)
        version = version_of(path)
        if version == NONE_YET:
            return Overview()
        if version == self.blank.get(case.id):
            return Overview(version=version)
        try:
            label, _ = read_scribble(self.data, replace(case, scribble=path), self.data.plane or "spacing")
        except InputError as error:
            return Overview(version=version, error=str(error))
        found = _overview(counts(label, len(self.data.classes)), version)
        if not found.slices:
            self.blank[case.id] = version
        return found

    def _save(self) -> None:
        colours = dict(zip(self.data.classes, self.colours))
        stored = Stored(colours, sorted(self.reviewed), self.blank, self.made, self.port, self.number)
        with atomic_file(self.work / "session.json") as partial:
            partial.write_text(json.dumps(to_builtins(stored), indent=1) + "\n", encoding="utf-8")

    def remember(self, port: int) -> None:
        """The port that the next server takes too. The number of the data set is kept with it."""
        with self.lock:
            self.port = port
            if self.dataset is not None:
                self._save()

    def complete(self) -> None:
        """Leave the data set as nnU-Net wants it: a label for every image, and their number in dataset.json.

        That is, if `draw` made it. A data set of the user's own gets labels of what is drawn and is else left alone. An
        image that cannot be read gets no label, and is named. Raises InputError if a file cannot be written.
        """
        if self.dataset is None or not self.made:
            return
        with self.lock, alone(self.place):
            self.refresh()
            cases = self.data.cases.values()
            if bare := [case for case in cases if version_of(self.strokes.path(case)) == NONE_YET]:
                made = for_each("labels without strokes", self._write_blank, bare)
                if unread := [case.id for case, can_be_read in zip(bare, made) if not can_be_read]:
                    say(f"{self.place}: no label for images that cannot be read: {first_names(unread)}")
            path = self.place / "dataset.json"
            described = read_json(path)
            if described.get("numTraining") != len(cases):
                with atomic_file(path) as partial:
                    partial.write_text(json.dumps(described | {"numTraining": len(cases)}, indent=1) + "\n", "utf-8")
            self._save()

    def _write_blank(self, case: Case) -> bool:
        """A label without strokes, unless somebody draws one meanwhile. Returns whether the image can be read."""
        path = self.strokes.path(case)
        made = self.work / "blank" / path.name
        try:
            _, grid = read_components(case.images[0])
        except InputError:
            return False
        try:
            write_blank(made, grid, self.data.ignore)
            version = version_of(made)  # that of `path`, until a page draws on it
            path.parent.mkdir(exist_ok=True)
            if _put_in_place(made, path):
                self.blank[case.id] = version
        except OSError as error:
            raise unwritable(path, error) from error
        finally:
            made.unlink(missing_ok=True)
        return True

    # --- classes and cases

    def name_classes(self, names: Sequence[str], colours: Sequence[str | None]) -> None:
        """Make the data set from the bare folder, with these structures beside background.

        Where there is a data set, its classes have to come first, in their order: names after them are added, and
        colours change. Raises InputError for other names.
        """
        with self.lock:
            self.refresh()
            if self.dataset is None:
                assert self.source is not None
                check_classes(names)
                make_dataset(self.source, self.place, names)
                self._load()
            known = self.data.classes[1:]
            if tuple(names[: len(known)]) != known:
                raise InputError(
                    f"{self.place}: has the classes {', '.join(known)}; got {', '.join(names)}. "
                    "Give these first, in the same order, or leave them out."
                )
            if len(names) > len(known):
                with self.strokes.lock:
                    add_classes(self.place, names[len(known) :])
                    self._load()
            self.colours[1:] = [new or old for new, old in zip(colours, self.colours[1:], strict=True)]
            self._save()

    def describe(self) -> dict[str, Any]:
        """The data set, its classes and cases, as JSON. Without classes: colours for new ones only."""
        offered = [colour(value) for value in range(COLOURS)]
        if self.dataset is None:
            return {"id": self.id, "name": self.place.name, "classes": None, "colours": offered}
        self.refresh()
        cases = []
        for name, case in self.data.cases.items():
            seen, uncertain = self.overview[name], self.predictions.uncertainty(case)
            cases.append(
                {
                    "id": name,
                    "voxels": seen.voxels,
                    "slices": seen.slices,
                    "error": seen.error,
                    "reviewed": name in self.reviewed,
                    "prediction": self.predictions.number(case),
                    "uncertainty": float(np.mean(uncertain)) if uncertain else None,
                }
            )
        classes = [{"name": name, "colour": shown} for name, shown in zip(self.data.classes, self.colours)]
        return {
            "id": self.id,
            "name": self.data.name,
            "classes": classes,
            "colours": offered,
            "channels": self.data.channels,
            "cases": cases,
            "command": f"scribbleseg draw {shlex.quote(str((self.source or self.place).resolve()))}",
            "masks": str(self.place.with_name(f"{self.place.name}_masks")),
        }

    def describe_case(self, name: str) -> dict[str, Any]:
        """Shape, planes, first grey windows, version, and what is drawn and predicted. Raises InputError if unreadable.

        An image that cannot be read is remembered, so that the list shows it and no update tries it.
        """
        case = self.case(name)
        try:
            windows = self.images.windows(case)
            strokes = self.strokes.read(case)
        except InputError as error:
            self.overview[name].error = str(error)
            raise
        self.overview[name] = _overview(strokes.counts, strokes.version)
        return {
            "id": name,
            "shape": strokes.label.shape,
            "planes": [vars(plane) for plane in self.images.planes(case)],
            "windows": windows,
            "coloured": self.images.coloured(case),
            "version": strokes.version,
            "drawn": strokes.counts.tolist(),
            "prediction": self.predictions.number(case),
            "uncertainty": self.predictions.uncertainty(case),
        }

    def review(self, name: str, reviewed: bool) -> None:
        with self.lock:
            (self.reviewed.add if reviewed else self.reviewed.discard)(self.case(name).id)
            self._save()

    def next_slice(self) -> tuple[str, int] | None:
        """The next slice to draw, of the cases that are not reviewed: `suggest.next_slice`. None if there is none."""
        seen = {name: each for name, each in self.overview.items() if name not in self.reviewed and not each.error}
        return next_slice({name: each.slices for name, each in seen.items()}, self._depth)

    def _depth(self, name: str) -> int:
        """How many slices a case has; 0 if its image cannot be read."""
        try:
            return len(self.images.channel(self.case(name), 0)[0])
        except InputError as error:
            self.overview[name].error = str(error)
            return 0

    # --- changes of strokes; each raises Conflict if the strokes are not `version`

    def save_slice(self, name: str, index: int, shown: bytes, version: str) -> Strokes:
        case = self.case(name)
        if version == NONE_YET and self.blank.get(name) == version_of(self.strokes.path(case)):
            version = self.blank[name]  # `complete` has written a label without strokes meanwhile
        return self._seen(name, self.strokes.save_slice(case, index, shown, version))

    def accept(self, name: str, version: str) -> tuple[Strokes, str]:
        """Label every voxel that has no stroke as predicted. Returns the strokes, and the key that `restore` needs."""
        case = self.case(name)
        predicted, key = self.predictions.label(case), secrets.token_hex(8)
        path = self._accepted(case, key)

        def change(label: np.ndarray, plane: Plane) -> slice:
            free = label == UNLABELED
            self.strokes.store(case, path, np.where(free, predicted, np.uint8(UNLABELED)))
            np.copyto(label, predicted, where=free)
            return slice(None)

        try:
            strokes = self._seen(name, self.strokes.write(case, version, change))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self.review(name, True)
        return strokes, key

    def restore(self, name: str, version: str, key: str, reviewed: bool) -> Strokes:
        """Take back what an `accept` has labelled, where its labels are still there.

        reviewed: whether the case was reviewed before. Raises Gone if it is not known what was accepted.
        """
        case = self.case(name)
        path = self._accepted(case, key)
        if not (key.isalnum() and path.is_file()):
            raise Gone(f"{name}: {path} is missing, which says what was accepted. Erase what does not fit.")

        def change(label: np.ndarray, plane: Plane) -> slice:
            label[label == self.strokes.load(case, path)] = UNLABELED
            return slice(None)

        strokes = self._seen(name, self.strokes.write(case, version, change))
        path.unlink(missing_ok=True)
        self.review(name, reviewed)
        return strokes

    def _accepted(self, case: Case, key: str) -> Path:
        """The labels that one `accept` has added to those of the case."""
        return self.work / "accepted" / f"{case.id}.{key}{self.data.file_ending}"

    def _seen(self, name: str, strokes: Strokes) -> Strokes:
        self.overview[name] = _overview(strokes.counts, strokes.version)
        return strokes


def _put_in_place(made: Path, path: Path) -> bool:
    """Give the file `made` the name `path` unless there is such a file; returns whether it has it now.

    Raises OSError if the name cannot be given.
    """
    try:
        os.link(made, path)
    except FileExistsError:
        return False
    except OSError:  # the file system has no links, or the folder cannot be written
        if path.exists():
            return False
        os.replace(made, path)
    return True


def as_colour(text: object) -> str:
    """#rrggbb of a colour's name or value. Raises InputError for what is neither."""
    try:
        return to_hex(str(text))
    except ValueError as error:
        raise InputError(f"colour {text!r}: expected a name such as green, or #rrggbb.") from error


def _overview(found: np.ndarray, version: str) -> Overview:
    return Overview(found.sum(0).tolist(), np.flatnonzero(found.any(1)).tolist(), version)
