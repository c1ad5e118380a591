"""Read the nnU-Net raw layout: dataset.json and the files in the folders of a data set."""

import difflib
import json
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from ..core.errors import InputError, counted, first_names, nearest
from ..core.json_file import convert, read_json
from ..core.labels import UNLABELED
from .dataset import PARTS, Case, Dataset
from .volume import ENDINGS, PICTURES, dead_link

FOLDERS = (*PARTS, "splits")
FILES = ("splits_final.json",)
ALIKE = 0.8  # of difflib's ratio: from here a name counts as misspelt
ALIKE_DENSE = 0.9  # for labelsTr_dense, which most data sets lack: labelsTr_test and labelsTr_done are other folders
SPLIT = re.compile(r"split([^.]*$|.*\.(json|pkl))")  # a file of folds that was renamed, or that of nnU-Net v1
SUFFIX = re.compile(r"([._-](\d{4}|seg|segmentation|label|labels|mask|gt|scribble|scribbles))+$", re.IGNORECASE)


def read_dataset(folder: Path) -> Dataset:
    """Read dataset.json and list the files.

    Raises InputError as `survey` does, and for misnamed images, for cases that lack a channel or have one too many,
    and for a case that is in both imagesTr and imagesTs.
    """
    dataset, faults = survey(folder)
    if faults:
        raise InputError(" ".join(faults))
    return dataset


class Listed(Struct):
    """The files of a case in nnU-Net's `dataset`."""

    images: list[str]
    label: str | None = None


class Description(Struct, omit_defaults=True):
    """dataset.json. Of the keys that nnU-Net or we may write, those that are read; every key may be missing."""

    labels: dict[str, int | str | list[int]] = {}
    channel_names: dict[str, str] | None = None
    file_ending: Annotated[str, Meta(pattern=r"^\.")] | None = None
    name: str | None = None
    groups: dict[str, str | int | float] = {}
    spacing: Literal["mm", "voxels"] = "mm"
    plane: Literal["", "spacing", "axial", "coronal", "sagittal", "first", "second", "third"] = ""  # volume.PLANES
    scribbleseg_note: str = ""
    numTraining: int | None = None  # nnU-Net's name
    dataset: dict[str, Listed] | None = None


READ = set(Description.__struct_fields__)
WITHOUT_MEANING = {
    *("strata", "description", "reference", "licence", "license", "release", "citation", "authors", "version"),
    *("tensorImageSize", "numTest", "test", "training", "modality", "converted_by", "nnunet_version"),
    *("dataset_name", "dataset_release", "dataset_license", "dataset_description", "dataset_reference"),
    *("overwrite_image_reader_writer", "image_reader_writer"),
}  # keys that say nothing about which files are read and what their values mean
CHANGES = {"groups": dict, "plane": str, "spacing": str, "channel_names": dict}  # the meaning of files, where misspelt


def survey(folder: Path) -> tuple[Dataset, list[str]]:
    """The data set as its files are, and a message for every fault in their names, such as a channel that is missing.

    Raises InputError if there is no dataset.json or it has values of other types, if there is no `ignore` label or it
    is not the highest, for values with gaps, region labels, no images, and groups that name no existing case.
    """
    folder = Path(folder)
    path = folder / "dataset.json"
    if not folder.is_dir():
        found = "is a file" if folder.is_file() else "no such folder"
        raise InputError(f"{folder}: {found}. A data set is a folder in the nnU-Net raw layout with a dataset.json.")
    if not path.is_file():
        sets = sorted(path.parent for path in (*folder.glob("*/dataset.json"), *folder.glob("*/*/dataset.json")))
        above = folder.absolute().parent
        if meant := sets or [above] * (above / "dataset.json").is_file():
            raise InputError(f"{folder}: has no dataset.json. Is {meant[0]} meant?")
        near = [path.name for path in sorted(folder.glob("[!.]*")) if path.name.casefold().startswith("dataset")]
        found = f" (it has {first_names(near)}; rename it?)" if near else ""
        raise InputError(
            f"{folder}: has no dataset.json{found}. A data set is a folder in the nnU-Net raw layout; "
            "see `scribbleseg import --help`."
        )
    info, content = read_description(path)
    for key in ("labels", "file_ending"):
        if key not in content:
            raise InputError(f"{path}: has no '{key}'. It has {', '.join(content) or 'nothing'}. Add '{key}'.")
    if "regions_class_order" in content:
        raise InputError(f"{path}: has regions_class_order; region-based labels are not supported. Remove the key.")
    if "modality" in content and info.channel_names is None:
        raise InputError(f"{path}: 'modality' is nnU-Net v1's word. Rename it to channel_names.")
    unknown = _unknown_keys(path, content)
    classes, ignore = _classes(path, info.labels)
    odd_names = _odd_names(list(info.labels))
    names = info.channel_names or {"0": "image"}
    channels = tuple(names[str(number)] for number in range(len(names)))
    end = info.file_ending or ""
    truths = folder / "labelsTr_dense"
    faults = _place_faults(folder)
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
            f"{folder}: in imagesTr and in imagesTs: {first_names(sorted(twice))}. A case must be in one of them only. "
            "Remove the other file."
        )
    for part, known in (("labelsTr", cases), ("labelsTr_dense", cases), ("labelsTs", tests)):
        faults += _label_faults(folder / part, end, known)
    if info.dataset is not None:
        faults += _listed_faults(path, info.dataset, cases)
    groups = _groups(path, info.groups, cases.keys() | tests.keys())
    dataset = Dataset(
        folder,
        info.name or folder.name,
        classes,
        ignore,
        channels,
        end,
        cases,
        tests,
        groups,
        "voxels" if end.lower() in PICTURES else info.spacing,
        info.scribbleseg_note,
        unknown,
        info.plane,
        odd_names,
    )
    return dataset, faults


