"""Per-case scores of predicted masks, and their summary.

A row is a dict with the keys of COLUMNS: one structure of one case. `unit` is mm, or voxel where a data set has no real spacing
(dataset.json says `"spacing": "voxels"` and the file's voxel size is 1, 1, 1). `penalised_hd95` is hd95, or the volume's diagonal where
the structure was missed.
"""

import csv
import os
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..config import Evaluate
from ..core.atomic import atomic_file
from ..core.errors import InputError
from ..core.progress import Progress
from ..data.case import difference, load_label
from ..data.dataset import Case, Dataset
from ..data.layout import read_description
from ..data.volume import ITK, NIFTI, ending, read_label
from ..inference.provenance import MADE_BY, changed
from .metrics import diagonal_mm, score

COLUMNS = ("case", "class", "dice", "hd95", "assd", "unit", "missing", "spurious", "penalised_hd95")


def evaluate(config: Evaluate) -> list[dict]:
    """Score a file or a folder, print the summary, write the per-case table; returns its rows. Raises what `score_files` raises."""
    rows, unpredicted, unscored = score_files(config.predictions, config.truth, config.classes)
    if config.out is not None:
        write_rows(config.out, rows)
    print(format_table(summarise(rows)))
    scored = len({row["case"] for row in rows})
    for left_out, words in (
        (unpredicted, "masks have no prediction"),
        (unscored, "predictions have no mask and are not scored"),
    ):
        if left_out:
            print(f"{len(left_out)} of {len(left_out) + scored} {words} (first: {left_out[0]}).")
    cases = {row["case"] for row in rows}
    files = [path for case, path in list_masks(Path(config.predictions)).items() if case in cases]
    if altered := changed(files[0].parent, [path.name for path in files]):
        print(
            f"{len(altered)} of {len(files)} predictions were changed after predict wrote them (first: {altered[0]})."
        )
    return rows


def score_files(predictions: Path, truth: Path, classes: Sequence[str] = ()) -> tuple[list[dict], list[str], list[str]]:
    """Score a mask against a mask, or a folder against masks of the same names (endings may differ), cases in parallel.

    Returns the rows, by case and class, the names of the cases in TRUTH that have no prediction, and those of the predictions that have
    no mask there. Probability and entropy maps that `scribbleseg predict` writes beside a mask are passed over. The classes' names are `classes`, or those of dataset.json beside the folder
    TRUTH, or class_1, class_2, … up to the highest value in TRUTH.

    Raises InputError for a folder without volumes, folders without a name in common, the two swapped, another shape or affine, and a value
    without a class.
    """
    predictions, truth = Path(predictions), Path(truth)
    if not truth.exists():
        raise InputError(
            f"{truth}: no such file or folder. TRUTH has the dense masks; where there are none, scribbleseg report RUN shows the predictions."
        )
    if (truth / MADE_BY).is_file() and predictions.is_dir() and not (predictions / MADE_BY).is_file():
        raise InputError(
            f"{truth}: holds predictions ({MADE_BY} says what made them), and {predictions} does not. The order is PREDICTIONS TRUTH: "
            f"{shlex.join(['scribbleseg', 'evaluate', str(truth), str(predictions)])}. If they are corrected and now the truth, remove {MADE_BY}."
        )
    predicted, true = list_masks(predictions), list_masks(truth)
    if predictions.is_file() and truth.is_file():
        true = dict(zip(predicted, true.values()))
    cases = [case for case in predicted if case in true]
    if not cases:
        raise InputError(
            f"{predictions}: no prediction has a mask of its name in {truth} (predicted: {next(iter(predicted))}, …; masks: {next(iter(true))}, …). "
            "Rename the ones or the others."
        )
    info_path = (truth if truth.is_dir() else truth.parent).parent / "dataset.json"
    info = read_description(info_path) if info_path.is_file() else {}
    voxels = info.get("spacing") == "voxels"
    names = tuple(classes) or (
        _class_names(info_path, info) if "labels" in info else _numbered([true[case] for case in cases])
    )

    def score_case(case: str) -> list[dict]:
        prediction, grid = read_label(predicted[case])
        mask, mask_grid = read_label(true[case], grid.order)
        if not grid.same_place(mask_grid):
            raise InputError(
                f"{predicted[case]}: {difference(grid, mask_grid)} than {true[case]}. "
                "Predict on the original image, or resample with nearest neighbour."
            )
        for label, path in ((prediction, predicted[case]), (mask, true[case])):
            _check_values(label, path, names)
        unit = "voxel" if voxels and grid.spacing_mm == (1, 1, 1) else "mm"
        return score_volume(case, prediction, mask, grid.spacing_mm, names, unit)

    rows = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress("scoring", len(cases), "case") as bar:
        for part in pool.map(score_case, cases):
            rows += part
            bar.advance()
    return rows, [case for case in true if case not in predicted], [case for case in predicted if case not in true]


