"""A data set on disk, in the nnU-Net raw layout with an `ignore` label.

dataset.json         labels (name → value, `ignore` the highest), channel_names, file_ending; ours also `groups`: case → patient,
                     `strata`: patient → pathology, and `"spacing": "voxels"` where the files have none
imagesTr/CASE_0000.nii.gz   one file per channel
labelsTr/CASE.nii.gz        scribbles (or dense masks: a case may be labelled completely); may be absent for a case
labelsTr_dense/CASE.nii.gz  dense masks where they exist: for scoring and for fully supervised training only
imagesTs/, labelsTs/        held-out cases
splits_final.json           nnU-Net's folds: a list of {"train": [...], "val": [...]}, `val` being held out
splits/NAME.json            named protocols: a list of {"name", "train", "val", "test"}
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import InputError, nearest
from ..core.labels import UNLABELED
from .preparation import normalise
from .volume import ITK, NIFTI, Grid, read_image, read_label

SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Case:
    """The files of one case; `scribble` and `truth` are None where there is none."""

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


@dataclass(frozen=True)
class Dataset:
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

    def patient(self, case: str) -> str:
        return self.groups.get(case, case)

    def unread(self) -> str:
        """The volumes in its folders that have another file ending, in words; empty where there are none."""
        parts = []
        for part in ("imagesTr", "labelsTr", "labelsTr_dense", "imagesTs", "labelsTs"):
            names = [
                path.name for path in (self.folder / part).glob("[!.]*") if not path.name.endswith(self.file_ending)
            ]
            ends = Counter(name[-len(end) :] for name in names for end in NIFTI + ITK if name.lower().endswith(end))
            parts += [f"{part} {count} {end}" for end, count in sorted(ends.items())]
        if not parts:
            return ""
        ending = f"A data set has one ending, '{self.file_ending}' in dataset.json: convert them to it."
        return f"files that are not read: {', '.join(parts)}. {ending}"

    def splits(self) -> list[str]:
        """Names of the protocols: files in `splits/`, and `final` for nnU-Net's splits_final.json."""
        named = sorted(path.stem for path in (self.folder / "splits").glob("*.json"))
        return (["final"] if (self.folder / "splits_final.json").is_file() else []) + named

    def folds(self, split: str) -> list[Fold]:
        """The folds of a protocol. `all` trains on every case of imagesTr and tests on imagesTs.

        Raises InputError for an unknown name, an unknown case, and a patient that is both trained on and held out.
        """
        if split == "all":
            fold = Fold("all", tuple(self.cases), (), tuple(self.tests))
            self._check_fold(self.folder, 0, fold)
            return [fold]
        if split not in self.splits():
            raise InputError(f"{self.folder}: no split '{split}'. {nearest(split, [*self.splits(), 'all'])}")
        if split == "final":
            path = self.folder / "splits_final.json"
            rows = _rows(path, {"train", "val"})
            rows = [{"train": row["train"], "test": row["val"]} for row in rows]
        else:
            path = self.folder / "splits" / f"{split}.json"
            rows = _rows(path, {"train", "test"})
        folds = [
            Fold(row.get("name", str(index)), *(tuple(row.get(part, ())) for part in ("train", "val", "test")))
            for index, row in enumerate(rows)
        ]
        for index, fold in enumerate(folds):
            self._check_fold(path, index, fold)
        return folds

    def fold(self, split: str, index: int) -> Fold:
        """One fold; raises InputError when there is no such number."""
        folds = self.folds(split)
        if not 0 <= index < len(folds):
            raise InputError(f"{self.folder}: split '{split}' has folds 0 to {len(folds) - 1}; got {index}.")
        return folds[index]

    def default_split(self) -> str:
        """The only named protocol (`tuning`, to choose settings on, is none), else `final`, else `all`."""
        named = [name for name in self.splits() if name not in ("final", "tuning")]
        return named[0] if len(named) == 1 else "final" if "final" in self.splits() else "all"

    def held_out(self, fold: Fold) -> tuple[str, list[Case]]:
        """What a run of this fold is judged on: ("test", cases), or ("validation", cases) where the fold names no test case.

        Raises InputError when one of them is not in this data set.
        """
        names = fold.test or fold.val
        missing = [name for name in names if name not in self.cases and name not in self.tests]
        if missing:
            raise InputError(
                f"{self.folder}: has no image of {len(missing)} of {len(names)} held-out cases (first: {missing[0]}). Is it the data set of the run?"
            )
        return ("test" if fold.test else "validation"), [self.case(name) for name in names]

    def case(self, name: str) -> Case:
        return self.cases[name] if name in self.cases else self.tests[name]

    def _check_fold(self, path: Path, index: int, fold: Fold) -> None:
        known = self.cases.keys() | self.tests.keys()
        for name in (*fold.train, *fold.val, *fold.test):
            if name not in known:
                raise InputError(
                    f"{path}: fold {index} names case '{name}', which has no image. {nearest(name, known)}"
                )
        parts = {part: {self.patient(name): name for name in getattr(fold, part)} for part in ("train", "val", "test")}
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            shared = parts[one].keys() & parts[other].keys()
            if shared:
                patient = min(shared)
                raise InputError(
                    f"{path}: fold {index} leaks: '{parts[one][patient]}' is in {one} and '{parts[other][patient]}' in {other}, "
                    f"both of patient '{patient}' ({len(shared)} such). Put every patient in one part."
                )