def read_description(path: Path) -> tuple[Description, dict[str, Any]]:
    """What is read of a dataset.json, and its whole content. Raises InputError for a value of another type."""
    content = read_json(path, dict)
    info: Description = convert(content, Description, path)
    names = info.channel_names or {}
    if sorted(names) != sorted(map(str, range(len(names)))):
        raise InputError(
            f"{path}: channel_names has the numbers {', '.join(names)}; "
            "expected 0, 1, … as in the files' _0000, _0001. Correct the file."
        )
    return info, content


def _unknown_keys(path: Path, content: dict[str, Any]) -> tuple[str, ...]:
    """The keys that are not read, each with the key that may be meant.

    Raises InputError where the key that may be meant would change the meaning of the files, and for folds if no split
    is read.
    """
    folded, shown = {name.casefold(): name for name in READ - content.keys()}, []
    for key in sorted(content.keys() - READ - WITHOUT_MEANING):
        close = difflib.get_close_matches(key.casefold(), folded, 1, ALIKE)
        meant = folded[close[0]] if close else ""
        if meant in CHANGES and isinstance(content[key], CHANGES[meant]):
            raise InputError(f"{path}: '{key}' is no key that is read; is {meant} meant? Rename or remove it.")
        folds = key.casefold().startswith("split") and isinstance(content[key], (list, dict))
        if folds and not (path.parent / "splits_final.json").is_file() and not (path.parent / "splits").is_dir():
            raise InputError(
                f"{path}: '{key}' is no key that is read; expected splits_final.json or splits/NAME.json beside "
                "dataset.json. Move the folds there, or remove the key."
            )
        shown.append(f"{key} (is {meant} meant?)" if meant else key)
    return tuple(shown)


def _groups(path: Path, groups: dict[str, str | int | float], known: Collection[str]) -> dict[str, str]:
    if groups and not groups.keys() & known:
        raise InputError(
            f"{path}: groups names no case that has an image (first: '{min(groups)}'); expected case → patient. "
            f"{nearest(min(groups), known)}"
        )
    whole = {
        case: int(name) if isinstance(name, float) and name.is_integer() else name for case, name in groups.items()
    }
    return {case: str(patient).strip() for case, patient in whole.items()}