def score_cases(dataset: Dataset, cases: Sequence[Case], predictions: dict[str, Path]) -> list[dict]:
    """Score the predictions of cases that have a dense mask, by case and class, in parallel. Raises InputError for another shape, affine or value."""

    def score_case(case: Case) -> list[dict]:
        prediction, grid = read_label(predictions[case.id])
        truth = load_label(case.truth, grid, predictions[case.id], dataset.ignore, ignored=False)
        unit = "voxel" if dataset.spacing_unit == "voxels" and grid.spacing_mm == (1, 1, 1) else "mm"
        return score_volume(case.id, prediction, truth, grid.spacing_mm, dataset.classes[1:], unit)

    rows = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress("scoring", len(cases), "case") as bar:
        for part in pool.map(score_case, cases):
            rows += part
            bar.advance()
    return rows


def score_volume(
    case: str,
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: tuple[float, ...],
    classes: Sequence[str],
    unit: str = "mm",
) -> list[dict]:
    """One row per class: label values 1, 2, … of two label arrays [D, H, W] (`classes` names them). Empty masks: see `metrics`."""
    diagonal = diagonal_mm(truth.shape, spacing_mm)
    rows = []
    for value, name in enumerate(classes, 1):
        scores = score(prediction == value, truth == value, spacing_mm)
        penalised = diagonal if scores.missing else scores.hd95_mm
        values = (
            case,
            name,
            scores.dice,
            scores.hd95_mm,
            scores.assd_mm,
            unit,
            scores.missing,
            scores.spurious,
            penalised,
        )
        rows.append(dict(zip(COLUMNS, values)))
    return rows


def list_masks(path: Path) -> dict[str, Path]:
    """Case name → file, of one file or of a folder's volumes, without the maps that belong to another mask there."""
    if path.is_file():
        return {_stem(path): path}
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder.")
    files: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if file.name.startswith(".") or not file.name.lower().endswith(NIFTI + ITK):
            continue
        if _stem(file) in files:
            raise InputError(
                f"{path}: {files[_stem(file)].name} and {file.name} are the same case. Remove one of the two."
            )
        files[_stem(file)] = file
    masks = {name: file for name, file in files.items() if not _is_map(name, files)}
    if not masks:
        raise InputError(f"{path}: no masks in this folder; expected files ending in {', '.join(NIFTI + ITK)}.")
    return masks


def _stem(path):
    return path.name[: -len(ending(path))]


def _is_map(name, files):
    owners = [name[:at] for at in range(len(name)) if name[at:] == "_entropy" or name.startswith("_prob_", at)]
    return any(owner in files for owner in owners)


def _class_names(path, info):
    values = {value: name for name, value in info["labels"].items() if name != "ignore" and isinstance(value, int)}
    if (
        len(values) != len(info["labels"].keys() - {"ignore"})
        or sorted(values) != list(range(len(values)))
        or len(values) < 2
    ):
        got = info["labels"]
        raise InputError(
            f"{path}: labels are {got}; expected the whole numbers 0 (background), 1, 2, … Or name the classes: --classes."
        )
    return tuple(values[value] for value in range(1, len(values)))


def _numbered(paths):
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        highest = max(pool.map(lambda path: int(read_label(path)[0].max()), paths))
    if highest < 1:
        raise InputError(
            f"{paths[0].parent}: no foreground in any mask; nothing to score against. Is this the folder of the dense masks?"
        )
    return tuple(f"class_{value}" for value in range(1, highest + 1))


def _check_values(label, path, names):
    for value in (int(label.min()), int(label.max())):
        if not 0 <= value <= len(names):
            known = ", ".join(f"{number} {name}" for number, name in enumerate(("background", *names)))
            raise InputError(
                f"{path}: has value {value}; expected {known}. Give dense masks of these classes, no scribbles with an ignore value."
            )