@dataclass(frozen=True)
class Volume:
    """One case in memory. Arrays are slices first, [D, H, W]; labels are 0..C with UNLABELED."""

    case: Case
    image: np.ndarray  # float32 [channels, D, H, W], each channel in [0, 1]
    scribble: np.ndarray  # uint8 [D, H, W]
    truth: np.ndarray | None  # uint8 [D, H, W], dense
    grid: Grid
    classes: int  # number of classes, background included


def read_dataset(folder: Path) -> Dataset:
    """Read dataset.json and list the files.

    Raises InputError for what `survey` does, for misnamed images, for cases that lack a channel or have one too many, and for one that is
    in imagesTr and in imagesTs.
    """
    dataset, faults = survey(folder)
    if faults:
        raise InputError(" ".join(faults))
    return dataset


def survey(folder: Path) -> tuple[Dataset, list[str]]:
    """The data set as far as its files go, and what read_dataset refuses in their names: the cases may lack channels or have some too many.

    Raises InputError for no dataset.json or one of other types, no `ignore` label, an ignore that is not the highest, values with gaps,
    region labels, no images, or groups of no case that is there.
    """
    folder = Path(folder)
    path = folder / "dataset.json"
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder. A data set is a folder in the nnU-Net raw layout with a dataset.json."
        )
    if not path.is_file():
        raise InputError(
            f"{folder}: has no dataset.json. A data set is a folder in the nnU-Net raw layout; see `scribbleseg import --help`."
        )
    info = read_description(path)
    for key in ("labels", "file_ending"):
        if key not in info:
            raise InputError(f"{path}: has no '{key}'. It lists {', '.join(info) or 'nothing'}.")
    classes, ignore = _classes(path, info["labels"])
    channels = tuple(info.get("channel_names", {"0": "image"}).values())
    end = info["file_ending"]
    truths = folder / "labelsTr_dense"
    faults = []
    cases = _cases(folder / "imagesTr", end, len(channels), folder / "labelsTr", truths, faults)
    tests = _cases(folder / "imagesTs", end, len(channels), None, folder / "labelsTs", faults)
    if not cases and not tests:
        raise InputError(
            " ".join(faults)
            or f"{folder}: no images. Expected imagesTr/CASE_0000{end} (file_ending in dataset.json is '{end}')."
        )
    twice = cases.keys() & tests.keys()
    if twice:
        faults.append(
            f"{folder}: in imagesTr and in imagesTs: {first_names(sorted(twice))}. A case is in one of the two: remove the other."
        )
    groups = _groups(path, info.get("groups", {}), cases.keys() | tests.keys())
    dataset = Dataset(
        folder,
        info.get("name", folder.name),
        classes,
        ignore,
        channels,
        end,
        cases,
        tests,
        groups,
        info.get("spacing", "mm"),
    )
    return dataset, faults


def read_description(path: Path) -> dict:
    """The content of a dataset.json; every key may be missing. Raises InputError where one has another type than ours."""
    info = read_json(path)
    if not isinstance(info, dict):
        raise InputError(
            f"{path}: is a {type(info).__name__}; expected an object with labels, channel_names and file_ending. Correct the file."
        )
    pairs = {"labels": "name → value", "channel_names": "number → name", "groups": "case → patient"}
    for key, words in pairs.items():
        if not isinstance(info.get(key, {}), dict):
            raise InputError(f"{path}: '{key}' is {info[key]!r}; expected an object, {words}. Correct the file.")
    for number, name in info.get("channel_names", {}).items():
        if not isinstance(name, str):
            raise InputError(f"{path}: channel '{number}' has name {name!r}; expected text. Correct channel_names.")
    if sorted(info.get("channel_names", {})) != sorted(map(str, range(len(info.get("channel_names", {}))))):
        raise InputError(
            f"{path}: channel_names has the numbers {', '.join(info['channel_names'])}; expected 0, 1, … as in the files' _0000, _0001. Correct the file."
        )
    end = info.get("file_ending", ".nii.gz")
    if not isinstance(end, str) or not end.startswith("."):
        raise InputError(
            f"{path}: 'file_ending' is {end!r}; expected text with its dot, such as '.nii.gz'. Correct the file."
        )
    return info


