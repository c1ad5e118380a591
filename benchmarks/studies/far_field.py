"""How much of a method's loss of Dice lies far from the heart.

python benchmarks/studies/far_field.py [RUNS] [DATASETS] [RESULTS]

For every run of the quick budget that has predictions, the script computes the Dice over the whole volume, the Dice
inside each slice's box around the dense mask, 20 pixels wider on every side, and the share of the predicted foreground
that lies outside these boxes: in slices with a heart, and in slices without one. Writes far-field-quick.csv and .md
into RESULTS. Lines of runs whose predictions are on another machine stay there.
"""

import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from scribbleseg.bench.store import read_scores
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.volume import read_label
from scribbleseg.evaluation.tables import summarise

sys.path.append(str(Path(__file__).parents[1]))

from common import markdown_table, read_csv, write_csv, write_page

MARGIN = 20  # pixels
TOLERANCE = 0.001  # of Dice, between two ways to take its mean
KEY = ("data", "split", "row", "seed")
COLUMNS = (*KEY, "cases", "dice", "dice_in_box", "foreground_outside", "foreground_in_empty_slices")
HEAD = (*KEY, "cases", "Dice", "Dice in the box", "predicted foreground outside the boxes", "in slices without a heart")
ABOUT = (
    "Made by `python benchmarks/studies/far_field.py` from the predictions of the runs; numbers in "
    "far-field-quick.csv.\n\n"
    f"In the box: inside each slice's box around the dense mask, {MARGIN} pixels wider on every side."
)


def boxes(truth: np.ndarray, margin: int = MARGIN) -> np.ndarray:
    """True inside the box around each slice's foreground and its margin; slices without foreground have none. [D, H, W]
    → bool [D, H, W]"""
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
    """Cases; means of Dice, of Dice in the boxes, of the shares of predicted foreground outside them in slices with and
    without a heart."""

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


def earlier(lines: Sequence[Mapping[str, str]], scored: Mapping[str, list[dict]]) -> list[str]:
    """A note that names the lines whose Dice is not that of the committed scores: the run was made again since."""
    names = []
    for line in lines:
        name = f"{line['data']}/{line['split']}/{line['row']}-s{line['seed']}"
        if name in scored and abs(summarise(scored[name])[-1]["dice"] - float(line["dice"])) > TOLERANCE:
            names.append(name)
    return [f"These lines are of earlier runs than the committed scores: {', '.join(names)}."] if names else []


def main(runs: Path, datasets: Path, results: Path) -> None:
    page = results / "far-field-quick.md"
    lines = {tuple(line[key] for key in KEY): line for line in read_csv(page.with_suffix(".csv"))}
    scored = read_scores(results / "quick")
    for folder in sorted(runs.glob("quick/*/*/*/predictions")):
        data, split, row = folder.parts[-4:-1]
        label, _, seed = row.rpartition("-s")
        if f"{data}/{split}/{row}" in scored:
            cases, *values = measure(folder.parent, read_dataset(datasets / data))
            key = data, split, label, seed
            cells = (*key, str(cases), *(f"{value:.5f}" for value in values))
            lines[key] = dict(zip(COLUMNS, cells))
    found = [lines[key] for key in sorted(lines)]
    write_csv(page.with_suffix(".csv"), found, COLUMNS)
    rows = []
    for line in found:
        *words, dice, near, outside, elsewhere = (line[key] for key in COLUMNS)
        dices = [f"{100 * float(value):.1f}" for value in (dice, near)]
        rows.append([*words, *dices, *(f"{100 * float(value):.0f} %" for value in (outside, elsewhere))])
    table = markdown_table(HEAD, rows)
    notes = earlier(found, scored)
    write_page(page, "# Near the heart and far from it, budget `quick`", ABOUT, table, *notes)
    print(table)


if __name__ == "__main__":
    main(*map(Path, [*sys.argv[1:], *("runs", "datasets", "benchmarks/results")[len(sys.argv) - 1 :]]))
