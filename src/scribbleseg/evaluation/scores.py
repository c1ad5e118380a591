"""Scores of predicted masks, per case and class.

A row is a dict with the keys of COLUMNS: one structure of one case. `unit` is mm, or voxel for a data set without
spacing (dataset.json says `"spacing": "voxels"` and the voxel size of the file is 1, 1, 1). `penalised_hd95` is hd95,
or the diagonal of the volume where the structure was missed.
"""

import os
import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..config import Evaluate
from ..core.console import say, tell
from ..core.errors import InputError, first_names, some_failed
from ..core.progress import Progress
from ..data.case import difference, load_label
from ..data.dataset import Case, Dataset
from ..data.layout import Description, read_description
from ..data.nifti import AS_ITK, two_places
from ..data.volume import Grid, read_label
from ..inference.provenance import MADE_BY, changed
from .masks import check_values, class_names, list_masks, numbered_classes
from .metrics import diagonal_mm, score
from .tables import COLUMNS, check_table, format_table, read_rows, summarise, table_cells, write_rows

__all__ = [
    "COLUMNS",
    "evaluate",
    "format_table",
    "list_masks",
    "read_rows",
    "score_cases",
    "score_files",
    "score_volume",
    "summarise",
    "table_cells",
    "write_rows",
]

Item = TypeVar("Item")


def evaluate(config: Evaluate) -> list[dict]:
    """Score a file or a folder, print the summary, write the per-case table and return its rows.

    A case that cannot be scored does not stop the others. Raises InputError for it after everything is printed and
    written, and at once what `score_files` raises.
    """
    if config.out is not None:
        check_table(config.out)
    rows, unpredicted, unscored, failed = score_files(
        config.predictions, config.truth, config.classes, config.same_voxels
    )
    if not rows:
        raise InputError(some_failed(list(failed.values()), len(failed), "scored"))
    if config.out is not None:
        write_rows(config.out, rows)
    tell(format_table(summarise(rows)))
    cases = {row["case"] for row in rows}
    for left_out, words in (
        (unpredicted, "masks without a prediction, not scored"),
        (unscored, "predictions without a mask, not scored"),
    ):
        if left_out:
            tell(f"{words}: {len(left_out)} of {len(left_out) + len(cases)} (first: {left_out[0]})")
    files = [path for case, path in list_masks(config.predictions).items() if case in cases]
    if altered := changed(files[0].parent, [path.name for path in files]):
        tell(f"predictions changed after predict wrote them: {len(altered)} of {len(files)} (first: {altered[0]})")
    if failed:
        raise InputError(some_failed(list(failed.values()), len(failed) + len(cases), "scored"))
    return rows


def _way_out(grid: Grid, truth: Grid) -> str:
    if grid.turned(truth):
        return "No voxel needs to be resampled."
    if grid.sizes == truth.sizes:
        return "If both were made on the same scan, --same-voxels compares them voxel by voxel."
    return "Both must lie on the grid of the scan: export the one again that does not."