def _groups(path: Path, groups: dict, known: Collection[str]) -> dict[str, str]:
    if groups and not groups.keys() & known:
        raise InputError(
            f"{path}: groups names no case that has an image (first: '{min(groups)}'); it lists case → patient. {nearest(min(groups), known)}"
        )
    for case, patient in groups.items():
        if type(patient) not in (str, int, float):
            raise InputError(
                f'{path}: groups has {patient!r} for case \'{case}\'; expected its patient, text or a number: "groups": {{"{case}": "PATIENT"}}.'
            )
    return {case: str(patient) for case, patient in groups.items()}


def _classes(path: Path, labels: dict) -> tuple[tuple[str, ...], int]:
    if labels and all(name.isdecimal() and isinstance(value, str) for name, value in labels.items()):
        swapped = json.dumps({value: int(name) for name, value in labels.items()})
        raise InputError(
            f"{path}: 'labels' is value → name, as in nnU-Net v1; expected name → value. Write \"labels\": {swapped}."
        )
    for name, value in labels.items():
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(
                f"{path}: label '{name}' has value {value!r}; expected one whole number (region-based labels are not supported)."
            )
    if odd := [name for name in labels if name != "ignore" and name.lower() == "ignore"]:
        raise InputError(f"{path}: label '{odd[0]}' is read in lower case only: write \"ignore\": {labels[odd[0]]}.")
    if "ignore" not in labels:
        raise InputError(
            f"{path}: no 'ignore' label among {labels}. Scribbles need a value for 'not drawn': "
            f'add "ignore": {max(labels.values(), default=0) + 1} and write that value where nothing was drawn.'
        )
    ignore = labels["ignore"]
    classes = {value: name for name, value in labels.items() if name != "ignore"}
    if sorted(classes) != list(range(len(classes))) or len(classes) < 2:
        raise InputError(
            f"{path}: labels have values {sorted(classes)}; expected 0 (background), 1, 2, … without a gap."
        )
    if ignore != len(classes):
        raise InputError(f"{path}: 'ignore' has value {ignore}; it must be the highest label, here {len(classes)}.")
    if ignore >= UNLABELED:
        raise InputError(f"{path}: {len(classes)} classes; at most {UNLABELED - 1} are supported.")
    return tuple(classes[value] for value in range(len(classes))), ignore


def _cases(
    images: Path, end: str, channels: int, scribbles: Path | None, truths: Path, faults: list[str]
) -> dict[str, Case]:
    found: dict[str, dict[int, Path]] = {}
    misnamed = []
    for path in sorted(images.glob(f"[!.]*{end}")):
        stem = path.name[: -len(end)]
        name, _, channel = stem.rpartition("_")
        if name and len(channel) == 4 and channel.isdecimal():
            found.setdefault(name, {})[int(channel)] = path
        else:
            misnamed.append(stem)
    if misnamed:
        got = first_names([stem + end for stem in misnamed])
        rename = f"Rename {misnamed[0]}{end} to {misnamed[0]}_0000{end}." if channels == 1 else "Rename them."
        faults.append(f"{images}: expected CASE_0000{end}, the channel as four digits; got {got}. {rename}")
    faults += _channel_faults(images, found, end, channels)
    cases = {}
    for name, files in found.items():
        label = [folder / f"{name}{end}" if folder is not None else None for folder in (scribbles, truths)]
        label = [path if path is not None and path.is_file() else None for path in label]
        cases[name] = Case(name, tuple(files[channel] for channel in sorted(files)), *label)
    return cases


