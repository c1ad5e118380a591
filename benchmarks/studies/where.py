"""Where a preset loses Dice: far away or near, in which class, in which slices.

python benchmarks/studies/where.py RUN ...

Reads RUN/predictions of finished runs and the dense masks of their held-out cases, and writes where.csv and where.md
into benchmarks/results/best. What the CSV has of other runs stays. Nothing is chosen here.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from scribbleseg.data.layout import read_dataset
from scribbleseg.data.volume import read_label
from scribbleseg.evaluation.metrics import dice
from scribbleseg.training.plan import read_plan

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table, put_line, write_page
from far_field import MARGIN, measure

NUMBERS = ("dice", "volume", "first", "middle", "last")
COLUMNS = ("data", "split", "fold", "seed", "class", "cases", *NUMBERS, "near", "outside", "empty")
HEAD = (
    *("data", "split", "fold", "seed", "class", "cases", "Dice", "volume", "Dice, first third", "middle third"),
    *("last third", "Dice in the box", "foreground outside", "in empty slices"),
)
ABOUT = (
    "The preset `best`; made by `python benchmarks/studies/where.py` from predictions of held-out cases. Means over "
    "cases. Dice, volume (predicted over true), and the Dice of each third of the slices that have foreground in the "
    "dense mask, in the order of the file and taken together; a class that is in neither is left out. The row `all` "
    f"has the mean of the classes, the Dice inside each slice's box around the dense mask, {MARGIN} pixels wider on "
    "every side, and the share of the predicted foreground that lies outside the boxes, in slices with foreground in "
    "the dense mask and in slices without."
)


def numbers(found: np.ndarray, truth: np.ndarray, value: int) -> tuple[float, ...]:
    """NUMBERS of one class of a case, [D, H, W] each; NaN where a part has it in neither."""
    one, other = found == value, truth == value
    thirds = np.array_split((truth > 0).any((1, 2)).nonzero()[0], 3)
    volume = one.sum() / other.sum() if other.any() else np.nan
    return dice(one, other), volume, *(dice(one[part], other[part]) for part in thirds)


def lines_of(run: Path, datasets: Path) -> list[dict]:
    """The lines of a run: one per class, and `all`."""
    train, plan = read_plan(run)
    dataset = read_dataset(datasets / Path(train.dataset).name)
    place = {"data": dataset.folder.name, "split": plan.split, "fold": train.fold, "seed": train.seed}
    files = [(path, dataset.case(path.name.removesuffix(".nii.gz"))) for path in (run / "predictions").glob("*.nii.gz")]
    pairs = []
    for path, case in sorted((path, case) for path, case in files if case.truth is not None):
        found, grid = read_label(path)
        pairs.append((found, read_label(case.truth, grid.order)[0]))
    values = np.array([[numbers(*pair, k) for pair in pairs] for k in range(1, len(plan.classes))])
    means = np.nanmean(values, 1)
    cases, _, near, outside, empty = measure(run, dataset)
    lines = [place | {"class": name, "cases": cases} | shown(row) for name, row in zip(plan.classes[1:], means)]
    far = {name: f"{100 * value:.2f}" for name, value in (("near", near), ("outside", outside), ("empty", empty))}
    return [*lines, place | {"class": "all", "cases": cases} | shown(means.mean(0)) | far]


def shown(row: np.ndarray) -> dict[str, str]:
    return {name: f"{value:.2f}" if name == "volume" else f"{100 * value:.1f}" for name, value in zip(NUMBERS, row)}


def place_of(line: dict) -> tuple[str, str, int, int, str]:
    """Where a line stands in where.csv."""
    return line["data"], line["split"], int(line["fold"]), int(line["seed"]), line["class"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--datasets", type=Path, default=Path("datasets"))
    parser.add_argument("--results", type=Path, default=RESULTS / "best")
    given = parser.parse_args()
    path, lines = given.results / "where.csv", []
    for line in (line for run in given.runs for line in lines_of(run, given.datasets)):
        lines = put_line(path, line, place_of, COLUMNS)
    table = markdown_table(HEAD, [[line.get(key, "") for key in COLUMNS] for line in lines])
    write_page(path.with_suffix(".md"), "# Where `best` loses Dice", ABOUT, table)
    print(table)


if __name__ == "__main__":
    main()