def _classes(path: Path, labels: dict) -> tuple[tuple[str, ...], int]:
    if labels and all(name.isdecimal() and isinstance(value, str) for name, value in labels.items()):
        swapped = json.dumps({value: int(name) for name, value in labels.items()})
        raise InputError(
            f"{path}: 'labels' is value → name, as in nnU-Net v1; expected name → value. Write \"labels\": {swapped}."
        )
    for name, value in labels.items():
        if not isinstance(value, int):
            raise InputError(
                f"{path}: label '{name}' has value {value!r}; expected one whole number (region-based labels are not "
                "supported)."
            )
    if odd := [name for name in labels if not name.isprintable() or not name.strip()]:
        raise InputError(f"{path}: label {odd[0]!r} is no name; expected text without control characters.")
    if odd := [name for name in labels if name != "ignore" and name.lower() == "ignore"]:
        raise InputError(f"{path}: label '{odd[0]}' is read in lower case only: write \"ignore\": {labels[odd[0]]}.")
    if "ignore" not in labels:
        raise InputError(
            f"{path}: no 'ignore' label among {labels}. Scribbles need a value for 'not drawn': "
            f'add "ignore": {max(labels.values(), default=0) + 1} and write that value where nothing was drawn.'
        )
    ignore: int = labels["ignore"]
    classes = {value: name for name, value in labels.items() if name != "ignore"}
    if sorted(classes) != list(range(len(classes))) or len(classes) < 2:
        raise InputError(
            f"{path}: labels have values {sorted(classes)}; expected 0 (background), 1, 2, … without a gap."
        )
    if ignore != len(classes):
        raise InputError(f"{path}: 'ignore' has value {ignore}; it must follow the last class. Write {len(classes)}.")
    if ignore >= UNLABELED:
        raise InputError(
            f"{path}: {len(classes)} classes; at most {UNLABELED - 1} are supported. Remove or merge classes."
        )
    return tuple(classes[value] for value in range(len(classes))), ignore


def _odd_names(labels: Sequence[str]) -> str:
    """A remark on names of labels that people take for one, or that have blanks around; nnU-Net reads them all."""
    if two := alike(labels):
        return f"the labels {two[0]!r} and {two[1]!r} have almost one name; both are read. Rename one of the two."
    if blank := [name for name in labels if name != name.strip()]:
        return f"label {blank[0]!r} has blanks around its name, and is read with them. Remove the blanks."
    return ""


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
    for path in [path for files in found.values() for path in files.values() if not path.is_file()]:
        faults.append(f"{path}: {dead_link(path) or 'is not a file'}. Put the image there, or remove it.")
    return cases


def _place_faults(folder: Path) -> list[str]:
    """Messages for what has the name of a part of a data set and is not read as such: it would count as missing."""
    parts, faults = {name.casefold(): name for name in (*FOLDERS, *FILES)}, []
    has_split = (folder / "splits_final.json").is_file()
    for path in sorted(folder.glob("[!.]*")):
        name = parts.get(path.name.casefold())
        if name is None:
            alike = {part: difflib.SequenceMatcher(None, path.name.casefold(), part).ratio() for part in parts}
            if alike["labelstr_dense"] < ALIKE_DENSE:
                del alike["labelstr_dense"]
            if has_split:
                del alike["splits"]
            close = [parts[part] for part, ratio in alike.items() if ratio == max(alike.values()) >= ALIKE]
            if path.is_dir() and close and not any(os.path.lexists(folder / part) for part in close):
                faults.append(f"{path}: is not read; is {close[0]} meant? Rename it, or move it elsewhere.")
            continue
        if name != path.name and not (folder / name).exists():
            faults.append(f"{path}: is not read; expected {name}. Rename it.")
        elif name == path.name and not (path.is_file() if name in FILES else path.is_dir()):
            kind = "file" if name in FILES else "folder"
            faults.append(f"{path}: {dead_link(path) or f'is no {kind}'}. Put the {kind} there, or remove it.")
    return faults + _split_faults(folder)


def _split_faults(folder: Path) -> list[str]:
    """Messages for what looks like a split and is not read, where the split that it looks like is not there."""
    faults, inside = [], sorted((folder / "splits").glob("[!.]*"))
    read = [path.name for path in inside if path.name.endswith(".json")]
    for path in inside:
        stem, json_end, _ = path.name.casefold().partition(".json")
        if path.name not in read and (json_end or not read) and f"{stem}.json" not in map(str.casefold, read):
            name = path.name[: len(stem)] if json_end else path.stem
            faults.append(f"{path}: is not read; expected a file {name}.json. Rename or remove it.")
    if read or os.path.lexists(folder / "splits_final.json"):
        return faults
    for place in (folder, *(folder / part for part in PARTS)):
        for path in sorted(place.glob("[!.]*")):
            name = path.name.casefold()
            known = name.endswith(ENDINGS) or (place == folder and name in ("splits", "splits_final.json"))
            if SPLIT.match(name) and not known:
                faults.append(
                    f"{path}: is not read; expected splits_final.json or splits/NAME.json beside dataset.json. Rename, "
                    "move or remove it."
                )
    return faults