def _channel_faults(images: Path, found: dict[str, dict[int, Path]], end: str, channels: int) -> list[str]:
    """What is wrong with the channels of the cases: in one line those that lack some, in one the files that are none of dataset.json's."""
    known, faults = set(range(channels)), []
    named = f"dataset.json names {channels} channel{'s' * (channels != 1)} ({', '.join(f'{channel:04d}' for channel in range(channels))})"
    odd = [path for files in found.values() for channel, path in sorted(files.items()) if channel not in known]
    lacking = {name: sorted(known - files.keys()) for name, files in found.items() if known - files.keys()}
    if lacking:
        cases = f"{len(lacking)} of {len(found)} cases lack{'s' * (len(lacking) == 1)} channels"
        missing = first_names([f"{name}_{channel:04d}{end}" for name, absent in lacking.items() for channel in absent])
        faults.append(f"{images}: {cases}: {named}. Add {missing}, or correct channel_names.")
    if odd:
        faults.append(
            f"{images}: {first_names([path.name for path in odd])}: no such channel, {named}. "
            f"Remove the file{'s' * (len(odd) != 1)}, or correct channel_names. "
            f"Where the number is the patient's, rename {odd[0].name} to {odd[0].name[: -len(end)]}_0000{end}."
        )
    return faults


def first_names(names: list[str]) -> str:
    """The names for a message; of many the first few and their number."""
    return ", ".join(names[:SHOWN]) + (f", … ({len(names)} in all)" if len(names) > SHOWN else "")


def _rows(path: Path, keys: set[str]) -> list[dict]:
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and keys <= row.keys() for row in rows):
        raise InputError(
            f'{path}: expected a list of folds, each with {" and ".join(sorted(keys))}: [{{"train": [...], ...}}]. Correct the file.'
        )
    return rows


def read_json(path: Path):
    """The content of a JSON file; InputError when it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}). Correct the file.") from error


def load_volume(dataset: Dataset, case: Case) -> Volume:
    """Read one case: image normalised, labels recoded to 0..C and UNLABELED.

    A case without a scribble file is unlabelled throughout. Raises InputError for unreadable files, a constant image,
    NaN voxels, a label of another shape or place than its image, and values that dataset.json does not list.
    """
    image, grid = load_image(case.images)
    scribble = np.full(image.shape[1:], UNLABELED, np.uint8)
    if case.scribble is not None:
        scribble = load_label(case.scribble, grid, case.images[0], dataset.ignore, ignored=True)
    truth = None
    if case.truth is not None:
        truth = load_label(case.truth, grid, case.images[0], dataset.ignore, ignored=False)
    return Volume(case, image, scribble, truth, grid, len(dataset.classes))


def load_image(paths: Iterable[Path]) -> tuple[np.ndarray, Grid]:
    """The channels of one case, float32 [channels, D, H, W], each normalised by `normalise`, and their grid."""
    channels, first = [], None
    for path in paths:
        image, grid = read_image(path, first and first.order)
        if first is None:
            first, first_path = grid, path
        elif not grid.same_place(first):
            raise InputError(
                f"{path}: {difference(grid, first)} than {first_path}. All channels of a case need the same grid; resample one."
            )
        if image.max() == image.min():
            raise InputError(
                f"{path}: constant image (every voxel is {image.flat[0]:g}); nothing can be seen in it. Replace or remove the case."
            )
        channels.append(normalise(image))
    return np.stack(channels), first


def load_label(path: Path, image: Grid, image_path: Path, ignore: int, ignored: bool) -> np.ndarray:
    """One label file, recoded, in its image's order: uint8 [D, H, W]. Raises InputError for another grid, and for values that may not occur."""
    label, grid = read_label(path, image.order)
    if not grid.same_place(image):
        raise InputError(
            f"{path}: {difference(grid, image)} than its image {image_path}. Draw on the image itself, or resample the label with nearest neighbour."
        )
    return recode(label, ignore, path, ignored)


def recode(label: np.ndarray, ignore: int, path: Path, ignored: bool = True) -> np.ndarray:
    """File values to 0..C and UNLABELED, uint8. `ignored`: whether the ignore value may occur. Raises InputError for any other value."""
    allowed = f"0-{ignore - 1}" + (f" or {ignore} (ignore)" if ignored else "")
    values = np.unique(label)
    bad = values[(values < 0) | (values > ignore - (not ignored))]
    if bad.size:
        raise InputError(
            f"{path}: has value {bad[0]}; expected {allowed}. Correct the file; classes have the values of dataset.json, 0, 1, 2, … without a gap."
        )
    recoded = label.astype(np.uint8)
    recoded[label == ignore] = UNLABELED
    return recoded


def difference(grid: Grid, other: Grid) -> str:
    """How two grids differ, in words for a message."""
    if grid.turned(other):
        return "has its axes in another order or direction, over the same voxels (no resampling then: save it in the same orientation),"
    if grid.shape != other.shape:
        return f"has another shape ({' × '.join(map(str, grid.shape))} and not {' × '.join(map(str, other.shape))})"
    return f"has another affine (largest difference {np.abs(grid.affine - other.affine).max():.4g})"
