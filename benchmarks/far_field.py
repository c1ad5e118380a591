"""How much of a method's loss of Dice lies far from the heart: python benchmarks/far_field.py [RUNS] [DATASETS] [RESULTS]

For every run of the quick budget that has predictions: Dice over the whole volume, Dice inside each slice's box around the dense mask, 20 pixels
wider on every side, and the share of the predicted foreground that lies outside these boxes: in slices with a heart, and in slices without one.
Writes far-field-quick.csv and .md into RESULTS, where the lines of runs whose predictions are on another machine stay.
"""

import csv
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from scribbleseg.core.atomic import atomic_file
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.volume import read_label

MARGIN = 20  # pixels
COLUMNS = (
    "data",
    "split",
    "row",
    "seed",
    "cases",
    "dice",
    "dice_in_box",
    "foreground_outside",
    "foreground_in_empty_slices",
)


def boxes(truth: np.ndarray, margin: int = MARGIN) -> np.ndarray:
    """True inside the box around each slice's foreground and its margin; slices without foreground have none. [D, H, W] → bool [D, H, W]"""
    inside = np.zeros(truth.shape, bool)
    for plane, mask in zip(inside, truth > 0):
        if mask.any():
            (top, bottom), (left, right) = (np.flatnonzero(mask.any(axis))[[0, -1]] for axis in (1, 0))
            plane[max(0, top - margin) : bottom + margin + 1, max(0, left - margin) : right + margin + 1] = True
    return inside


def mean_dice(found: np.ndarray, truth: np.ndarray, classes: int) -> float:
    """Mean over the foreground classes that are in either mask."""
    sizes = [(found == c).sum() + (truth == c).sum() for c in range(1, classes)]
    return float(np.mean([2 * ((found == c) & (truth == c)).sum() / size for c, size in enumerate(sizes, 1) if size]))


def measure(run: Path, dataset) -> tuple[int, float, float, float, float]:
    """Cases; means of Dice, of Dice in the boxes, of the shares of predicted foreground outside them in slices with and without a heart."""

    def one(case):
        found, grid = read_label(run / "predictions" / f"{case.id}.nii.gz")
        truth, _ = read_label(case.truth, grid.order)
        inside, classes = boxes(truth), len(dataset.classes)
        heart = inside.any((1, 2))
        outside, elsewhere = (
            ((found > 0) & ~inside)[which].sum() / max(1, (found > 0).sum()) for which in (heart, ~heart)
        )
        return mean_dice(found, truth, classes), mean_dice(found[inside], truth[inside], classes), outside, elsewhere

    cases = [dataset.case(path.name.removesuffix(".nii.gz")) for path in sorted((run / "predictions").glob("*.nii.gz"))]
    with ThreadPoolExecutor() as pool:
        values = list(pool.map(one, [case for case in cases if case.truth is not None]))
    return len(values), *np.mean(values, 0)


def main(runs: Path, datasets: Path, results: Path) -> None:
    numbers, lines = results / "far-field-quick.csv", {}
    if numbers.is_file():
        with open(numbers, newline="", encoding="utf-8") as file:
            lines = {tuple(line[:4]): line for line in list(csv.reader(file))[1:]}
    for folder in sorted(runs.glob("quick/*/*/*/predictions")):
        data, split, row = folder.parts[-4:-1]
        label, _, seed = row.rpartition("-s")
        if (results / "quick" / data / split / row / "metrics.csv").is_file():
            cases, *values = measure(folder.parent, read_dataset(datasets / data))
            lines[data, split, label, seed] = [
                data,
                split,
                label,
                seed,
                str(cases),
                *(f"{value:.5f}" for value in values),
            ]
    with atomic_file(numbers) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(lines[key] for key in sorted(lines))
    text = [
        "# Near the heart and far from it, budget `quick`",
        "",
        "Made by `python benchmarks/far_field.py` from the predictions of the runs; numbers in far-field-quick.csv.",
        "",
    ]
    text += [f"In the box: inside each slice's box around the dense mask, {MARGIN} pixels wider on every side.", ""]
    text += [
        "| data | split | row | seed | cases | Dice | Dice in the box | predicted foreground outside the boxes | in slices without a heart |",
        "|" + "---|" * 9,
    ]
    for *words, dice, near, outside, elsewhere in (lines[key] for key in sorted(lines)):
        cells = [
            *words,
            *(f"{100 * float(value):.1f}" for value in (dice, near)),
            *(f"{100 * float(value):.0f} %" for value in (outside, elsewhere)),
        ]
        text.append("| " + " | ".join(cells) + " |")
    with atomic_file(results / "far-field-quick.md") as partial:
        partial.write_text("\n".join(text) + "\n", encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main(*map(Path, [*sys.argv[1:], *("runs", "datasets", "benchmarks/results")[len(sys.argv) - 1 :]]))
