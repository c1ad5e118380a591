"""Read the nnU-Net raw layout: dataset.json and the files in the folders of a data set."""

import json
from collections.abc import Collection
from pathlib import Path

from ..core.errors import InputError, first_names, nearest
from ..core.json_file import read_json
from ..core.labels import UNLABELED
from .dataset import Case, Dataset


def read_dataset(folder: Path) -> Dataset:
    """Read dataset.json and list the files.

    Raises InputError as `survey` does, and for misnamed images, for cases that lack a channel or have one too many,
    and for a case that is in both imagesTr and imagesTs.
    """
    dataset, faults = survey(folder)
    if faults:
        raise InputError(" ".join(faults))
    return dataset


def survey(folder: Path) -> tuple[Dataset, list[str]]:
    """The data set as its files are, and a message for every fault in their names, such as a channel that is missing.

    Raises InputError if there is no dataset.json or it has values of other types, if there is no `ignore` label or it
    is not the highest, for values with gaps, region labels, no images, and groups that name no existing case.
    """
    folder = Path(folder)
    path = folder / "dataset.json"
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder. A data set is a folder in the nnU-Net raw layout with a dataset.json."
        )
    if not path.is_file():
        raise InputError(
            f"{folder}: has no dataset.json. A data set is a folder in the nnU-Net raw layout; "
            "see `scribbleseg import --help`."
        )
    info = read_description(path)
    for key in ("labels", "file_ending"):
        if key not in info:
            raise InputError(f"{path}: has no '{key}'. It has {', '.join(info) or 'nothing'}. Add '{key}'.")
    classes, ignore = _classes(path, info["labels"])
    channels = tuple(info.get("channel_names", {"0": "image"}).values())
    end = info["file_ending"]
    truths = folder / "labelsTr_dense"
    faults: list[str] = []
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
        info.get("scribbleseg_note", ""),
    )
    return dataset, faults


def read_description(path: Path) -> dict:
    """The content of a dataset.json; every key may be missing. Raises InputError for a value of another type."""
    info = read_json(path)
    if not isinstance(info, dict):
        raise InputError(
            f"{path}: is a {type(info).__name__}; expected an object with labels, channel_names and file_ending. "
            "Correct the file."
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
            f"{path}: channel_names has the numbers {', '.join(info['channel_names'])}; "
            "expected 0, 1, … as in the files' _0000, _0001. Correct the file."
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
            f"{path}: groups names no case that has an image (first: '{min(groups)}'); expected case → patient. "
            f"{nearest(min(groups), known)}"
        )
    for case, patient in groups.items():
        if type(patient) not in (str, int, float):
            raise InputError(
                f"{path}: groups has {patient!r} for case '{case}'; expected its patient as text or a number. Write "
                f'"groups": {{"{case}": "PATIENT"}}.'
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
                f"{path}: label '{name}' has value {value!r}; expected one whole number (region-based labels are not "
                "supported)."
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
        raise InputError(f"{path}: 'ignore' has value {ignore}; it must be the highest label. Write {len(classes)}.")
    if ignore >= UNLABELED:
        raise InputError(
            f"{path}: {len(classes)} classes; at most {UNLABELED - 1} are supported. Remove or merge classes."
        )
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
    """The faults of the channels: a message for missing files, one for files that dataset.json does not name."""
    known, faults = set(range(channels)), []
    numbers = ", ".join(f"{channel:04d}" for channel in range(channels))
    named = f"dataset.json names {channels} channel{'s' * (channels != 1)} ({numbers})"
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