def score_files(
    predictions: Path, truth: Path, classes: Sequence[str] = (), same_voxels: bool = False
) -> tuple[list[dict], list[str], list[str], dict[str, str]]:
    """Score a mask against a mask, or a folder against masks of the same names (endings may differ).

    Returns the rows, by case and class, the cases in TRUTH that have no prediction, the predictions that have no mask
    there, and for each case that cannot be scored (a file that cannot be read, another shape or affine, a value without
    a class) what is wrong. same_voxels: the affines may differ; such a case is named. The classes' names are `classes`,
    or those of dataset.json beside the folder TRUTH, or class_1, class_2, … up to the highest value in TRUTH.

    Raises InputError for a folder without volumes, folders without a name in common, and swapped folders.
    """
    predictions, truth = Path(predictions), Path(truth)
    _check_order(predictions, truth)
    predicted, true = list_masks(predictions), list_masks(truth)
    if predictions.is_file() and truth.is_file():
        true = dict(zip(predicted, true.values()))
    cases = [case for case in predicted if case in true]
    if not cases:
        raise InputError(
            f"{predictions}: no prediction has the name of a mask in {truth} (first prediction: "
            f"{next(iter(predicted))}, first mask: {next(iter(true))}). Rename the files of one of the folders."
        )
    info_path = (truth if truth.is_dir() else truth.parent).parent / "dataset.json"
    info, content = read_description(info_path) if info_path.is_file() else (Description(), {})
    names = tuple(classes)
    if not names:
        names = (
            class_names(info_path, info.labels)
            if "labels" in content
            else numbered_classes([true[case] for case in cases])
        )

    def score_case(case: str) -> list[dict]:
        prediction, grid = read_label(predicted[case])
        mask, mask_grid = read_label(true[case], grid.order)
        if two_places(grid.header) or two_places(mask_grid.header):
            twice.append(case)
        spacing_mm = grid.spacing_mm
        if not grid.same_place(mask_grid) and same_voxels and grid.sizes == mask_grid.sizes:
            spacing_mm = mask_grid.spacing_along(grid.order)
            say(
                f"{predicted[case]}: lies elsewhere than {true[case]}; compared voxel by voxel (--same-voxels), with "
                f"voxels of {' × '.join(f'{size:.4g}' for size in spacing_mm)} {mask_grid.unit} as in the second"
            )
        elif not grid.same_place(mask_grid):
            raise InputError(
                f"{predicted[case]}: {difference(grid, mask_grid)} than {true[case]}. {_way_out(grid, mask_grid)}"
            )
        check_values(prediction, predicted[case], names)
        check_values(mask, true[case], names)
        unit = _unit(info.spacing if mask_grid.unit == "mm" else mask_grid.unit, spacing_mm)
        return score_volume(case, prediction, mask, spacing_mm, names, unit)

    twice: list[str] = []
    failed: dict[str, str] = {}

    def attempt(case: str) -> list[dict]:
        try:
            return score_case(case)
        except InputError as error:
            failed[case] = str(error)
            return []

    rows = _in_parallel(attempt, cases)
    if twice:
        say(f"{first_names(sorted(twice))}: {AS_ITK}")
    return (
        rows,
        [case for case in true if case not in predicted],
        [case for case in predicted if case not in true],
        {case: failed[case] for case in cases if case in failed},
    )


def score_cases(dataset: Dataset, cases: Sequence[Case], predictions: dict[str, Path]) -> list[dict]:
    """Score the predictions of cases that have a dense mask, by case and class.

    Raises InputError for another shape, affine or value.
    """

    def score_case(case: Case) -> list[dict]:
        assert case.truth is not None
        prediction, grid = read_label(predictions[case.id])
        truth = load_label(case.truth, grid, predictions[case.id], dataset.ignore, ignored=False)
        unit = _unit(dataset.spacing_unit, grid.spacing_mm)
        return score_volume(case.id, prediction, truth, grid.spacing_mm, dataset.classes[1:], unit)

    return _in_parallel(score_case, cases)


def score_volume(
    case: str,
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: tuple[float, ...],
    classes: Sequence[str],
    unit: str = "mm",
) -> list[dict]:
    """One row per class: label values 1, 2, … of two label arrays [D, H, W], named by `classes`.

    Empty masks: see `metrics`.
    """
    diagonal = diagonal_mm(truth.shape, spacing_mm)
    rows = []
    for value, name in enumerate(classes, 1):
        found = score(prediction == value, truth == value, spacing_mm)
        rows.append(
            {
                "case": case,
                "class": name,
                "dice": found.dice,
                "hd95": found.hd95_mm,
                "assd": found.assd_mm,
                "unit": unit,
                "missing": found.missing,
                "spurious": found.spurious,
                "penalised_hd95": diagonal if found.missing else found.hd95_mm,
            }
        )
    return rows


def _check_order(predictions: Path, truth: Path) -> None:
    """Raises InputError for a truth that does not exist, and for predictions in its place."""
    if not truth.exists():
        raise InputError(
            f"{truth}: no such file or folder. TRUTH holds the dense masks. Without any, look at the predictions with: "
            "scribbleseg report RUN"
        )
    if (truth / MADE_BY).is_file() and predictions.is_dir() and not (predictions / MADE_BY).is_file():
        raise InputError(
            f"{truth}: holds predictions ({MADE_BY} says what made them), and {predictions} does not. The order is "
            f"PREDICTIONS TRUTH: {shlex.join(['scribbleseg', 'evaluate', str(truth), str(predictions)])}. If these "
            f"predictions were corrected and are now the truth, remove {MADE_BY}."
        )


def _unit(spacing: str | None, spacing_mm: tuple[float, ...]) -> str:
    return "voxel" if spacing == "voxels" and tuple(spacing_mm) == (1, 1, 1) else "mm"


def _in_parallel(score_case: Callable[[Item], list[dict]], cases: Sequence[Item]) -> list[dict]:
    rows = []
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress("scoring", len(cases), "cases") as bar:
        for part in pool.map(score_case, cases):
            rows += part
            bar.advance()
    return rows
