"""Import the ACDC challenge's NIfTI files, with the scribbles of Valvano et al. beside them."""

import re
from pathlib import Path

from ...core.atomic import atomic_folder
from ...core.console import say, tell
from ...core.errors import InputError, counted, first_names
from ...core.json_file import read_lines
from ...core.parallel import for_each
from .protocols import ACDC_GROUPS, acdc_protocols, write_splits
from .write import copy_case, write_blanks, write_description
from .wsl4mis import ABOUT, CLASSES

FILE = re.compile(r"(patient(\d+)_frame\d+)(_gt|_scribble|)\.nii\.gz")
SERIES = re.compile(r"patient\d+_4d\.nii\.gz")
PATHOLOGY = {
    "DCM": "dilated",
    "HCM": "hypertrophic",
    "MINF": "infarct",
    "NOR": "normal",
    "RV": "abnormal RV",
}  # Info.cfg's words
IGNORE = len(CLASSES) + 1


def import_acdc(src: Path, dst: Path) -> None:
    """Copy patient001/patient001_frame01{,_gt,_scribble}.nii.gz, at any depth below `src`, to the new data set `dst`.

    Values: 1 RV, 2 Myo, 3 LV; 4 = not drawn. Patients 1-100 (the challenge's training set) go to imagesTr, 101-150 (its
    test set) to imagesTs. patient001_4d.nii.gz is not read. A patient's pathology is the `Group` in Info.cfg.
    Without an Info.cfg it follows from the documented order of the patients. Frames without scribble get
    a label without strokes.

    Raises InputError if there are no files, a file exists twice or a label has no image, and what copy_case raises.
    """
    files: dict[str, dict[str, Path]] = {}
    paths = sorted(Path(src).rglob("[!.]*.nii.gz"))
    for path in paths:
        if match := FILE.fullmatch(path.name):
            kinds = files.setdefault(match[1], {})
            if match[3] in kinds:
                raise InputError(f"{path}: the same file is also at {kinds[match[3]]}. Keep one of the two.")
            kinds[match[3]] = path
    if not files:
        raise InputError(
            f"{src}: has no files such as patient001/patient001_frame01.nii.gz. Give the challenge's folder (training)."
        )
    if others := [path.name for path in paths if not FILE.fullmatch(path.name) and not SERIES.fullmatch(path.name)]:
        say(f"{src}: {len(others)} not imported, no frames or labels: {first_names(others)}")
    for case, kinds in files.items():
        if "" not in kinds:
            raise InputError(f"{next(iter(kinds.values()))}: has no image {case}.nii.gz. Add it, or remove the label.")
    number = {case: int(case[len("patient") :].split("_")[0]) for case in files}
    groups = ACDC_GROUPS | {
        number[case]: group for case, kinds in files.items() if (group := _pathology(kinds[""].parent / "Info.cfg"))
    }

    def copy(case: str) -> None:
        kinds = files[case]
        held_out = number[case] not in ACDC_GROUPS
        copy_case(
            folder, case, kinds[""], None if held_out else kinds.get("_scribble"), kinds.get("_gt"), IGNORE, held_out
        )

    with atomic_folder(dst) as folder:
        for_each("importing ACDC", copy, files)
        write_blanks(folder, IGNORE)
        patients: dict[int, list[str]] = {}
        for case in files:
            patients.setdefault(number[case], []).append(case)
        strata = {cases[0].split("_")[0]: groups[p] for p, cases in sorted(patients.items()) if p in groups}
        write_description(
            folder, "ACDC", ("MR",), CLASSES, {case: case.split("_")[0] for case in files}, strata=strata, **ABOUT
        )
        write_splits(folder, acdc_protocols(patients, groups), "cv5")
    bare = [case for case, kinds in files.items() if "_scribble" not in kinds and number[case] in ACDC_GROUPS]
    if bare:
        tell(
            f"without a scribble: {len(bare)} of {counted(len(files), 'frame')} (first: {bare[0]}); "
            f"`scribbleseg simulate {dst}` draws scribbles from the masks"
        )


def _pathology(info: Path) -> str | None:
    """The patient's group, or None without Info.cfg. Raises InputError for a group that the challenge does not have."""
    if not info.is_file():
        return None
    group = re.search(r"^Group:\s*(\w+)", "".join(read_lines(info)), re.MULTILINE)
    if group is None or group[1] not in PATHOLOGY:
        got = f"Group '{group[1]}'" if group else "no Group"
        raise InputError(
            f"{info}: {got}; expected one of {', '.join(PATHOLOGY)}. "
            "Correct the file, or remove it to use the documented order."
        )
    return PATHOLOGY[group[1]]
