"""A data set: its cases, patients and classes, and the folds of its protocols.

On disk it has the nnU-Net raw layout with an `ignore` label:

dataset.json         labels (name → value, `ignore` the highest), channel_names, file_ending. Ours: `groups`,
                     case → patient; `strata`, patient → pathology; `"spacing": "voxels"` where the files have none;
                     `plane`, the plane that slices are cut in
imagesTr/CASE_0000.nii.gz   one file per channel
labelsTr/CASE.nii.gz        scribbles (or dense masks: a case may be labelled completely); may be absent for a case
labelsTr_dense/CASE.nii.gz  dense masks where they exist: for scoring and for fully supervised training only
imagesTs/, labelsTs/        held-out cases
splits_final.json           nnU-Net's folds: a list of {"train": [...], "val": [...]}, `val` being held out
splits/NAME.json            named protocols: a list of {"name", "train", "val", "test"}
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct

from ..core.errors import InputError, first_names, nearest
from ..core.json_file import read_json
from .volume import ENDINGS, Grid

PARTS = ("imagesTr", "labelsTr", "labelsTr_dense", "imagesTs", "labelsTs")
REACH_MM, REACH_PIXELS = 7.0, 5.0  # gaps between background strokes up to twice this count as closed


@dataclass(frozen=True)
class Case:
    """The files of one case. `scribble` and `truth` are None if there is no such file."""

    id: str
    images: tuple[Path, ...]  # one per channel
    scribble: Path | None
    truth: Path | None


@dataclass(frozen=True)
class Fold:
    """Case names. `val` may be looked at during training, `test` may not."""

    name: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]


class FinalEntry(Struct, forbid_unknown_fields=True):
    """A fold of splits_final.json."""

    train: list[str]
    val: list[str]


class FoldEntry(Struct, forbid_unknown_fields=True):
    """A fold of splits/NAME.json."""

    train: list[str]
    test: list[str]
    val: list[str] = []
    name: str | int | None = None


@dataclass(frozen=True)
class Dataset:
    """The content of dataset.json and the list of files. No image is read yet."""

    folder: Path
    name: str
    classes: tuple[str, ...]  # index = value, 0 = background
    ignore: int  # the value of unlabelled pixels in the files
    channels: tuple[str, ...]
    file_ending: str
    cases: dict[str, Case]  # imagesTr
    tests: dict[str, Case]  # imagesTs
    groups: dict[str, str]  # case → patient; a case that is not listed is its own patient
    spacing_unit: str = "mm"  # "voxels" where the files have no spacing
    note: str = ""  # scribbleseg_note of dataset.json: is kept with every run on the data set
    unknown_keys: tuple[str, ...] = ()  # of dataset.json
    plane: str = ""  # one of volume.PLANES; empty: the strokes decide
    odd_names: str = ""  # a remark on the names of the classes

    def spacing_of(self, grid: Grid) -> tuple[float, float]:
        """Distance of rows and of columns, mm; (1, 1) in pixels where the files have no spacing."""
        return grid.spacing_mm[1:] if self.spacing_unit == "mm" else (1.0, 1.0)

    def reach(self, grid: Grid) -> float:
        """How far background strokes are widened before a ring counts as closed, pixels: 7 mm, or 5 pixels."""
        return REACH_MM / (sum(grid.spacing_mm[1:]) / 2) if self.spacing_unit == "mm" else REACH_PIXELS

    def patient(self, case: str) -> str:
        return self.groups.get(case, case)

    def left_out(self) -> list[str]:
        """A message for every kind of file that is not read, and for keys and names of dataset.json that are odd."""
        names = f"{self.folder / 'dataset.json'}: {self.odd_names}" if self.odd_names else ""
        found = (self._other_endings(), *self._stray_labels(), *self._stray_files(), self._other_keys(), names)
        return [*filter(None, found)]

    def _other_keys(self) -> str:
        if not self.unknown_keys:
            return ""
        return f"{self.folder / 'dataset.json'}: unknown keys are not read: {', '.join(self.unknown_keys)}."

    def _stray_labels(self) -> list[str]:
        messages = []
        for part, known in (("labelsTr", self.cases), ("labelsTr_dense", self.cases), ("labelsTs", self.tests)):
            names = sorted(path.name for path in (self.folder / part).glob("[!.]*"))
            own = [name for name in names if name.endswith(self.file_ending)]
            strays = [name for name in own if name.removesuffix(self.file_ending) not in known]
            if strays:
                messages.append(
                    f"{part}: {first_names(strays)} has no image and is not read. Add the image. If a name is "
                    "wrong, rename the image or the label"
                )
        return messages

    def _stray_files(self) -> list[str]:
        messages = []
        for part in PARTS:
            names = sorted(path.name for path in (self.folder / part).glob("[!.]*"))
            others = [name for name in names if not name.lower().endswith((self.file_ending, *ENDINGS))]
            if others:
                messages.append(f"{part}: {first_names(others)}: not a volume, and not read")
        folders = [path.name for path in self.folder.glob("[!.]*") if path.is_dir() and path.name not in PARTS]
        if others := sorted(name for name in folders if name.casefold().startswith(("image", "label"))):
            messages.append(f"{first_names(others)}: no folder of a data set, and not read")
        odd = [path for path in self.folder.glob("[!.]*") if "split" in path.name.casefold()]
        odd = [path for path in odd if path.name not in ("splits", "splits_final.json")]
        odd += [path for path in (self.folder / "splits").glob("[!.]*") if path.suffix != ".json"]
        if odd:
            messages.append(f"{first_names(sorted(path.name for path in odd))}: not read as a split")
        return messages

    def _other_endings(self) -> str:
        parts = []
        for part in PARTS:
            names = [
                path.name for path in (self.folder / part).glob("[!.]*") if not path.name.endswith(self.file_ending)
            ]
            ends = Counter(name[-len(end) :] for name in names for end in ENDINGS if name.lower().endswith(end))
            parts += [f"{part} {count} {end}" for end, count in sorted(ends.items())]
        if not parts:
            return ""
        ending = f"A data set has one file ending, here '{self.file_ending}' (dataset.json). Convert the files to it."
        return f"files that are not read: {', '.join(parts)}. {ending}"

    def splits(self) -> list[str]:
        """Names of the protocols: files in `splits/`, and `final` for nnU-Net's splits_final.json."""
        named = sorted(path.stem for path in (self.folder / "splits").glob("[!.]*.json"))
        return (["final"] if (self.folder / "splits_final.json").is_file() else []) + named

    def folds(self, split: str) -> list[Fold]:
        """The folds of a protocol. `all` trains on every case of imagesTr and tests on imagesTs.

        Raises InputError for an unknown name, an unknown case, a case of imagesTs to train on, and a patient that is
        both trained on and held out.
        """
        if split == "all":
            fold = Fold("all", tuple(self.cases), (), tuple(self.tests))
            self._check_fold(self.folder, 0, fold)
            return [fold]
        if split not in self.splits():
            raise InputError(f"{self.folder}: no split '{split}'. {nearest(split, [*self.splits(), 'all'])}")
        if split == "final":
            path = self.folder / "splits_final.json"
            rows = [FoldEntry(row.train, row.val) for row in read_json(path, list[FinalEntry])]
        else:
            path = self.folder / "splits" / f"{split}.json"
            rows = read_json(path, list[FoldEntry])
        if not rows:
            raise InputError(f"{path}: has no fold. Expected a list of folds, each with train and val or test.")
        folds = [
            Fold(str(index) if row.name is None else str(row.name), tuple(row.train), tuple(row.val), tuple(row.test))
            for index, row in enumerate(rows)
        ]
        for index, fold in enumerate(folds):
            self._check_fold(path, index, fold)
        return folds

    def fold(self, split: str, index: int) -> Fold:
        """One fold. Raises InputError if there is no fold with this number."""
        folds = self.folds(split)
        if not 0 <= index < len(folds):
            raise InputError(
                f"{self.folder}: split '{split}' has folds 0 to {len(folds) - 1}; got {index}. Choose one of them."
            )
        return folds[index]

    def default_split(self) -> str:
        """The only named protocol (`tuning`, for choosing settings, does not count), else `final`.

        `all` where there is no protocol. Raises InputError where there are some and none of them is meant.
        """
        splits = self.splits()
        named = [name for name in splits if name not in ("final", "tuning")]
        if splits and len(named) != 1 and "final" not in splits:
            raise InputError(
                f"{self.folder}: has the splits {', '.join(splits)}, and nothing says which is meant. Name one with "
                "--split, or `all` to train on every case."
            )
        return named[0] if len(named) == 1 else "final" if splits else "all"

    def held_out(self, fold: Fold) -> tuple[str, list[Case]]:
        """The cases that score a run of this fold: ("test", cases), or ("validation", cases) if it has no test case.

        Raises InputError if one of them is not in this data set.
        """
        names = fold.test or fold.val
        missing = [name for name in names if name not in self.cases and name not in self.tests]
        if missing:
            raise InputError(
                f"{self.folder}: has no image of {len(missing)} of {len(names)} held-out cases (first: {missing[0]}). "
                "Use the data set of the run."
            )
        return ("test" if fold.test else "validation"), [self.case(name) for name in names]

    def case(self, name: str) -> Case:
        return self.cases[name] if name in self.cases else self.tests[name]

    def _check_fold(self, path: Path, index: int, fold: Fold) -> None:
        known = self.cases.keys() | self.tests.keys()
        names = (*fold.train, *fold.val, *fold.test)
        if twice := [name for name, count in Counter(names).items() if count > 1 and name not in _shared(fold)]:
            raise InputError(f"{path}: fold {index} names {first_names(twice)} twice. Name every case once.")
        for name in names:
            if name not in known:
                raise InputError(
                    f"{path}: fold {index} names case '{name}', which has no image. {nearest(name, known)}"
                )
        if held := [name for name in fold.train if name in self.tests]:
            raise InputError(
                f"{path}: fold {index} trains on {first_names(held)}, and cases of imagesTs have no scribbles. Move "
                "them to imagesTr, or correct the file."
            )
        parts = {part: {self.patient(name): name for name in getattr(fold, part)} for part in ("train", "val", "test")}
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            shared = parts[one].keys() & parts[other].keys()
            if shared:
                patient = min(shared)
                raise InputError(
                    f"{path}: fold {index} leaks: '{parts[one][patient]}' is in {one} and '{parts[other][patient]}' in "
                    f"{other}, both of patient '{patient}' ({len(shared)} such). Put every patient in one part."
                )


def _shared(fold: Fold) -> set[str]:
    """Cases in two parts of a fold: a leak, which has a message of its own."""
    train, val, test = map(set, (fold.train, fold.val, fold.test))
    return (train & val) | (train & test) | (val & test)
