"""What is to be segmented: a file, a folder of scans, or the held-out cases of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.console import say
from ..core.errors import InputError, counted, first_names
from ..data.dicom import has_series, is_dicom
from ..data.layout import read_dataset
from ..data.volume import ENDINGS, NIFTI, PICTURES, ending
from ..training.plan import Plan
from .provenance import MADE_BY, written

LABELS = ("labelsTr", "labelsTr_dense", "labelsTs")  # folders of a data set


@dataclass(frozen=True)
class Job:
    """One case to predict: the files of its channels, or the folder of its DICOM series, and the file to write."""

    images: tuple[Path, ...]
    output: Path


def list_jobs(source: Path, output: Path, plans: Sequence[Plan]) -> list[Job]:
    """The cases of INPUT and where their masks go; of a data set, the cases that every run held out.

    Raises InputError when there is nothing to segment, when INPUT holds predictions or labels, and when its channels do
    not match the runs'.
    """
    if (source / MADE_BY).is_file() or (source.is_file() and source.name in written(source.parent)):
        raise InputError(
            f"{source}: holds predictions, as {MADE_BY} there says. The order is RUN [RUN ...] INPUT OUTPUT. "
            f"If these are scans after all, remove {MADE_BY}."
        )
    single = str(output).lower().endswith(ENDINGS)
    is_set = (source / "dataset.json").is_file()
    files, series, others = _scans(source) if source.is_dir() and not is_set else ([], [], [])
    if source.is_dir() and single and series != [source]:
        raise InputError(f"{output}: is one file, and {source} is a folder of scans. Give a folder as OUTPUT.")
    if is_set:
        return _held_out(source, output, plans)
    folder = (source.parent if source.is_file() else source).resolve()
    if folder.name in LABELS and (folder.parent / "dataset.json").is_file():
        raise InputError(
            f"{source}: holds labels of the data set {folder.parent}, no images. "
            "Give the data set, or its imagesTr or imagesTs, as INPUT."
        )
    channels = plans[0].channels
    if source.is_file() and is_dicom(source):
        raise InputError(f"{source}: is one file of a DICOM series. Give the folder that holds the series as INPUT.")
    if source.is_file():
        end = ending(source)
        if len(channels) != 1 and end not in PICTURES:
            raise InputError(
                f"{source}: the run needs {len(channels)} channels ({', '.join(channels)}). "
                f"Give a folder with CASE_0000{end}, CASE_0001{end}, …"
            )
        return [Job((source,), output if single else output / source.name)]
    if not source.is_dir():
        raise InputError(f"{source}: no such file or folder.")
    if not files and not series:
        raise InputError(
            f"{source}: no scans in this folder; expected files that end in {', '.join(ENDINGS)}, or a folder of DICOM "
            "per scan."
        )
    if others:
        say(f"{source}: {len(others)} not read, no scans: {first_names(others)}")
    if series and len(channels) != 1:
        raise InputError(
            f"{series[0]}: is a DICOM series, one channel; the run needs {len(channels)} ({', '.join(channels)}). "
            f"Convert the series to files, and name them CASE_0000{NIFTI[0]}, CASE_0001{NIFTI[0]}, …"
        )
    jobs = _of_files(source, output, channels, files)
    if single:
        return [Job((source,), output)]
    return jobs + [Job((path,), output / f"{path.resolve().name}{NIFTI[0]}") for path in series]


def _scans(folder: Path) -> tuple[list[Path], list[Path], list[str]]:
    """The volumes of a folder, its folders with a DICOM series (if it has neither, itself), and names of the rest."""
    found = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    files = [path for path in found if path.name.lower().endswith(ENDINGS)]
    series = [path for path in found if path.is_dir() and path not in files and has_series(path)]
    if not files and not series and has_series(folder):
        return [], [folder], []
    return files, series, [path.name for path in found if path not in files and path not in series]


def _held_out(source: Path, output: Path, plans: Sequence[Plan]) -> list[Job]:
    """The test cases of the runs' folds, or the validation cases where a fold has no test case."""
    dataset, channels = read_dataset(source), plans[0].channels
    if len(dataset.channels) != len(channels):
        raise InputError(
            f"{source}: has the channels {', '.join(dataset.channels)}; the run was trained on {', '.join(channels)}."
        )
    parts, held = zip(*(dataset.held_out(plan.fold) for plan in plans))
    cases = [case for case in held[0] if all(case in other for other in held[1:])]
    folds = ", ".join(dict.fromkeys(plan.fold.name for plan in plans))
    if not all(held):
        raise InputError(
            f"{source}: no case was held out in training, so there is none to predict (a packed model does not know "
            f"which were). Give a folder of scans, or train with --val-share .2."
        )
    if not cases:
        raise InputError(
            f"{source}: no case was held out by all {len(plans)} runs (folds {folds}). "
            "Give a folder of volumes that none was trained on, or one run."
        )
    kinds = " or ".join(dict.fromkeys(parts))
    say(f"predicting the {counted(len(cases), f'{kinds} case')} of fold {folds}")
    return [Job(case.images, output / f"{case.id}{dataset.file_ending}") for case in cases]


def _of_files(source: Path, output: Path, channels: Sequence[str], files: Sequence[Path]) -> list[Job]:
    """A job per case of a folder's volumes, the channels of a case (CASE_0000, CASE_0001, …) together."""
    names = {path.name for path in files}
    groups: dict[tuple[str, str], list[Path]] = {}  # (case, ending) → files
    for path in files:
        end = path.name[-len(ending(path)) :]
        stem = path.name[: -len(end)]
        name, _, channel = stem.rpartition("_")
        numbered = bool(name) and len(channel) == 4 and channel.isdigit()
        stacked = len(channels) > 1 and ending(path) not in PICTURES
        numbered &= stacked or f"{name}_0000{end}" in names  # else the number is a patient's
        groups.setdefault((name if numbered else stem, end), []).append(path)
    for (name, end), paths in groups.items():
        last = f"_{len(channels) - 1:04d}{ending(paths[0])}"
        if len(paths) == 1 and ending(paths[0]) in PICTURES:
            continue  # its colours are the channels
        if len(paths) != len(channels) or (len(paths) > 1 and not paths[-1].name.endswith(last)):
            raise InputError(_other_channels(source, name, end, len(paths), channels, names))
    return [Job(tuple(paths), output / f"{name}{end}") for (name, end), paths in groups.items()]


def _other_channels(source: Path, name: str, end: str, found: int, channels: Sequence[str], names: set[str]) -> str:
    got, needed = (counted(count, word) for count, word in ((found, "file"), (len(channels), "channel")))
    numbers = [f"{channel:04d}" for channel in range(len(channels))]
    missing = ", ".join(file for number in numbers if (file := f"{name}_{number}{end}") not in names)
    named = ", ".join(f"CASE_{number}" for number in numbers)
    return (
        f"{source}: {name}{end} has {got}; the run needs {needed} ({', '.join(channels)}), named {named}."
        f"{f' Missing: {missing}.' * bool(missing)}"
    )
