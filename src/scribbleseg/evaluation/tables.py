"""Tables of scores: per case as CSV, summarised over cases as numbers and as text."""

import csv
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from ..core.atomic import atomic_file
from ..core.errors import InputError

FORMULA = re.compile(r"'*[=+\-@\t\r]")
TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape"}  # also a file's name that is no text
COLUMNS = ("case", "class", "dice", "hd95", "assd", "unit", "missing", "spurious", "penalised_hd95")


def check_table(path: Path) -> None:
    """Raises InputError for a file that exists and is no table of scores, so that it must not be replaced."""
    if not os.path.lexists(path):
        return
    if path.is_file():
        with open(path, "rb") as file:
            if file.readline(200).decode("utf-8", "replace").strip() in ("", ",".join(COLUMNS)):
                return
    raise InputError(f"{path}: exists already and is no table of scores. Choose another name for the scores.")


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write the scores of every case as CSV, atomically. Undefined values are nan, flags 0 or 1."""
    with atomic_file(Path(path)) as partial, open(partial, "w", newline="", **TEXT) as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({key: as_cell(value) for key, value in row.items()} for row in rows)


def as_cell(value: object) -> object:
    """Flags as 0 and 1. Text that a spreadsheet would take for a formula gets an apostrophe in front of it."""
    if isinstance(value, bool):
        return int(value)
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def read_rows(path: Path) -> list[dict]:
    """What `write_rows` wrote. Raises InputError when the file has other columns or cannot be read."""
    try:
        with open(path, newline="", **TEXT) as file:
            rows = list(csv.DictReader(file))
        texts, flags = ("case", "class", "unit"), ("missing", "spurious")
        kinds: dict[str, Callable] = dict.fromkeys(COLUMNS, float) | dict.fromkeys(texts, plain)
        kinds |= dict.fromkeys(flags, lambda text: bool(int(text)))
        return [{key: kind(row[key]) for key, kind in kinds.items()} for row in rows]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path}: not a table of scores ({error}). Write it again: "
            f"scribbleseg evaluate PREDICTIONS TRUTH --out {path}"
        ) from error


def plain(text: str) -> str:
    """The text of a cell that `as_cell` wrote."""
    return text[1:] if text.startswith("'") and FORMULA.match(text[1:]) else text


def summarise(rows: list[dict]) -> list[dict]:
    """One dict per class, in the rows' order, and one named `mean` over the classes.

    Keys: class, cases, unit; dice, dice_sd, hd95, hd95_sd, assd, assd_sd, penalised_hd95: mean and sample standard
    deviation over the cases where the value is defined (nan where there is none; sd nan for fewer than two cases);
    n_missing, n_spurious: counts.
    In the last row a mean is the mean of the classes' means, an sd is that over cases of each case's mean over classes,
    and a count is a sum. Raises InputError if there are no rows, or if they mix mm and voxel.
    """
    units = sorted({row["unit"] for row in rows})
    if len(units) != 1:
        got = " and ".join(units) or "no unit (there are no rows)"
        raise InputError(f"distances are in {got}; expected one unit. Score data sets without spacing separately.")
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


def _mean(values: np.ndarray | list[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else np.nan


def _sd(values: np.ndarray | list[float]) -> float:
    defined = [value for value in values if not np.isnan(value)]
    return float(np.std(defined, ddof=1)) if len(defined) > 1 else np.nan


def table_cells(summary: list[dict]) -> list[tuple[str, ...]]:
    """The summary as text, a heading and a line per class: mean (sd) as in `summarise`, `–` where none is defined."""
    unit = summary[0]["unit"]
    lines: list[tuple[str, ...]] = [
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
    """The summary as a Markdown table that is also readable in a terminal."""
    head, *lines = table_cells(summary)
    sides = ("left", *["right"] * (len(head) - 1))
    return tabulate(lines, head, tablefmt="pipe", colalign=sides, disable_numparse=True)


def _text(mean: float, sd: float, digits: int) -> str:
    if np.isnan(mean):
        return "–"
    return f"{mean:.{digits}f}" + ("" if np.isnan(sd) else f" ({sd:.{digits}f})")