def _label_faults(folder: Path, end: str, known: Collection[str]) -> list[str]:
    """Messages for what looks like a case's label and is not read as such: the case would count as not drawn."""
    faults, cases = [], {_plain(case): case for case in known}
    for path in sorted([*folder.glob("[!.]*"), *folder.glob("[!.]*/[!.]*")]):
        stem = path.name[: -len(end)] if path.name.lower().endswith(end.lower()) else None
        if stem in known and path.name.endswith(end) and path.parent == folder:
            if not path.is_file():
                faults.append(f"{path}: {dead_link(path) or 'is not a file'}. Put the label there.")
            continue
        case = cases.get(_plain(SUFFIX.sub("", stem))) if stem is not None else None
        case = case or cases.get(_case_in(_plain(path.name), cases))
        if case is not None and not (folder / f"{case}{end}").is_file():
            faults.append(
                f"{path}: is not read; the label of {case} is {folder.name}/{case}{end}. Rename it, or move "
                "it elsewhere."
            )
    return faults


def _plain(name: str) -> str:
    """A name without the differences that people do not see: capital letters, and how an accent is stored."""
    return unicodedata.normalize("NFC", name).casefold()


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """The first two names that people take for one: they differ in capital letters, accents' storage or outer blanks.

    None if there are no such two.
    """
    seen: dict[str, str] = {}
    for name in names:
        if (plain := _plain(name.strip())) in seen:
            return seen[plain], name
        seen[plain] = name
    return None


def _case_in(name: str, cases: Collection[str]) -> str:
    """The longest case that a volume's name holds as a word, such as `copy of case1 (2).nii.gz.part`; "" for none."""
    if "." in name and not any(end in name for end in ENDINGS):
        return ""
    starts = [i for i in range(len(name)) if i == 0 or not name[i - 1].isalnum()]
    ends = [i for i in range(1, len(name) + 1) if i == len(name) or not name[i].isalnum()]
    parts = (name[start:end] for start in starts for end in ends if start < end)
    return max((part for part in parts if part in cases), key=len, default="")


def _listed_faults(path: Path, listed: dict[str, Listed], cases: Mapping[str, Case]) -> list[str]:
    """A message where nnU-Net's `dataset`, its list of files, is not what the folders hold."""
    folder = path.parent
    ours = {name: {file.resolve() for file in (*case.images, case.scribble) if file} for name, case in cases.items()}
    theirs = {
        name: {(folder / file).resolve() for file in (*case.images, case.label) if file}
        for name, case in listed.items()
    }
    if ours == theirs:
        return []
    odd = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    return [
        f"{path}: 'dataset' lists other files than imagesTr and labelsTr hold: {first_names(odd)}. Only the folders "
        "are read. Put the files there (or links to them), or correct 'dataset', or remove it."
    ]


def _channel_faults(images: Path, found: dict[str, dict[int, Path]], end: str, channels: int) -> list[str]:
    """The faults of the channels: a message for missing files, one for files that dataset.json does not name."""
    known, faults = set(range(channels)), []
    if end.lower() in PICTURES:  # the colours of a picture are its channels
        found = {name: files for name, files in found.items() if files.keys() != {0}}
    numbers = ", ".join(f"{channel:04d}" for channel in range(channels))
    named = f"dataset.json names {counted(channels, 'channel')} ({numbers})"
    odd = [path for files in found.values() for channel, path in sorted(files.items()) if channel not in known]
    lacking = {name: sorted(known - files.keys()) for name, files in found.items() if known - files.keys()}
    if lacking:
        cases = f"{len(lacking)} of {counted(len(found), 'case')} lack{'s' * (len(lacking) == 1)} channels"
        missing = first_names([f"{name}_{channel:04d}{end}" for name, absent in lacking.items() for channel in absent])
        faults.append(f"{images}: {cases}: {named}. Add {missing}, or correct channel_names.")
    if odd:
        faults.append(
            f"{images}: {first_names([path.name for path in odd])}: no such channel, {named}. "
            f"Remove the file{'s' * (len(odd) != 1)}, or correct channel_names. "
            f"Where the number is the patient's, rename {odd[0].name} to {odd[0].name[: -len(end)]}_0000{end}."
        )
    return faults
