"""The grid of segmentations of a bench: a row per slice, a column per method, outlines over the image."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from ..config import Bench
from ..core.labels import UNLABELED
from ..data.case import Volume, load_volume
from ..data.dataset import Case, Dataset
from ..data.layout import read_dataset
from ..data.volume import read_label
from ..reporting.figures import colour, crop, draw_overlay, upright, upright_spacing
from .charts import INK, NothingToDraw, which_runs, wrap
from .plan import Job
from .statistics import table_of, with_mean
from .store import Results

COLUMNS = 9  # most columns in a band


@dataclass(frozen=True)
class Row:
    """A slice as the grid shows it: cropped, upright planes [H, W]; None if a method did not predict the case."""

    name: str
    image: np.ndarray
    scribble: np.ndarray
    truth: np.ndarray
    predictions: dict[str, np.ndarray | None]
    spacing: tuple[float, float]
    dice: dict[str, float] = field(default_factory=dict)  # of the whole case, mean over its classes; shown if known


def grid(jobs: Sequence[Job], results: Results, config: Bench, names: Sequence[str] = (), slices: int = 1) -> Figure:
    """Rows: slices of cases. Columns: scribble, dense mask, and the first seed of every method.

    All methods are shown with the same slices and crops, which are chosen by the dense masks.
    """
    folder = config.datasets / jobs[0].data
    if not (folder / "dataset.json").is_file():
        raise NothingToDraw(f"the data set {folder} does not exist")
    dataset = read_dataset(folder)
    rows_of = Counter(fold for fold, _ in {(job.fold, job.label): None for job in results.records})
    held: dict[str, int] = {}  # case → fold
    for fold in rows_of:
        cases = dataset.held_out(dataset.fold(jobs[0].split, fold))[1]
        held |= {case.id: fold for case in cases if case.truth is not None}
    shared = [case for case, fold in held.items() if rows_of[fold] == max(rows_of.values())]
    chosen = [name for name in names if name in held] or _first_middle_last(shared)
    if not chosen:
        raise NothingToDraw("no held-out case has a dense mask")
    dice = with_mean(table_of(results.scores, "dice", ["run", "case"]))["mean"] / 100
    shown: dict[
        tuple[str, str], tuple[Path | None, float]
    ] = {}  # (label, case) → prediction and its Dice, of the first seed
    for job, case in product(sorted(results.records, key=lambda job: job.seed), chosen):
        path = config.runs / job.place / "predictions" / f"{case}{dataset.file_ending}"
        if job.fold == held[case] and path.is_file():
            shown.setdefault((job.label, case), (path, dice.get((job.run, case), math.nan)))
    every = list(dict.fromkeys(job.label for job in jobs))
    labels = [label for label in every if any((label, case) in shown for case in chosen)]
    if not labels:
        raise NothingToDraw(f"no predictions are in {config.runs}")
    rows = []
    for case in chosen:
        found = {label: shown.get((label, case), (None, math.nan)) for label in labels}
        rows += _rows(dataset, dataset.case(case), found, slices)
    absent = [label for label in every if label not in labels]
    note = (
        f"{which_runs(results)}. Slices: {'the one' if slices == 1 else 'those'} with most foreground in the dense "
        "mask, cut out around it. Number: mean Dice of the case's whole volume, foreground outside the picture too."
    )
    if len({job.seed for job in results.records}) > 1:
        note += " Pictures and numbers are of each method's first seed."
    note += f" Not run, or without predictions here: {', '.join(absent)}." if absent else ""
    return draw_grid(rows, dataset.classes, note)


def _first_middle_last(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names[place] for place in (0, len(names) // 2, -1))) if names else []


def _rows(dataset: Dataset, case: Case, found: dict[str, tuple[Path | None, float]], slices: int) -> list[Row]:
    """Divide the slices with foreground in the dense mask evenly; of each part take the one with most."""
    volume = load_volume(dataset, case)
    predictions = {
        label: None if path is None else read_label(path, volume.grid.order)[0] for label, (path, _) in found.items()
    }
    dice = {label: value for label, (path, value) in found.items() if path}
    assert volume.truth is not None  # only cases with a dense mask are chosen
    foreground = volume.truth > 0
    area = foreground.sum((1, 2))
    there = np.flatnonzero(area)
    rows = []
    for part in np.array_split(there, min(slices, len(there))) if len(there) else ():
        index = int(part[area[part].argmax()])
        row = cut_row(dataset, volume, index, predictions, foreground[index])
        rows.append(dataclasses.replace(row, dice=dice))
    return rows


def cut_row(
    dataset: Dataset, volume: Volume, index: int, predictions: dict[str, np.ndarray | None], around: np.ndarray
) -> Row:
    """A slice of a volume and of predictions [D, H, W], cropped to the mask `around` [H, W].

    It is turned upright if the files have an orientation.
    """
    located = dataset.spacing_unit == "mm"
    spacing = upright_spacing(volume.grid) if located else volume.grid.spacing_mm[1:]
    turn = (lambda plane: upright(plane, volume.grid)) if located else (lambda plane: plane)
    box = crop(turn(around), spacing)
    name = f"{volume.case.id}\nslice {index + 1} of {volume.image.shape[1]}"
    planes = (volume.image[0], volume.scribble, volume.truth)
    image, scribble, truth = (turn(np.asarray(array)[index])[box] for array in planes)
    found = {label: None if array is None else turn(array[index])[box] for label, array in predictions.items()}
    return Row(name, image, scribble, truth, found, spacing)


def draw_grid(rows: Sequence[Row], classes: Sequence[str], note: str = "") -> Figure:
    """Draw the grid of `rows`. Contours differ in line style and colour; scribbles are filled.

    Many methods are divided into bands, one below the other.
    """
    labels = list(rows[0].predictions)
    drawn = any((row.scribble != UNLABELED).any() for row in rows)
    titles = ["image, scribble" if drawn else "image", "dense mask", *labels]
    bands = -(-len(titles) // COLUMNS)
    columns = -(-len(titles) // bands)
    cell, top, gap = 1.3, 0.24, 0.06
    left = 0.1 + 0.072 * max(len(line) for row in rows for line in row.name.split("\n"))
    lines = wrap(note, left + (cell + gap) * columns)
    bottom = 0.42 + 0.14 * len(lines.splitlines())
    width, height = left + (cell + gap) * columns, bottom + bands * (top + (cell + gap) * len(rows))
    figure = Figure((width, height))
    for place, title in enumerate(titles):
        band, column = divmod(place, columns)
        for index, row in enumerate(rows):
            y = height - (band + 1) * top - (band * len(rows) + index + 1) * (cell + gap) + gap
            ax = figure.add_axes(((left + column * (cell + gap)) / width, y / height, cell / width, cell / height))
            if place == 0:
                draw_overlay(ax, row.image, row.scribble if drawn else None, row.spacing)
            else:
                draw_contours(ax, row.image, row.truth if place == 1 else row.predictions[title], row.spacing)
            if title in row.dice and place > 1:
                _write_dice(ax, row.dice[title], bool(np.any(row.predictions[title])))
            if column == 0:
                ax.text(-0.05, 0.5, row.name, transform=ax.transAxes, ha="right", va="center", fontsize=8.5)
            if index == 0:
                ax.set_title(title, fontsize=min(9, 160 / len(title)), pad=3)
    look: dict[str, Any] = {"linewidth": 2, "path_effects": [withStroke(linewidth=3.4, foreground=INK)]}
    key = [
        Line2D([], [], color=colour(value), linestyle=_class_line(value), label=name, **look)
        for value, name in enumerate(classes)
    ]
    key[0].set(linestyle="-", label=f"{classes[0]} (scribble only)")
    key = key[not drawn :]
    figure.legend(
        handles=key,
        loc="lower left",
        bbox_to_anchor=(0.06 / width, (bottom - 0.38) / height),
        ncols=len(key),
        frameon=False,
        fontsize=8,
        handlelength=3.2,
        borderpad=0,
    )
    figure.text(0.06 / width, 0.06 / height, lines, fontsize=7.5, va="bottom")
    return figure


def _write_dice(ax: Axes, dice: float, found: bool) -> None:
    """Write the Dice into the corner of a panel. `found`: whether the prediction has foreground there."""
    words = ([] if found else ["nothing found"]) + ([] if math.isnan(dice) else [f"{dice:.2f}"])
    ax.text(
        0.03,
        0.03,
        "\n".join(words),
        transform=ax.transAxes,
        fontsize=8.5,
        color="white",
        path_effects=[withStroke(linewidth=2, foreground=INK)],
    )


def draw_contours(ax: Axes, image: np.ndarray, label: np.ndarray | None, spacing: tuple[float, float]) -> None:
    """Draw an image [H, W] with the outline of every class but background, along the edges of the pixels.

    Without a label the panel is blank and says `no prediction`.
    """
    if label is None:
        ax.text(
            0.5, 0.5, "no prediction", ha="center", va="center", transform=ax.transAxes, fontsize=7.5, style="italic"
        )
        ax.set_axis_off()
        return
    draw_overlay(ax, image, None, spacing)
    width = min(1.5, 1.2 * ax.get_window_extent().width / ax.figure.dpi)  # thinner in small cells
    for value in [int(value) for value in np.unique(label) if value]:
        parts: list[Any] = list(contour_generator(z=(label == value).astype(float)).lines(0.5))
        x, y = np.concatenate([np.vstack([part, (np.nan, np.nan)]) for part in parts] or [np.empty((0, 2))]).T
        ax.plot(x, y, color=INK, linewidth=1.6 * width)  # a dark, solid line below covers the outline of the next class
        ax.plot(x, y, color=colour(value), linewidth=width, linestyle=_class_line(value), label=f"class {value}")


def _class_line(value: int) -> Any:
    return ("-", (0, (3.5, 1.4)), (0, (1, 0.9)), (0, (5, 1, 1, 1)))[(value - 1) % 4]