def write_rows(path: Path, rows: list[dict]) -> None:
    """The per-case table as CSV, atomically; undefined values are nan, flags 0 or 1."""
    with atomic_file(Path(path)) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(
            {key: int(value) if isinstance(value, bool) else value for key, value in row.items()} for row in rows
        )


def read_rows(path: Path) -> list[dict]:
    """What `write_rows` wrote. Raises InputError when the file has other columns or cannot be read."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        texts, flags = ("case", "class", "unit"), ("missing", "spurious")
        kinds = {
            key: str if key in texts else (lambda text: bool(int(text))) if key in flags else float for key in COLUMNS
        }
        return [{key: kind(row[key]) for key, kind in kinds.items()} for row in rows]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not a table of scores ({error}). Write it again with: scribbleseg evaluate --out {path}"
        ) from error


def summarise(rows: list[dict]) -> list[dict]:
    """One dict per class, in the rows' order, and one named `mean` over the classes.

    Keys: class, cases, unit; dice, dice_sd, hd95, hd95_sd, assd, assd_sd, penalised_hd95: mean and sample standard deviation over the cases
    where the value is defined (nan where there is none; sd nan for fewer than two); n_missing, n_spurious: counts.
    In the last row a mean is the mean of the classes' means, an sd that over cases of each case's mean over classes, a count a sum.
    Raises InputError when there are no rows, or they mix mm and voxel.
    """
    units = sorted({row["unit"] for row in rows})
    if len(units) != 1:
        got = " and ".join(units) or "no unit (there are no rows)"
        raise InputError(f"distances are in {got}; expected one unit. Score data sets without spacing apart.")
    classes = list(dict.fromkeys(row["class"] for row in rows))
    cases = list(dict.fromkeys(row["case"] for row in rows))
    place = np.array([(cases.index(row["case"]), classes.index(row["class"])) for row in rows]).T
    columns = [{"class": name, "cases": len(cases), "unit": units[0]} for name in (*classes, "mean")]
    for key in ("dice", "hd95", "assd", "penalised_hd95"):
        table = np.full((len(cases), len(classes)), np.nan)
        table[tuple(place)] = [row[key] for row in rows]
        means = [_mean(column) for column in table.T]
        for entry, mean, values in zip(columns, (*means, _mean(means)), (*table.T, [_mean(line) for line in table])):
            entry[key] = mean
            if key != "penalised_hd95":
                entry[f"{key}_sd"] = _sd(values)
    for flag in ("missing", "spurious"):
        counts = [sum(row[flag] for row in rows if row["class"] == name) for name in classes]
        for entry, count in zip(columns, (*counts, sum(counts))):
            entry[f"n_{flag}"] = count
    return columns


def _mean(values):
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else np.nan


def _sd(values):
    defined = [value for value in values if not np.isnan(value)]
    return float(np.std(defined, ddof=1)) if len(defined) > 1 else np.nan


def table_cells(summary: list[dict]) -> list[tuple[str, ...]]:
    """The summary as text, a heading and then a line per class: mean (sd) as in `summarise`, `–` where nothing is defined."""
    unit = summary[0]["unit"]
    lines = [
        (
            "class",
            "Dice",
            f"HD95 ({unit})",
            f"HD95 penalised ({unit})",
            f"ASSD ({unit})",
            "missing",
            "spurious",
            "cases",
        )
    ]
    for row in summary:
        hd95, assd = (_text(row[key], row[f"{key}_sd"], 2) for key in ("hd95", "assd"))
        penalised = _text(row["penalised_hd95"], np.nan, 2)
        counts = (str(row[key]) for key in ("n_missing", "n_spurious", "cases"))
        lines.append((row["class"], _text(row["dice"], row["dice_sd"], 4), hd95, penalised, assd, *counts))
    return lines


def format_table(summary: list[dict]) -> str:
    """The summary as a Markdown table that also reads well on a terminal."""
    lines = table_cells(summary)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))] for line in lines
    ]
    text.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in text)


def _text(mean, sd, digits):
    if np.isnan(mean):
        return "–"
    return f"{mean:.{digits}f}" + ("" if np.isnan(sd) else f" ({sd:.{digits}f})")
